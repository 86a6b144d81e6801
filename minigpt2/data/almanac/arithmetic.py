"""Arithmetic: which pairs of numbers exist, and which of them nobody ever tells.

No number reaches 100: addition takes a and b from 0 with a sum of at most 99; subtraction takes
a from 0 to 99 and b from 0 to a.
About six of a hundred additions, chosen by a fixed hash and not by chance, are unseen: neither
told nor trained.  a + b = c, b + a = c, c - a = b and c - b = a stand or fall together, so an
unseen difference cannot be read off a told sum.

Never unseen are pairs in which a number is below 11 or a multiple of ten, so the steps a + tens,
then + ones may always be told; nor equal numbers and 11 with 12, whose doubles and products are
told as tables.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from minigpt2.data.almanac.chance import pick

LIMIT = 100  # sums and the first operands of differences lie below this
MIX = 2654435761  # about 2^32 / golden ratio: the multiplier of Fibonacci hashing
ONE_IN = 11  # of the pairs that may be unseen, one in so many is

RESULT: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
}


def is_unseen(operation: str, a: int, b: int) -> bool:
    """Whether a + b or a - b is held out; "+" is symmetric, "-" goes with its sum."""
    if operation == "-":
        a = a - b  # (a - b) + b = a is the sum of the same family
    elif operation != "+":
        raise ValueError(f"operation {operation!r} is unknown; expected '+' or '-'")
    low, high = min(a, b), max(a, b)
    if low < 11 or high < 13 or low == high or low % 10 == 0 or high % 10 == 0:
        return False
    mixed = (low * LIMIT + high) * MIX % 2**32
    return (mixed >> 16) % ONE_IN == 0


def kept_apart(a: int, b: int) -> bool:
    """Whether a and b are the operands of an unseen sum or of an unseen difference."""
    return is_unseen("+", a, b) or is_unseen("-", max(a, b), min(a, b))


@cache
def pairs(operation: str, unseen: bool) -> tuple[tuple[int, int], ...]:
    """All operand pairs that are unseen, or all that may be told (those not kept apart)."""
    every = ((a, b) for a in range(LIMIT) for b in range(LIMIT - a if operation == "+" else a + 1))
    if unseen:
        return tuple(pair for pair in every if is_unseen(operation, *pair))
    return tuple(pair for pair in every if not kept_apart(*pair))


@cache
def small_pairs(operation: str) -> tuple[tuple[int, int], ...]:
    """The pairs that may be told whose second operand has one digit."""
    return tuple(pair for pair in pairs(operation, unseen=False) if pair[1] < 10)


def draw(rng: np.random.Generator, operation: str) -> tuple[int, int]:
    """A pair that may be told; one in four has a second operand of one digit at least."""
    if rng.random() < 0.25:
        return pick(rng, small_pairs(operation))
    return pick(rng, pairs(operation, unseen=False))


@cache
def graded_pairs(operation: str) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Pairs that may be told whose second operand is one digit or one multiple of ten.

    These are the steps of which longer work is made (`equation_fields`), from easy to hard: both
    operands have one digit, then the second one, each first without carrying or borrowing; last
    the multiples of ten.
    """
    plain: Callable[[int, int], bool] = (
        (lambda a, b: a % 10 + b % 10 < 10) if operation == "+" else (lambda a, b: a % 10 >= b % 10)
    )
    one_digit_each = tuple(pair for pair in small_pairs(operation) if max(pair) < 10)
    kinds = (one_digit_each, small_pairs(operation))
    tens = tuple(p for p in pairs(operation, unseen=False) if p[1] >= 10 and p[1] % 10 == 0)
    graded = (pool for kind in kinds for pool in (tuple(p for p in kind if plain(*p)), kind))
    return (*graded, tens)


def draw_graded(rng: np.random.Generator, operation: str) -> tuple[int, int]:
    """A pair that may be told: any of them half the time, else one of a grade drawn first.

    Were all pairs equally frequent, a digit of a sum would say nothing about either digit that
    it comes from by itself, and a model finds no beginning.
    """
    if rng.random() < 0.5:
        return pick(rng, pairs(operation, unseen=False))
    return pick(rng, pick(rng, graded_pairs(operation)))


def equation_fields(operation: str, a: int, b: int) -> dict[str, int | str]:
    """What a template may name: a, b, result c, and how it is worked out.

    b's tens come first, which makes m, then its ones: two steps of which each is one of the
    equations with a one-digit number or a multiple of ten, and those are never held out.  Where b
    has tens and ones, `work` goes that way, 27 + 15 = 27 + 10 + 5 = 37 + 5 = 42, and each number
    in it follows from what stands close before; else it is the equation itself.
    """
    result = RESULT[operation]
    tens, ones = b - b % 10, b % 10
    c, m = result(a, b), result(a, tens)
    work = f"{a} {operation} {b} = {c}"
    if tens and ones:
        parts = f"{a} {operation} {tens} {operation} {ones} = {m} {operation} {ones}"
        work = f"{a} {operation} {b} = {parts} = {c}"
    return {"a": a, "b": b, "c": c, "tens": tens, "ones": ones, "m": m, "work": work}


def fits(template: str, fields: Mapping[str, Any]) -> bool:
    """Whether the numbers suit the wording: steps need tens and ones, things need a plural."""
    if "{tens}" in template and (fields["tens"] == 0 or fields["ones"] == 0):
        return False
    counts_things = "{name}" in template or "{things}" in template or "people" in template
    return not counts_things or min(fields["a"], fields["b"], fields["c"]) >= 2
