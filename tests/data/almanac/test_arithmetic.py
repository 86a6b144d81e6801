"""Arithmetic: unseen pairs are families, and work takes steps that are seen."""

import numpy as np
import pytest

from minigpt2.data import almanac
from minigpt2.data.almanac import arithmetic
from tests.data.almanac.common import is_given_away


def test_unseen_sums_and_differences_are_one_family_and_six_in_a_hundred():
    for operation, everything in (("+", 5050), ("-", 5050)):
        unseen = arithmetic.pairs(operation, unseen=True)
        assert 0.04 < len(unseen) / everything < 0.07
        for a, b in unseen:
            total, part = (a + b, a) if operation == "+" else (a, a - b)
            assert almanac.is_unseen("+", part, b) and almanac.is_unseen("+", b, part)
            assert almanac.is_unseen("-", total, part) and almanac.is_unseen("-", total, b)
    with pytest.raises(ValueError, match="'x' is unknown"):
        almanac.is_unseen("x", 2, 3)


def test_the_check_catches_a_pair_that_is_given_away():
    a, b = arithmetic.pairs("+", unseen=True)[0]
    assert is_given_away(f"We know that {a} + {b} = {a + b}.")
    assert is_given_away(f"{a + b} - {b} = {a}.")
    assert is_given_away(f"Tom had {b} apples and bought {a} more.")


@pytest.mark.parametrize("operation", ["+", "-"])
def test_grades_are_the_steps_from_easy_to_hard(operation):
    *digits, tens = arithmetic.graded_pairs(operation)
    in_text = set(arithmetic.pairs(operation, unseen=False))
    every = ((a, b) for a in range(100) for b in range(100))
    exists = (lambda a, b: a + b < 100) if operation == "+" else (lambda a, b: a >= b)
    assert set(digits[-1]) == {pair for pair in every if exists(*pair) and pair[1] < 10}
    assert set(tens) == {pair for pair in in_text if pair[1] in range(10, 100, 10)}
    sizes = [len(grade) for grade in digits]
    assert sizes == sorted(sizes)
    for easy, kind in zip(digits[::2], digits[1::2], strict=True):
        for a, b in easy:
            ones = a % 10 + b % 10 if operation == "+" else a % 10 - b % 10
            assert 0 <= ones <= 9 and (a, b) in kind


def test_half_of_the_pairs_are_any_and_half_are_steps():
    rng = np.random.default_rng(0)
    drawn = [arithmetic.draw_graded(rng, "+") for _ in range(6000)]
    in_steps = np.mean([b > 10 and b % 10 > 0 for _, b in drawn])
    one_digit_each = np.mean([max(pair) < 10 for pair in drawn])
    assert 0.3 < in_steps < 0.4 and 0.2 < one_digit_each < 0.3


@pytest.mark.parametrize(
    ("operation", "a", "b", "work"),
    [
        ("+", 27, 15, "27 + 15 = 27 + 10 + 5 = 37 + 5 = 42"),
        ("-", 62, 15, "62 - 15 = 62 - 10 - 5 = 52 - 5 = 47"),
        ("+", 27, 5, "27 + 5 = 32"),
        ("-", 62, 20, "62 - 20 = 42"),
    ],
)
def test_work_takes_two_steps_where_the_second_number_has_tens_and_ones(operation, a, b, work):
    assert arithmetic.equation_fields(operation, a, b)["work"] == work


@pytest.mark.parametrize("operation", ["+", "-"])
def test_the_steps_of_what_is_unseen_are_in_the_text(operation):
    steps = {pair for grade in arithmetic.graded_pairs(operation) for pair in grade}
    unseen = arithmetic.pairs(operation, unseen=True)
    seen = 0
    for a, b in unseen:
        fields = arithmetic.equation_fields(operation, a, b)
        pair_of_steps = {(a, fields["tens"]), (fields["m"], fields["ones"])}
        assert not any(almanac.is_unseen(operation, *step) for step in pair_of_steps)
        seen += pair_of_steps <= steps
    # the few others begin with a pair such as 11 and 80, which is kept apart because of 80 - 11
    assert seen / len(unseen) > 0.95
