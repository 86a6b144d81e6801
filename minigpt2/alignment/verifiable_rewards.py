"""Verifiable rewards: a program compares an answer with the reference of its record.

Why
    Where an answer is right or wrong, no reward model has to learn that, and none can be
    deceived.  But a program rewards what it checks, and nothing else: an answer may have
    the right number and say nonsense around it.  So measure what is checked, and what is
    not, too.

Definition, for an answer y of a record whose reference, its output, is y_ref
    r(y) = 1  if the check holds for y and y_ref, and y ended; else 0    (44.1)
    The expected reward of (40.1) is then the probability of a right answer.  That y must
    have ended can be left out; then an answer may run on after what is checked.

    exact     the texts are equal, but for white space at their ends
    contains  the reference occurs in the answer, in any case, as whole words
    number    the last number of the answer equals the last one of the reference
    equation  the last equation a ∘ b = c of the answer is true, where ∘ is +, −, × or ÷, and
              its c equals that of the reference's last equation

    Numbers are read digit by digit into fractions, so 1,000 = 1000.0 and 1 ÷ 3 is exact.  Nothing
    that a model wrote is ever evaluated: there is one operation, and it is looked up in a
    table.  In 27 + 15 = 27 + 10 + 5 = 37 + 5 = 42 the last equation is 37 + 5 = 42.

Example
    >>> for answer in ("37 + 5 = 42", "37 + 4 = 42", "37 + 4 = 41", "It is 42."):
    ...     print(answer, reward_of("equation", answer, "27 + 15 = 42"))
    37 + 5 = 42 1.0
    37 + 4 = 42 0.0
    37 + 4 = 41 0.0
    It is 42. 0.0
    >>> reward_of("number", "So 1,000.0 are left", "1000"), reward_of("contains", "A GAS.", "gas")
    (1.0, 1.0)
    >>> reward_of("exact", "gas", "gas", ended=False)  # it was cut
    0.0

Read it
    A check that is met in one answer of a thousand teaches as slowly as that: what is not
    sampled is not learnt.  A check that nearly every answer meets teaches nothing any more.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import Literal, NamedTuple

from minigpt2.data.records import same_text
from minigpt2.errors import UserError
from minigpt2.wording import plural

Check = Literal["exact", "contains", "number", "equation"]

DIGITS = 30  # a number with more is not read
THOUSANDS = r"(?!(?<=\d,)\d{3}(?!\d))"  # a number does not begin with those of another
SOME = rf"\d{{1,{DIGITS}}}"
PLAIN = rf"(?<![\d.]){THOUSANDS}(?:\d{{1,3}}(?:,\d{{3}})+|{SOME})(?:\.{SOME})?(?!\d)"
SIGN = r"(?:(?<![\w)])[-−])?"  # a minus behind a number is an operation
OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    **dict.fromkeys("+", add),
    **dict.fromkeys("-−", sub),
    **dict.fromkeys("*×·x", mul),
    **dict.fromkeys("/÷", truediv),
}
OPERATION = "[-−+*×·x/÷]"
NUMBER = re.compile(SIGN + PLAIN, re.ASCII)
RESULT = rf"([-−]?{PLAIN})(?! *{OPERATION} *[-−]?\d)"
EQUATION = re.compile(  # a lookahead, for the next equation may begin with this one's c
    rf"(?<![-−])(?=({SIGN})({PLAIN}) *({OPERATION}) *([-−]?{PLAIN}) *= *{RESULT})", re.ASCII
)
CONTINUED = re.compile(rf"\d *{OPERATION} *[-−]?$", re.ASCII)
FEW = 40  # characters: more white space than this ends an equation


class Equation(NamedTuple):
    """What stands before and behind the sign of equality, a ∘ b = c."""

    left: Fraction | None  # a ∘ b; None for a division by 0
    right: Fraction  # c


def number_of(text: str) -> Fraction:
    """Return the number that digits spell, with a sign and commas between thousands."""
    return Fraction(text.replace(",", "").replace("−", "-"))


def last_number(text: str) -> Fraction | None:
    """Return the last number of a text; None if it has none.

    >>> last_number("27-15 are 12, not -1.50")
    Fraction(-3, 2)
    """
    numbers = NUMBER.findall(text)
    return number_of(numbers[-1]) if numbers else None


def continues(text: str, place: int) -> bool:
    """Whether the number at a place follows another with an operation: the equation is longer."""
    return bool(CONTINUED.search(text, max(0, place - FEW), place))


def last_equation(text: str) -> Equation | None:
    """Return the last equation of one operation in a text; None if it has none.

    >>> last_equation("10 + 5 + 1 = 16, and 7 ÷ 2 = 3.5.")
    Equation(left=Fraction(7, 2), right=Fraction(7, 2))
    """
    whole = [m for m in EQUATION.finditer(text) if not continues(text, m.start(2))]
    if not whole:
        return None
    sign, first, operation, second, right = whole[-1].groups()
    a, b = number_of(sign + first), number_of(second)
    is_defined = b or OPERATIONS[operation] is not truediv
    return Equation(OPERATIONS[operation](a, b) if is_defined else None, number_of(right))


def contains(answer: str, reference: str) -> bool:
    """Whether the words of the reference occur in the answer."""
    words = re.escape(reference.strip().casefold())
    return bool(words and re.search(rf"(?<!\w){words}(?!\w)", answer.casefold()))


def same_number(answer: str, reference: str) -> bool:
    """Whether the last numbers of both are equal."""
    number = last_number(answer)
    return number is not None and number == last_number(reference)


def same_result(answer: str, reference: str) -> bool:
    """Whether the answer's last equation is true, and has the result of the reference's."""
    ours, expected = last_equation(answer), last_equation(reference)
    return bool(ours and expected and ours.left == ours.right == expected.right)


HOLDS: dict[str, Callable[[str, str], bool]] = {
    "exact": same_text,
    "contains": contains,
    "number": same_number,
    "equation": same_result,
}
NEEDS = {"contains": "a text", "number": "a number", "equation": "an equation such as 2 + 3 = 5"}


def reward_of(
    check: Check, answer: str, reference: str, *, ended: bool = True, must_end: bool = True
) -> float:
    """Return the reward of an answer, 0 or 1."""
    return float((ended or not must_end) and HOLDS[check](answer, reference))  # (44.1)


def can_hold(check: Check, reference: str) -> bool:
    """Whether any answer can meet a check of this reference."""
    if check == "number":
        return last_number(reference) is not None
    if check == "equation":
        return last_equation(reference) is not None
    return check == "exact" or bool(reference.strip())


def checkable(check: Check, references: Sequence[str], name: str) -> list[int]:
    """Return which references can be met by an answer; `name` is that of the data.

    Raises UserError if there is none.
    """
    chosen = [i for i, reference in enumerate(references) if can_hold(check, reference)]
    if not chosen:
        records = plural(len(references), "record")
        raise UserError(
            f"{name}: no answer can meet the check {check!r}, which needs {NEEDS.get(check)} in "
            f"the output: none of its {records} has one"
        )
    return chosen
