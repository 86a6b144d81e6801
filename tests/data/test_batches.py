"""Batches: masking by place, truncation, shuffling."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.data.batches import (
    FIRST_EPOCHS,
    EpochBatches,
    Epochs,
    TrainingSet,
    batch_of,
    epoch_order,
    split,
)
from minigpt2.data.examples import Example, encode
from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.truncation import Cuts
from tests.data.small import RECORDS, example_of, small_tokenizer

BYTES = small_tokenizer()
quick = settings(deadline=None, max_examples=100)


def test_position_t_predicts_t_plus_1_and_the_first_l_minus_1_targets_are_masked():
    prompt, answer = [1, 2, 3, 4], [5, 6, 7]
    batch = batch_of([example_of(prompt, answer)])
    joined = prompt + answer
    assert batch.ids.tolist() == joined[:-1]
    assert batch.targets.tolist() == answer
    assert batch.rows.tolist() == [3, 4, 5]  # all 6 targets but the first L − 1 = 3
    for row, target in zip(batch.rows, batch.targets, strict=True):
        assert target == joined[row + 1]
    assert batch.weights.tolist() == [1, 1, 1]


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
@quick
def test_with_a_prompt_of_l_tokens_exactly_the_first_l_minus_1_targets_are_masked(prompt, answer):
    batch = batch_of([example_of(prompt, answer)])
    assert batch.rows.tolist() == list(range(len(prompt) - 1, len(prompt) + len(answer) - 1))
    assert batch.targets.tolist() == answer and len(batch.ids) == len(prompt + answer) - 1


def test_end_of_text_is_a_target_by_its_place_never_by_its_value():
    stop = BYTES.end_of_text
    prompt, answer = [stop, 1, stop], [2, stop, 3, stop]
    batch = batch_of([example_of(prompt, answer)])
    assert batch.rows.tolist() == [2, 3, 4, 5] and batch.targets.tolist() == answer


def test_every_answers_tokens_are_supervised_once():
    examples = [encode(record, BYTES) for record in RECORDS]
    batch = batch_of(examples)
    pairs = [pair for e in examples for pair in zip(e.ids, e.is_answer, strict=True)]
    targets = sorted(token for token, part in pairs if part)
    assert sorted(batch.targets.tolist()) == targets
    assert (batch.weights == 1).all()
    assert (batch.targets == BYTES.end_of_text).sum() == len(RECORDS)
    assert len(batch.ids) < sum(len(e.ids) - 1 for e in examples) / 2


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 99))
@quick
def test_a_split_holds_back_a_share_and_loses_nothing(n, share, seed):
    kept, held = split(range(n), share, seed)
    assert sorted(kept + held) == list(range(n))
    assert kept == sorted(kept) and held == sorted(held) and kept
    if n > 1:
        assert len(held) == (0 if share == 0 else min(n - 1, max(1, round(share * n))))


def test_a_split_is_random_and_fixed_by_its_seed():
    one, same, other = (split(range(100), 0.2, s)[1] for s in (0, 0, 1))
    assert one == same != other and len(one) == 20
    assert one != list(range(20)) and one != list(range(80, 100))


EXAMPLES = [example_of([0], [k]) for k in range(1, 11)]


def in_turn(batch_size, micro_batch, seed):
    """The micro-batches of one step after the other."""
    data = EpochBatches(EXAMPLES, batch_size=batch_size, micro_batch=micro_batch, seed=seed)
    place = 0, 0
    while True:
        batches, *place = data.at(*place)
        yield batches


def epoch(batches, steps):
    """For each of the next steps, its micro-batches' targets."""
    return [[b.targets.tolist() for b in window] for window in islice(batches, steps)]


def flat(nested):
    """All targets in order."""
    return [target for window in nested for part in window for target in part]


def test_each_epoch_sees_each_example_once_in_an_order_of_its_own():
    batches = in_turn(4, 4, 0)
    epochs = [flat(epoch(batches, 3)) for _ in range(3)]
    assert all(sorted(one) == list(range(1, 11)) for one in epochs)
    assert len({tuple(one) for one in epochs}) == 3 and list(range(1, 11)) not in epochs


def test_the_last_window_of_an_epoch_holds_what_is_left():
    batches = in_turn(4, 4, 0)
    assert [len(flat([window])) for window in epoch(batches, 6)] == [4, 4, 2, 4, 4, 2]
    whole = in_turn(5, 5, 0)
    assert [len(flat([window])) for window in epoch(whole, 3)] == [5, 5, 5]


def test_a_window_is_cut_into_micro_batches():
    batches = in_turn(7, 3, 0)
    sizes = [[len(part) for part in window] for window in epoch(batches, 2)]
    assert sizes == [[3, 3, 1], [3]]


def test_micro_batches_change_nothing_in_what_a_window_holds():
    cut, whole = (in_turn(7, m, 3) for m in (2, 7))
    assert [flat([w]) for w in epoch(cut, 4)] == [flat([w]) for w in epoch(whole, 4)]


def test_the_order_is_fixed_by_the_seed():
    one, same, other = (flat(epoch(in_turn(4, 4, s), 3)) for s in (0, 0, 1))
    assert one == same != other


