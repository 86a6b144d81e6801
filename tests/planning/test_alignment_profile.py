"""Batch profile of alignment: the rows of pairs and of drawn answers."""

import pytest

from minigpt2.alignment.pairs import Pair
from minigpt2.errors import UserError
from minigpt2.planning.alignment_operations import length_of
from minigpt2.planning.alignment_profile import profile_of_answers, profile_of_pairs
from minigpt2.planning.batch_profile import RunShape


def test_pairs_are_counted_as_their_rows():
    pairs = [Pair([n] * 5, [2] * n, [3] * (n + 1)) for n in range(1, 9)]
    shape = RunShape(context=50, batch_size=4, micro_batch=2, validation=0.25, seed=1)
    counted = profile_of_pairs(shape, lambda context: pairs)
    assert counted.steps == 2 and counted.all_micro_batches == 3
    assert counted.largest.rows <= max(p.rows for p in pairs) + sorted(p.rows for p in pairs)[-2]
    assert counted.largest.rows > max(size.rows for size in counted.micro_batches)  # in epoch 0
    with pytest.raises(UserError, match="no pair fits the context of 50"):
        profile_of_pairs(shape, lambda context: [])


def test_a_batch_of_any_size_takes_no_time():
    huge = RunShape(context=100, batch_size=10**15, micro_batch=3)
    assert profile_of_pairs(huge).all_micro_batches == -(-(10**15) // 3)
    assert profile_of_answers(huge, 50, 50, 8).largest == (3 * 442, 3 * 400)


def test_the_length_is_what_rows_see_and_not_the_rows_of_a_pair():
    pair = Pair([1] * 512, [2] * 512, [3] * 512)
    shape = RunShape(context=1024, batch_size=1, micro_batch=1)
    counted = profile_of_pairs(shape, lambda context: [pair])
    assert counted.length == round(length_of(512, [512, 512])) == 1194
    assert profile_of_pairs(shape).length == counted.length
    assert profile_of_answers(shape, 512, 512, 2).length == counted.length
    assert profile_of_answers(shape, 512, 512, 2, shared=False).length == 1023
