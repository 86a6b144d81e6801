"""Batch profile: the micro-batches of a run, and settings that fit."""

from functools import partial

import pytest

from minigpt2.commands.dataset import open_dataset, open_reader
from minigpt2.commands.plan import PlanSettings, open_config, shape_of
from minigpt2.data.batches import EpochBatches
from minigpt2.data.examples import Example
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, TINY
from minigpt2.planning.batch_profile import RunShape, choices, profile
from minigpt2.planning.memory_and_flops import MemoryOptions, memory, peak

GPT2 = OFFICIAL["gpt2"]
COUNT = partial(profile, examples=[])
FULL = RunShape(context=100, batch_size=8, micro_batch=3)


def test_without_data_every_example_is_as_long_as_the_context():
    counted = profile(FULL, [])
    times = list(zip(counted.micro_batches, counted.times, strict=True))
    assert times == [((300, 300), 2), ((200, 200), 1)] and counted.all_micro_batches == 3
    assert counted.largest == (300, 300) and counted.steps == 1
    assert counted.typical.rows == round(800 / 3)
    assert sum(batch.supervised * n for batch, n in times) == 8 * 100


def test_a_batch_of_any_size_takes_no_time_and_no_memory():
    huge = FULL._replace(batch_size=10**15, micro_batch=3)
    counted = profile(huge, [])
    assert counted.all_micro_batches == -(-(10**15) // 3) and counted.typical.rows == 300
    assert (
        len(list(choices(TINY, huge._replace(micro_batch=10**15), COUNT, lambda shape: memory)))
        < 300
    )


def test_with_data_the_batches_are_those_that_a_run_would_compute():
    settings = PlanSettings(data="almanac", model="tiny", batch_size=32, seed=3)
    dataset = open_dataset(settings, open_reader("tiny"))
    examples = dataset.encode(dataset.records)
    counted = profile(shape_of(settings, TINY), examples)
    examples, *_ = dataset.training_set(0.05, 3)
    epoch = EpochBatches(examples, batch_size=32, micro_batch=32, seed=3)
    starts = range(0, len(examples), 32)
    rows = [[len(epoch.at(n, k).batches[0].ids) for k in starts] for n in range(4)]
    assert [batch.rows for batch in counted.micro_batches] == rows[0]
    assert counted.steps == -(-len(examples) // 32)
    assert counted.largest.rows >= max(map(max, rows)) > max(rows[0])
    assert min(rows[0]) <= counted.typical.rows <= max(rows[0])


def test_a_choice_needs_what_the_forecast_says_of_its_settings():
    for choice in choices(GPT2, FULL, COUNT, lambda shape: partial(memory, program=1000)):
        largest = profile(choice.shape, []).largest
        options = MemoryOptions(choice.shape.recompute)
        assert choice.bytes == peak(memory(GPT2, largest, options, 1000))


def test_choices_come_best_first():
    shapes = [
        choice.shape
        for choice in choices(TINY, FULL._replace(micro_batch=8), COUNT, lambda shape: memory)
    ]
    contexts = [shape.context for shape in shapes]
    assert contexts == sorted(contexts, reverse=True)
    first = [shape for shape in shapes if shape.context == 100]
    half = len(first) // 2
    assert [shape.recompute for shape in first] == [False] * half + [True] * half
    for recompute in (False, True):
        sizes = [shape.micro_batch for shape in first if shape.recompute is recompute]
        assert sizes == [8, 4, 2, 1]


def test_a_context_that_cannot_be():
    with pytest.raises(UserError, match="longer than the model's 1024"):
        shape_of(PlanSettings(model="gpt2", context=2000), open_config("gpt2"))


def test_a_context_of_one_row_is_planned_as_it_is_trained():
    shape = shape_of(
        PlanSettings(model="gpt2", context=1, batch_size=2, validation=0), open_config("gpt2")
    )
    assert profile(shape, []).micro_batches == [(2, 2)]
    examples = [Example([1, 2, 3], [False, True, True]), Example([1, 2], [False, True])]
    assert profile(shape, examples).micro_batches == [(2, 2)]


def test_choices_end_where_all_examples_are_dropped():
    examples = [Example(list(range(90)), [False] * 40 + [True] * 50)]
    shape = RunShape(context=256, batch_size=1, micro_batch=1, truncate="drop")
    contexts = {
        choice.shape.context
        for choice in choices(
            TINY, shape, partial(profile, examples=examples), lambda shape: memory
        )
    }
    assert contexts == {256, 128}
    with pytest.raises(UserError, match="the context of 64"):
        profile(shape._replace(context=64), examples)
