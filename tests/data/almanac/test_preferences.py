"""Preferences: what is chosen is right and direct, and what is rejected is worse in its way."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.data.almanac import ask, preferences
from minigpt2.data.almanac.padding import content, is_direct
from tests.data.almanac.common import is_given_away, sentences
from tests.data.almanac.test_same_texts import digest

DIGESTS = {
    "mixture": "d290eceaa07ff725",
    "pairs": "4ffcf1fe0a1862b8",
    "held_out_pairs": "e02e7fa136b78b42",
    "arithmetic": "83f9a8e35c0ffbc2",
}


@pytest.fixture(scope="module")
def lists():
    """The lists that ship."""
    return preferences.preferences()


def answers_of(records):
    """{question: its right answer}."""
    return {ask.question_key(question): question["output"] for question in records}


def test_the_mixture_has_every_training_question_twice_direct_and_padded(lists, question_set):
    right = answers_of(question_set.train)
    for style in (True, False):
        of_style = [q for q in lists.mixture if is_direct(q["output"]) == style]
        assert Counter(map(ask.question_key, of_style)) == Counter(dict.fromkeys(right, 1))
        for question in of_style:
            assert content(question["output"]) == right[ask.question_key(question)]


@pytest.mark.parametrize("name", ["pairs", "held_out_pairs"])
def test_a_pair_is_right_and_direct_over_worse(lists, question_set, name):
    known = question_set.train if name == "pairs" else preferences.held_out(question_set)
    right = answers_of(known)
    wording = {ask.question_key(question): preferences.wording_of(question) for question in known}
    everything = [*question_set.train, *preferences.held_out(question_set)]
    answers = preferences.answers_by_wording(everything)
    for pair in getattr(lists, name):
        key, chosen, rejected = ask.question_key(pair), pair["chosen"], pair["rejected"]
        assert chosen == right[key] != rejected and is_direct(chosen)
        if pair["kind"] == "padded":
            assert content(rejected) == chosen and not is_direct(rejected)
        elif pair["kind"] == "cut":
            assert chosen.startswith(rejected)
        else:
            assert rejected in answers[wording[key]]


def test_some_cut_answers_are_empty(lists):
    cut = [pair for pair in lists.pairs if pair["kind"] == "cut"]
    assert 0.1 < sum(not pair["rejected"] for pair in cut) / len(cut) < 0.3


def test_half_of_the_pairs_are_right_over_wrong(lists):
    kinds = Counter(pair["kind"] for pair in lists.pairs)
    for kind, share in (("padded", 1 / 4), ("cut", 1 / 4), ("wrong", 1 / 2)):
        assert kinds[kind] / len(lists.pairs) == pytest.approx(share, abs=0.03)


def test_every_held_out_question_has_a_pair_of_each_kind(lists, question_set):
    keys = [ask.question_key(question) for question in preferences.held_out(question_set)]
    assert len(set(keys)) == 300
    for kind in preferences.KINDS:
        of_kind = [ask.question_key(p) for p in lists.held_out_pairs if p["kind"] == kind]
        assert sorted(of_kind) == sorted(keys)


def test_nothing_that_is_held_out_is_given_away(lists, question_set):
    held_out = {ask.question_key(question) for question in preferences.held_out(question_set)}
    for name in ("mixture", "pairs", "arithmetic"):
        for record in getattr(lists, name):
            assert ask.question_key(record) not in held_out
            assert not any(map(is_given_away, sentences(" ".join(record.values()))))


def test_the_arithmetic_is_sums_and_differences_alone(lists, question_set):
    for question in lists.arithmetic:
        assert question in question_set.train
        assert re.search(r"\d+ [+-] \d+ = ", question["output"])
    rest = [q for q in question_set.train if q not in lists.arithmetic]
    assert not any(re.search(r"\d+ [+-] \d+ = ", question["output"]) for question in rest)


def test_the_same_seed_makes_the_same_lists_and_another_seed_others(lists):
    assert preferences.preferences() == lists
    assert preferences.preferences(1).pairs != lists.pairs


@pytest.mark.parametrize("name", DIGESTS)
def test_the_lists_are_the_same_to_the_letter(lists, name):
    assert digest(getattr(lists, name)) == DIGESTS[name]


def test_every_question_has_a_wording(question_set):
    for records in question_set:
        for question in records:
            (instruction, _, _) = preferences.wording_of(question).split("|")
            assert len(instruction.split()) <= len(question["instruction"].split()) + 10


WORDS = st.lists(st.text("abc", min_size=1), min_size=1).map(" ".join)


@given(WORDS, st.integers(0, 99))
def test_a_cut_answer_is_a_proper_beginning(answer, seed):
    beginning = preferences.cut(np.random.default_rng(seed), answer)
    assert beginning != answer and answer.startswith(beginning)
    if beginning and " " in answer:
        assert answer.removeprefix(beginning).startswith(" ")


def test_a_pair_that_cannot_be_made_is_none():
    rng, question = np.random.default_rng(0), {"instruction": "?", "input": "", "output": "1"}
    assert preferences.pair(rng, "cut", question, ())["rejected"] == ""
    assert preferences.pair(rng, "wrong", question, ("1",)) is None
    assert preferences.pair(rng, "wrong", question, ("1", "2"))["rejected"] == "2"
