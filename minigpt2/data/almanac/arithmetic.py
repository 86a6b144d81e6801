"""Arithmetic: which pairs of numbers exist, and which of them are held out.

All numbers are below 100.  Addition takes a and b from 0 on with a sum of at most 99; subtraction
takes a from 0 to 99 and b from 0 to a.

About six of a hundred additions are unseen: neither the text nor a training question contains
them.  A fixed hash chooses them, not chance.  a + b = c, b + a = c, c - a = b and c - b = a are
unseen together or not at all, so an unseen difference cannot be inferred from a sum in the text.

A pair is never unseen if one of its numbers is below 11 or a multiple of ten, so the text may
always state the steps a + tens, then + ones.  Nor is it unseen if its numbers are equal, or are 11
and 12, since the text states doubles and products as tables.

    >>> print(equation_fields("+", 27, 15)["work"])
    27 + 15 = 27 + 10 + 5 = 37 + 5 = 42
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from minigpt2.data.almanac.chance import pick

LIMIT = 100  # sums and the first operands of differences lie below this
MIX = 2654435761  # about 2^32 / golden ratio: the multiplier of Fibonacci hashing
ONE_IN = 11  # one in so many of the pairs that may be unseen is unseen

RESULT: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
}


def is_unseen(operation: str, a: int, b: int) -> bool:
    """Whether a + b or a - b is held out; a difference is if its sum is, and so is b + a."""
    if operation == "-":
        a = a - b  # (a - b) + b = a is the sum that belongs to this difference
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
    """Return all unseen pairs of operands, or all that the text may use (those not kept apart)."""
    every = ((a, b) for a in range(LIMIT) for b in range(LIMIT - a if operation == "+" else a + 1))
    if unseen:
        return tuple(pair for pair in every if is_unseen(operation, *pair))
    return tuple(pair for pair in every if not kept_apart(*pair))


@cache
def small_pairs(operation: str) -> tuple[tuple[int, int], ...]:
    """Return the pairs of the text whose second operand has one digit."""
    return tuple(pair for pair in pairs(operation, unseen=False) if pair[1] < 10)


def draw(rng: np.random.Generator, operation: str) -> tuple[int, int]:
    """Draw a pair for the text; in at least one of four the second operand has one digit."""
    if rng.random() < 0.25:
        return pick(rng, small_pairs(operation))
    return pick(rng, pairs(operation, unseen=False))


@cache
def graded_pairs(operation: str) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return pairs of the text whose second operand has one digit or is a multiple of ten.

    Longer work consists of such steps (`equation_fields`).  The grades go from easy to hard: first
    both operands have one digit, then only the second has, each time first without carrying or
    borrowing and then with it; last come the multiples of ten.
    """

    def is_plain(a: int, b: int) -> bool:
        """Whether the ones neither carry nor borrow."""
        return a % 10 + b % 10 < 10 if operation == "+" else a % 10 >= b % 10

    one_digit_each = tuple(pair for pair in small_pairs(operation) if max(pair) < 10)
    kinds = (one_digit_each, small_pairs(operation))
    tens = tuple(p for p in pairs(operation, unseen=False) if p[1] >= 10 and p[1] % 10 == 0)
    graded = (pool for kind in kinds for pool in (tuple(p for p in kind if is_plain(*p)), kind))
    return (*graded, tens)


def draw_graded(rng: np.random.Generator, operation: str) -> tuple[int, int]:
    """Draw a pair for the text: half the time any pair, else a pair of a grade that is drawn first.

    If all pairs were equally frequent, a digit of a sum would depend on both digits that it comes
    from, and on neither of them alone, so a model would find no first step to learn.
    """
    if rng.random() < 0.5:
        return pick(rng, pairs(operation, unseen=False))
    return pick(rng, pick(rng, graded_pairs(operation)))


def equation_fields(operation: str, a: int, b: int) -> dict[str, int | str]:
    """Return the fields of a template: a, b, the result c, and the work from a and b to c.

    The work first adds or subtracts the tens of b, which gives m, then the ones of b.  Each step
    has a one-digit number or a multiple of ten, so it is never held out.  If b has tens and ones,
    `work` shows both steps, 27 + 15 = 27 + 10 + 5 = 37 + 5 = 42: each number follows from those
    just before it.  Otherwise `work` is the equation alone.
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
    """Whether the numbers fit the wording: steps need tens and ones, things need a plural."""
    if "{tens}" in template and (fields["tens"] == 0 or fields["ones"] == 0):
        return False
    counts_things = "{name}" in template or "{things}" in template or "people" in template
    return not counts_things or min(fields["a"], fields["b"], fields["c"]) >= 2