def test_the_order_of_an_epoch_follows_from_the_seed_and_its_number_alone():
    later = [flat([w]) for w in epoch(in_turn(10, 10, 5), 4)[2:]]
    orders = [epoch_order(10, 5, number).tolist() for number in (2, 3)]
    assert later == [[k + 1 for k in order] for order in orders]


def test_the_step_at_a_place_is_the_same_without_those_before_it():
    data = EpochBatches(EXAMPLES, batch_size=4, micro_batch=3, seed=2)
    places, place = [], (0, 0)
    for _ in range(7):
        places.append(place)
        _, *place = data.at(*place)
    assert [tuple(p) for p in places] == [(0, 0), (0, 4), (0, 8), (1, 0), (1, 4), (1, 8), (2, 0)]
    expected = epoch(in_turn(4, 3, 2), 7)
    for number in (6, 2, 4):
        fresh = EpochBatches(EXAMPLES, batch_size=4, micro_batch=3, seed=2)
        assert epoch([fresh.at(*places[number]).batches], 1) == [expected[number]]
    assert data.steps == 3


def test_random_orders_have_streams_of_their_own():
    """A resumed run needs the orders that it began with."""
    order = np.random.default_rng([3, 1, 2]).permutation(6)
    assert epoch_order(6, 3, 2).tolist() == order.tolist()
    held = np.random.default_rng([5, 3]).permutation(10)[:3]
    assert split(range(10), 0.3, 5)[1] == sorted(held.tolist())


def test_the_order_of_an_epoch_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(5, 1, 1)[0] = 3


def test_by_default_the_seed_is_0():
    assert EpochBatches(EXAMPLES, batch_size=1, micro_batch=1).seed == 0


def test_prompts_are_supervised_with_their_weight():
    weights, example = LossWeights(prompt_weight=0.5), example_of([7, 8, 9], [1])
    data = EpochBatches([example], batch_size=1, micro_batch=1, loss_weights=weights)
    for batch in (batch_of([example], weights), *data.at(0, 0).batches):
        assert dict(zip(batch.targets.tolist(), batch.weights.tolist(), strict=True)) == {
            8: 0.5,
            9: 0.5,
            1: 1.0,
        }


def test_examples_and_their_tokens_are_counted():
    one, two = example_of([1, 2, 3], [4, 5]), example_of([1], [2, 3, 4, 5])
    counts = TrainingSet([one, two, two], [one], Cuts()).counts()
    assert counts == {"training": 3, "validation": 1, "prompt_tokens": 8, "answer_tokens": 12}


def test_tokens_of_a_prompt_belong_to_no_answer_also_where_they_have_a_weight():
    batch = batch_of([example_of([7, 8], [1, 2])], LossWeights(prompt_weight=0.5))
    assert batch.answers.tolist() == [-1, 0, 0] and batch.weights.tolist() == [0.5, 1, 1]
    talk = Example([1, 2, 3, 4], [False, True, False, True])
    batch = batch_of([talk], LossWeights(prompt_weight=0.5))
    assert batch.answers.tolist() == [0, -1, 0] and batch.weights.tolist() == [1, 0.5, 1]


@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 7), st.integers(0, 40))
def test_what_the_first_steps_take_is_what_they_take_one_by_one(n, size, part, steps):
    batches = Epochs(range(n), list, batch_size=size, micro_batch=part, seed=4)
    taken, position = [], 0
    for _ in range(min(steps, batches.steps)):
        taken += batches.at(0, position).batches
        position += size
    assert batches.taken_first(steps) == taken


@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 7), st.integers(1, 90))
def test_the_longest_micro_batches_are_those_of_the_first_steps(n, size, part, steps):
    batches, rows = (
        Epochs(range(n), list, batch_size=size, micro_batch=part, seed=4),
        range(1, n + 1),
    )
    taken, epoch, position = [], 0, 0
    for _ in range(min(steps, FIRST_EPOCHS * batches.steps)):
        step = batches.at(epoch, position)
        taken += step.batches
        epoch, position = step.epoch, step.position
    longest = batches.longest(rows, steps, 5)
    sums = sorted((sum(rows[i] for i in part) for part in taken), reverse=True)
    assert [sum(rows[i] for i in part) for part in longest] == sums[:5]


def test_prompts_that_are_trained_on_are_counted_in_validation():
    def example(prompt, answer):
        return Example([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))

    asked = [example([1, 2], [3]), example([4, 5], [6]), example([7], [8])]
    text = Example([9, 9], [False, True])  # without a prompt
    held_out = [example([1, 2], [5, 5]), example([4], [6]), text]
    examples = TrainingSet([*asked, text], held_out, Cuts())
    assert examples.repeated_in_validation() == 1
    assert examples._replace(validation=[text, asked[2]]).repeated_in_validation() == 0


def test_an_epoch_is_its_steps_in_turn_and_by_default_the_first():
    data = EpochBatches(EXAMPLES, batch_size=4, micro_batch=3, seed=2)
    parts = [[part for p in (0, 4, 8) for part in data.examples_at(n, p)] for n in (0, 1)]
    assert list(data.epoch()) == parts[0] != parts[1] == list(data.epoch(1))
