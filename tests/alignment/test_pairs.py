"""Preference pairs: their ids, what is left out and counted, how they are cut."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.alignment.pairs import (
    Pair,
    encode_pair,
    fit_pair,
    lengths_of_pairs,
    read_pairs,
    require_pairs,
    split_pairs,
)
from minigpt2.data.batches import batch_of, split
from minigpt2.data.examples import encode
from minigpt2.data.loading import load_data
from minigpt2.data.records import Exchange, Record
from minigpt2.data.statistics import count_rows
from minigpt2.data.template import TEMPLATES
from minigpt2.errors import UserError
from tests.data.small import example_of, small_tokenizer

TOKENIZER, QA = small_tokenizer(), TEMPLATES["qa"]
END = TOKENIZER.end_of_text
PREFERENCE = Record("Name a cat.", "", "Tom", rejected="A cat is named Tom", kind="long")
TALK = Record("Why?", "", "So.", "", (Exchange("Hi.", "Hello!"),), rejected="No.")


def read(*records, context=200, policy="answer"):
    """The pairs of these records."""
    return read_pairs(records, TOKENIZER, QA, context, policy)


def test_a_pair_is_a_prompt_and_two_answers_that_end():
    (pair,) = read(PREFERENCE).pairs
    example = encode(PREFERENCE, TOKENIZER, QA)
    assert pair.prompt == example.ids[: example.last_answer]
    assert pair.chosen == [*TOKENIZER.encode("Tom"), END]
    assert pair.rejected == [*TOKENIZER.encode("A cat is named Tom"), END]
    assert pair.kind == "long"


def test_the_answers_of_a_pair_are_those_of_two_examples():
    (pair,) = read(PREFERENCE).pairs
    for example, text in zip(pair.examples, ("Tom", "A cat is named Tom"), strict=True):
        alone = encode(PREFERENCE._replace(output=text), TOKENIZER, QA)
        assert (example.ids, example.is_answer) == (alone.ids, alone.is_answer)


def test_earlier_answers_of_a_conversation_belong_to_the_prompt():
    (pair,) = read(TALK).pairs
    chosen, _ = pair.examples
    assert chosen.is_answer == [False] * len(pair.prompt) + [True] * 4
    assert TOKENIZER.decode(pair.prompt).count("Hello!") == 1
    assert chosen.ids == encode(TALK, TOKENIZER, QA).ids


def test_an_answer_may_be_empty():
    (pair,) = read(PREFERENCE._replace(rejected="")).pairs
    assert pair.rejected == [END]


ids = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(ids, ids, ids)
@settings(max_examples=30)
def test_a_pair_takes_the_rows_of_a_forest_and_not_those_of_two_padded_sequences(
    prompt, chosen, rejected
):
    pair = Pair(prompt * 8, chosen, rejected)
    assert pair.rows == len(batch_of(pair.examples).ids)
    longest = max(map(len, (chosen, rejected)))
    assert count_rows([pair.examples]).padded == 2 * (len(pair.prompt) + longest - 1)


def test_equal_pairs_are_left_out_and_counted():
    equal = PREFERENCE._replace(rejected="Tom")
    pairs = read(equal, PREFERENCE, equal, TALK)
    assert [pair.kind for pair in pairs.pairs] == ["long", ""] and pairs.places == [1, 3]
    assert (pairs.equal, pairs.equal_when_cut, pairs.cuts.examples) == (2, 0, 2)
    assert pairs.notes == ["left out 2 pairs whose two answers are equal"]


def test_pairs_that_truncation_made_equal_are_left_out_and_counted():
    same_start = Record("Say a.", "", "a" * 100 + "b", rejected="a" * 100 + "c")
    pairs = read(same_start, PREFERENCE, context=60)
    assert (pairs.equal, pairs.equal_when_cut, pairs.places) == (0, 1, [1])
    assert pairs.notes == ["left out 1 pair whose two answers are equal after truncation"]


@given(ids, ids, ids, st.integers(2, 30), st.sampled_from(["answer", "prompt", "drop"]))
@settings(max_examples=80)
def test_both_answers_follow_one_prompt_and_their_last_tokens_have_rows(
    prompt, chosen, rejected, context, policy
):
    pair, removed = fit_pair(
        example_of(prompt, chosen), example_of(prompt, rejected), context, policy
    )
    longest = len(prompt) + max(map(len, (chosen, rejected)))
    if pair is None:
        assert policy == "drop" and longest > context
        return
    if longest <= context:
        assert pair == Pair(prompt, chosen, rejected) and not any(removed)
        return
    assert 1 <= len(pair.prompt) <= len(prompt)
    room = context - len(pair.prompt)
    assert (pair.chosen, pair.rejected) == (chosen[:room], rejected[:room])
    assert max(map(len, (pair.chosen, pair.rejected))) == min(room, longest - len(prompt))
    lost = len(chosen) + len(rejected) - len(pair.chosen) - len(pair.rejected)
    assert (removed.prompt, removed.answer) == (len(prompt) - len(pair.prompt), lost)
    if policy == "prompt" and lost:
        assert len(pair.prompt) == 1


def test_cuts_and_dropped_pairs_are_counted():
    long = PREFERENCE._replace(rejected="A cat" * 20)
    cuts = read(PREFERENCE, long, context=70).cuts
    assert (cuts.examples, cuts.answers, cuts.dropped) == (2, 1, 0)
    chosen, rejected = encode_pair(long, TOKENIZER, QA)
    assert cuts.answer_tokens + cuts.prompt_tokens == len(rejected.ids) - 70
    dropped = read(PREFERENCE, long, context=70, policy="drop")
    assert dropped.places == [0] and dropped.cuts.dropped == 1
    assert dropped.cuts.dropped_tokens == len(chosen.ids) + len(rejected.ids)


def test_tokens_are_counted():
    (pair,) = read(PREFERENCE).pairs
    assert lengths_of_pairs([pair, pair]) == {
        "prompt_tokens": 2 * len(pair.prompt),
        "answer_tokens": 2 * (len(pair.chosen) + len(pair.rejected)),
    }


def test_data_without_rejected_answers_is_refused():
    with pytest.raises(
        UserError, match=r"no field 'rejected'.*Alpaca pair: instruction"
    ) as refused:
        read(PREFERENCE, Record("Add.", "", "3"))
    assert "\n" not in str(refused.value)


LONG = PREFERENCE._replace(rejected="x" * 300)


@pytest.mark.parametrize(
    ("records", "policy", "words"),
    [
        ([TALK._replace(rejected="So.")] * 2, "answer", "the two answers of every pair are equal"),
        ([LONG], "drop", "no pair is left: 1 are longer than the context of 60 and dropped"),
        (
            [LONG, TALK._replace(rejected="So.")],
            "drop",
            "no pair is left: 1 have equal answers, 1 are longer",
        ),
        (
            [Record("Say a.", "", "a" * 99, rejected="a" * 98)],
            "answer",
            "1 have equal answers when cut to the context of 60; use a larger context",
        ),
    ],
)
def test_where_nothing_is_left_the_error_says_why(records, policy, words):
    pairs = read(*records, context=60, policy=policy)
    with pytest.raises(UserError) as refused:
        require_pairs(pairs, "some.json", 60)
    assert str(refused.value).startswith("some.json: ") and words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_pairs_that_are_left_are_enough():
    require_pairs(read(PREFERENCE), "some.json", 200)


@given(st.lists(st.integers(0, 6), max_size=30), st.floats(0, 0.9), st.integers(0, 99))
@settings(deadline=None)
def test_pairs_of_one_prompt_are_all_to_train_on_or_all_for_validation(prompts, share, seed):
    pairs = [Pair([prompt], [1, i], [2, i]) for i, prompt in enumerate(prompts)]
    training, held_out = split_pairs(pairs, share, seed)
    assert sorted(training + held_out) == list(range(len(pairs)))
    seen, unseen = ({prompts[place] for place in places} for places in (training, held_out))
    assert not seen & unseen
    kept, held = split(range(len(set(prompts))), share, seed)
    assert (len(seen), len(unseen)) == (len(kept), len(held))


def test_pairs_of_different_prompts_are_split_as_examples_are():
    pairs = [Pair([prompt], [1], [2]) for prompt in range(50)]
    assert split_pairs(pairs, 0.2, 3) == split(range(50), 0.2, 3)


def test_pairs_are_read_from_a_file_as_it_is_downloaded(tmp_path: Path):
    entry = {"instruction": "Add.", "input": "1", "output": "x", "chosen": "3", "rejected": "4"}
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([entry, {**entry, "rejected": "3"}]))
    data = load_data(path)
    pairs = read_pairs(data.records, TOKENIZER, TEMPLATES[data.format.template], 500)
    assert len(pairs.pairs) == pairs.equal == 1
    assert pairs.pairs[0].chosen == [*TOKENIZER.encode("3"), END]
