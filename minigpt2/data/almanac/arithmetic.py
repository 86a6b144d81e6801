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

from collections.abc import Callable
from functools import cache

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
    """The pairs that may be told, from easy to hard.

    Both operands, or the second one, or none need have one digit; of each of the three kinds
    first those whose ones need no carrying and no borrowing, then all.
    """
    told = pairs(operation, unseen=False)
    kinds = (
        tuple(pair for pair in told if max(pair) < 10),
        small_pairs(operation),
        told,
    )
    plain: Callable[[int, int], bool] = (
        (lambda a, b: a % 10 + b % 10 < 10) if operation == "+" else (lambda a, b: a % 10 >= b % 10)
    )
    return tuple(
        pool for kind in kinds for pool in (tuple(pair for pair in kind if plain(*pair)), kind)
    )


def draw_graded(rng: np.random.Generator, operation: str) -> tuple[int, int]:
    """A pair that may be told, from each grade equally often: whoever learns, learns these first.

    Were all pairs equally frequent, a digit of a sum would say nothing about either digit that
    it comes from by itself, and a model finds no beginning.
    """
    return pick(rng, pick(rng, graded_pairs(operation)))


def equation_fields(operation: str, a: int, b: int) -> dict[str, int]:
    """What a template may name: a, b, result c, and the way there by tens, m, then ones."""
    result = RESULT[operation]
    tens, ones = b - b % 10, b % 10
    return {"a": a, "b": b, "c": result(a, b), "tens": tens, "ones": ones, "m": result(a, tens)}


def fits(template: str, fields: dict[str, int]) -> bool:
    """Whether the numbers suit the wording: steps need tens and ones, things need a plural."""
    if "{m}" in template and (fields["tens"] == 0 or fields["ones"] == 0):
        return False
    counts_things = "{name}" in template or "{things}" in template or "people" in template
    return not counts_things or min(fields["a"], fields["b"], fields["c"]) >= 2
