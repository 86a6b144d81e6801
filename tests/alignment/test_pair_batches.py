"""Batches of pairs: both answers of a pair, in order, with the numbers of the reference."""

import numpy as np
import pytest

from minigpt2.alignment.log_probs import by_answer, sums_by_answer
from minigpt2.alignment.pair_batches import PairBatches, answers_of, by_pair, pairs_in
from minigpt2.alignment.pairs import Pair

PAIRS = [Pair([k, 1, 2], [3, k, 9], [4, 9]) for k in range(7)]
REFERENCE = np.arange(14.0).reshape(7, 2) - 20


def batches(**changes):
    """The pairs, two micro-batches a step."""
    options = {"batch_size": 4, "micro_batch": 2, "seed": 3, "reference": REFERENCE, **changes}
    return PairBatches(PAIRS, **options)


def test_the_two_answers_of_a_pair_follow_each_other():
    answers = answers_of(PAIRS[:2])
    assert [answer.ids for answer in answers] == [[3, 0, 9], [4, 9], [3, 1, 9], [4, 9]]
    assert all(answers[2 * k].prompt == answers[2 * k + 1].prompt == [k, 1, 2] for k in (0, 1))
    assert by_pair(np.arange(4)).tolist() == [[0, 1], [2, 3]]


def test_an_epoch_has_every_pair_once_with_its_reference():
    data, epoch, position, seen = batches(), 0, 0, []
    while epoch == 0:
        parts = data.indices_at(0, position)
        step = data.at(epoch, position)
        for part, batch in zip(parts, step.batches, strict=True):
            assert pairs_in(batch) == len(part)
            ids = [own.tolist() for own in by_answer(batch.targets, batch)]
            assert ids == [answer.ids for answer in answers_of([PAIRS[i] for i in part])]
            sums = by_pair(sums_by_answer(batch.columns["reference"], batch))
            np.testing.assert_array_equal(sums, REFERENCE[part])
            seen += part
        _, epoch, position = step
    assert sorted(seen) == list(range(7)) and data.steps == 2


def test_a_step_follows_from_its_place_alone():
    (first, *_), (again, *_) = batches().at(3, 4).batches, batches().at(3, 4).batches
    np.testing.assert_array_equal(first.ids, again.ids)
    assert batches(seed=4).indices_at(3, 4) != batches().indices_at(3, 4)


def test_without_a_reference_there_is_no_column():
    (first, *_) = batches(reference=None).at(0, 0).batches
    assert not first.columns


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4])
def test_a_pair_is_never_in_two_micro_batches(micro_batch):
    step = batches(micro_batch=micro_batch).at(0, 0)
    assert sum(map(pairs_in, step.batches)) == 4
    assert all(batch.answers.max() % 2 for batch in step.batches)
