"""Verifiable rewards: what each check accepts, and that nothing is evaluated."""

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt2.alignment.verifiable_rewards import (
    HOLDS,
    can_hold,
    checkable,
    last_equation,
    last_number,
    reward_of,
)
from minigpt2.data.almanac.ask import held_out_equations
from minigpt2.errors import UserError

NUMBERS = st.integers(-10_000, 10_000)
WORK = "27 + 15 = 27 + 10 + 5 = 37 + 5 = 42, so the sum is 42."


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", None),
        ("none", None),
        ("7", 7),
        ("7 and 8.", 8),
        ("It costs 3.50.", Fraction(7, 2)),
        ("1,000 people", 1000),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("3,4", 4),
        ("-5", -5),
        ("−5", -5),
        ("27-15", 15),
        ("27 - 15", 15),
        ("27 -15", -15),
        ("(3)-4", 4),
        ("the 3rd", 3),
        ("9" * 31, None),
        ("7, " + "9" * 5000, 7),
        ("1e9", 9),
        ("٣", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "equation"),
    [
        ("", None),
        ("2 + 3", None),
        ("2 + 3 = ", None),
        ("2 + 3 = 5", (5, 5)),
        ("2+3=5.", (5, 5)),
        ("2 + 3 = 6", (5, 6)),
        ("5 - 8 = -3", (-3, -3)),
        ("5 − 8 = −3", (-3, -3)),
        ("-5 + 8 = 3", (3, 3)),
        ("3 + -5 = -2", (-2, -2)),
        ("3 - −5 = 8", (8, 8)),
        ("3--5=8", (8, 8)),
        ("3 + -5 - 1 = -3", None),
        ("1 + 1 = 2 - -5", None),
        ("4 × 3 = 12", (12, 12)),
        ("4 x 3 = 12", (12, 12)),
        ("4 * 3 = 12", (12, 12)),
        ("7 / 2 = 3.5", (Fraction(7, 2), Fraction(7, 2))),
        ("7 ÷ 0 = 7", (None, 7)),
        ("1,000 + 1 = 1,001", (1001, 1001)),
        ("3,4 + 1 = 5", (5, 5)),
        (WORK, (42, 42)),
        ("1 + 1 = 2 and 2 + 2 = 5", (4, 5)),
        ("1 + 2 + 3 = 6", None),
        ("10 - 3 + 5 = 12", None),
        ("1 + 1 = 1 + 1", None),
        ("1 + 1 = 2 + 0 = 2", (2, 2)),
        ("1 = 1", None),
        ("2 ** 3 = 8", None),
        ("__import__('os').getpid() + 1 = 2", None),
    ],
)
def test_last_equation(text, equation):
    assert last_equation(text) == equation


@pytest.mark.parametrize(
    ("check", "answer", "reference", "holds"),
    [
        ("exact", "gas", "gas", True),
        ("exact", " gas\n", "gas", True),
        ("exact", "Gas", "gas", False),
        ("exact", "", "", True),
        ("contains", "It is a gas.", "gas", True),
        ("contains", "GAS", "gas", True),
        ("contains", "gasoline", "gas", False),
        ("contains", "42", "4", False),
        ("contains", "a (b) c", "(b)", True),
        ("contains", "anything", "", False),
        ("contains", "axc", "a.c", False),
        ("number", "so 42", "It is 42.0", True),
        ("number", "42, no, 43", "42", False),
        ("number", "none", "none", False),
        ("equation", WORK, WORK, True),
        ("equation", WORK.replace("37 + 5 = 42", "37 + 5 = 43"), WORK, False),
        ("equation", WORK.replace("37 + 5", "37 + 4"), WORK, False),
        ("equation", WORK.replace("27 + 15", "27 + 16"), WORK, True),  # only the last counts
        ("equation", "1 + 1 = 2", WORK, False),
        ("equation", "42", WORK, False),
        ("equation", "40 + 2 = 42", "42", False),
        ("equation", "7 ÷ 0 = 7", "7 + 0 = 7", False),
    ],
)
def test_checks(check, answer, reference, holds):
    assert HOLDS[check](answer, reference) == holds
    assert reward_of(check, answer, reference) == float(holds)
    assert reward_of(check, answer, reference, ended=False) == 0
    assert reward_of(check, answer, reference, ended=False, must_end=False) == float(holds)


@given(NUMBERS, NUMBERS, st.sampled_from("+-*"))
def test_every_true_equation_is_right_and_no_other(a, b, operation):
    c = {"+": a + b, "-": a - b, "*": a * b}[operation]
    true = f"Take it: {a} {operation} {b} = {c}, that is it."
    assert last_equation(true) == (c, c)
    assert reward_of("equation", true, true) == reward_of("number", true, str(c)) == 1
    assert reward_of("equation", f"{a} {operation} {b} = {c + 1}", true) == 0


@given(st.text("0123456789+-*/=.,x ()e\n", max_size=60))
@example("1 + 1 = 1 + ")
@example("1,11.1 = 2")
def test_any_text_is_read_without_an_exception(text):
    for check in HOLDS:
        assert reward_of(check, text, text) in (0, 1)
    assert can_hold("number", text) == (last_number(text) is not None)


@pytest.mark.parametrize(
    "text", ["1 + " * 20_000, "1" * 100_000, "1,111" * 20_000, "1 + 1 = 2 " * 5_000]
)
def test_long_texts_take_little_time(text):
    started = time.perf_counter()
    for check in HOLDS:
        reward_of(check, text, "1 + 1 = 2")
    assert time.perf_counter() - started < 2


def test_references_of_the_almanac_meet_their_own_check():
    for record in held_out_equations(np.random.default_rng(0)):
        assert reward_of("equation", record["output"], record["output"]) == 1


def test_records_that_can_be_met():
    outputs = ["gas", "It is 4.", "2 + 2 = 4", " "]
    assert checkable("exact", outputs, "data") == [0, 1, 2, 3]
    assert checkable("contains", outputs, "data") == [0, 1, 2]
    assert checkable("number", outputs, "data") == [1, 2]
    assert checkable("equation", outputs, "data") == [2]


@pytest.mark.parametrize(
    ("check", "outputs", "words"),
    [
        (
            "number",
            ["gas", ""],
            "questions.json: .* 'number', .* a number .* none of its 2 records",
        ),
        ("equation", ["4"], "an equation such as 2 \\+ 3 = 5 .* none of its 1 record has"),
        ("contains", [""], "a text"),
    ],
)
def test_a_check_that_no_record_can_meet_is_refused(check, outputs, words):
    with pytest.raises(UserError, match=words):
        checkable(check, outputs, "questions.json")
