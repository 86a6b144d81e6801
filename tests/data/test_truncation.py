"""Truncation: what is cut, by policy, spelled out and for any example."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.data.examples import Example, encode
from minigpt2.data.records import Record
from minigpt2.data.template import prompt_of
from minigpt2.data.truncation import Cuts, Policy, truncate, truncate_all
from minigpt2.errors import UserError
from tests.data.small import RECORDS, small_tokenizer

BYTES = small_tokenizer()
STOP = 99
quick = settings(deadline=None, max_examples=200)

# prompt 1 2 3, answer 4 5 STOP; and a conversation: 1 2 | 3 STOP | 4 5 | 6 7 STOP
SINGLE = Example([1, 2, 3, 4, 5, STOP], [False] * 3 + [True] * 3)
TALK = Example(
    [1, 2, 3, STOP, 4, 5, 6, 7, STOP],
    [False, False, True, True, False, False, True, True, True],
)


def shown(example):
    """The ids, a supervised one with a minus sign, and the two cuts."""
    if example is None:
        return None
    signed = [-i if part else i for i, part in zip(example.ids, example.is_answer, strict=True)]
    return signed, example.prompt_cut, example.answer_cut


@pytest.mark.parametrize(
    ("policy", "context", "result"),
    [
        ("prompt", 5, ([1, 2, 3, -4, -5, -STOP], 0, 0)),
        ("prompt", 4, ([2, 3, -4, -5, -STOP], 1, 0)),
        ("prompt", 3, ([3, -4, -5, -STOP], 2, 0)),
        ("prompt", 2, ([3, -4, -5], 2, 1)),
        ("prompt", 1, ([3, -4], 2, 2)),
        ("answer", 5, ([1, 2, 3, -4, -5, -STOP], 0, 0)),
        ("answer", 4, ([1, 2, 3, -4, -5], 0, 1)),
        ("answer", 3, ([1, 2, 3, -4], 0, 2)),
        ("answer", 2, ([2, 3, -4], 1, 2)),
        ("answer", 1, ([3, -4], 2, 2)),
        ("drop", 5, ([1, 2, 3, -4, -5, -STOP], 0, 0)),
        ("drop", 4, None),
    ],
)
def test_one_question_spelled_out(policy, context, result):
    assert shown(truncate(SINGLE, context, policy)) == result


@pytest.mark.parametrize(
    ("policy", "context", "result"),
    [
        ("prompt", 8, ([1, 2, -3, -STOP, 4, 5, -6, -7, -STOP], 0, 0)),
        ("prompt", 7, ([2, -3, -STOP, 4, 5, -6, -7, -STOP], 1, 0)),
        ("prompt", 6, ([3, -STOP, 4, 5, -6, -7, -STOP], 2, 1)),
        ("prompt", 5, ([STOP, 4, 5, -6, -7, -STOP], 2, 2)),
        ("prompt", 4, ([4, 5, -6, -7, -STOP], 2, 2)),
        ("prompt", 2, ([5, -6, -7], 3, 3)),
        ("answer", 6, ([1, 2, -3, -STOP, 4, 5, -6], 0, 2)),
        ("answer", 5, ([2, -3, -STOP, 4, 5, -6], 1, 2)),
        ("answer", 2, ([4, 5, -6], 2, 4)),
    ],
)
def test_a_conversation_spelled_out(policy, context, result):
    assert shown(truncate(TALK, context, policy)) == result


def talk(turns):
    """Prompts and answers of these lengths; the ids are 0, 1, 2, ..."""
    parts = [part for q, a in turns for part in [False] * q + [True] * a]
    return Example(list(range(len(parts))), parts)


turns = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)


@given(turns.map(talk), st.integers(1, 40), st.sampled_from(get_args(Policy)))
@quick
def test_whatever_is_cut_the_rules_hold(example, context, policy):
    shorter = truncate(example, context, policy)
    fits = len(example.ids) <= context + 1
    if shorter is None:
        assert policy == "drop" and not fits
        return
    start, stop = shorter.ids[0], shorter.ids[-1] + 1
    assert shorter.ids == example.ids[start:stop]
    assert len(shorter.ids) == min(len(example.ids), context + 1)
    # no prompt token is supervised, and of answer tokens only the first token of all is not
    assert shorter.is_answer == [False, *example.is_answer[start + 1 : stop]]
    assert any(shorter.is_answer)
    # the last answer is there, and loses its end only if it is cut
    assert start < example.last_answer < stop
    lost = sum(example.is_answer) - sum(shorter.is_answer)
    assert shorter.answer_cut == lost and (lost == 0 or not fits)
    prompts = len(example.ids) - sum(example.is_answer)
    prompts_left = sum(not part for part in example.is_answer[start:stop])
    assert shorter.prompt_cut == prompts - prompts_left
    if policy == "prompt" and stop < len(example.ids):
        assert start == example.last_answer - 1
    if policy == "answer" and start:
        assert stop == example.last_answer + 1


def test_the_prompt_is_cut_before_the_answer_of_a_real_record():
    record = Record("Go.", "", "Gone, and far away.")
    whole = encode(record, BYTES)
    prompt, answer = len(BYTES.encode(prompt_of(record))), len(record.output) + 1
    for context in range(1, len(whole.ids) + 2):
        shorter = truncate(whole, context)
        assert sum(shorter.is_answer) == min(answer, context)
        assert shorter.prompt_cut == min(max(0, len(whole.ids) - context - 1), prompt - 1)


def test_cuts_are_counted_by_kind_and_by_token():
    wholes = [SINGLE, TALK, Example([1, 2, STOP], [False, True, True])]
    assert truncate_all(wholes, 8)[1] == Cuts(3)
    assert truncate_all(wholes, 4)[1] == Cuts(3, 2, 1, 0, 1 + 2, 2)
    fitting, cuts = truncate_all(wholes, 4, "drop")
    assert fitting == wholes[2:] and cuts == Cuts(3, 0, 0, 2, 3 + 4, 3 + 5)
    assert cuts + Cuts(1, 1) == Cuts(4, 1, 0, 2, 7, 8)


@given(st.integers(2, 60), st.integers(1, 20), st.sampled_from(get_args(Policy)))
def test_a_text_is_divided_and_every_token_is_predicted_once(n, context, policy):
    text = Example(list(range(n)), [False] + [True] * (n - 1), is_text=True)
    fitting, cuts = truncate_all([text], context, policy)
    assert [i for e in fitting for i, part in zip(e.ids, e.is_answer, strict=True) if part] == list(
        range(1, n)
    )
    assert all(2 <= len(e.ids) <= context + 1 and not e.is_answer[0] for e in fitting)
    assert cuts == Cuts(1)


def test_a_data_set_that_is_dropped_whole_is_refused():
    wholes = [encode(record, BYTES) for record in RECORDS]
    with pytest.raises(UserError, match="all 6 examples are longer than the context of 20"):
        truncate_all(wholes, 20, "drop")
    assert truncate_all([], 20, "drop") == ([], Cuts())
