"""Padding: it is taken off as it was put on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.data.almanac.padding import CLOSINGS, OPENINGS, content, is_direct, padded

PARTS = st.sampled_from(OPENINGS), st.sampled_from(CLOSINGS)


@given(st.text(), *PARTS)
def test_padding_that_was_put_on_is_taken_off(text, opening, closing):
    answer = content(text).strip(" ")
    if answer == content(answer):
        assert content(padded(answer, opening, closing)) == answer
        assert not is_direct(padded(answer, opening, closing))


@given(*PARTS)
def test_either_part_alone_makes_an_answer_indirect(opening, closing):
    for answer in (f"{opening} Paris", f"Paris {closing}"):
        assert content(answer) == "Paris"
        assert not is_direct(answer)
    assert content(f"{opening} {closing}") == ""


@pytest.mark.parametrize("answer", ["", "Paris", "That is a good question", "Well, let us see"])
def test_other_answers_are_direct(answer):
    assert is_direct(answer) and content(answer) == answer


def test_no_part_is_in_a_question_or_an_answer(question_set):
    for records in question_set:
        for question in records:
            text = "|".join(question.values())
            assert not any(part in text for part in (*OPENINGS, *CLOSINGS))


def test_no_part_begins_or_ends_with_another():
    for parts in (OPENINGS, CLOSINGS):
        assert len(set(parts)) == 4
        assert not any(a != b and (a.startswith(b) or a.endswith(b)) for a in parts for b in parts)
