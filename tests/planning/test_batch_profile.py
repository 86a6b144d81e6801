"""Batch profile: the micro-batches of a run, and settings that fit."""

from functools import partial

import pytest

from minigpt2.commands.dataset import open_dataset, open_reader
from minigpt2.commands.plan import PlanSettings, open_config, shape_of
from minigpt2.data.batches import EpochBatches
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, TINY
from minigpt2.planning.batch_profile import RunShape, choices, profile
from minigpt2.planning.memory_and_flops import MemoryOptions, memory, peak

GPT2 = OFFICIAL["gpt2"]
FULL = RunShape(context=100, batch_size=8, micro_batch=3)


def test_without_data_every_example_is_as_long_as_the_context():
    counted = profile(FULL, [])
    assert [batch.rows for batch in counted.micro_batches] == [3 * 99, 3 * 99, 2 * 99]
    assert counted.largest == (297, 297) and counted.steps == 1
    assert sum(batch.supervised for batch in counted.micro_batches) == 8 * 99


def test_with_data_the_batches_are_those_that_a_run_would_compute():
    settings = PlanSettings(data="almanac", model="tiny", batch_size=32, seed=3)
    dataset = open_dataset(settings, open_reader("tiny"))
    examples = dataset.encode(dataset.records)
    counted = profile(shape_of(settings, TINY), examples)
    epoch = EpochBatches(examples, batch_size=32, micro_batch=32, seed=3)
    rows = [len(epoch.at(0, 32 * k).batches[0].ids) for k in range(counted.steps)]
    assert [batch.rows for batch in counted.micro_batches] == rows
    assert counted.steps == -(-len(examples) // 32)
    assert counted.largest.rows == max(rows)
    assert min(rows) <= counted.typical.rows <= max(rows)


def test_a_choice_needs_what_the_forecast_says_of_its_settings():
    for choice in choices(GPT2, FULL, [], partial(memory, program=1000)):
        largest = profile(choice.shape, []).largest
        options = MemoryOptions(choice.shape.recompute)
        assert choice.bytes == peak(memory(GPT2, largest, options, 1000))


def test_choices_come_best_first():
    shapes = [choice.shape for choice in choices(TINY, FULL._replace(micro_batch=8), [], memory)]
    contexts = [shape.context for shape in shapes]
    assert contexts == sorted(contexts, reverse=True)
    first = [shape for shape in shapes if shape.context == 100]
    half = len(first) // 2
    assert [shape.recompute for shape in first] == [False] * half + [True] * half
    for recompute in (False, True):
        sizes = [shape.micro_batch for shape in first if shape.recompute is recompute]
        assert sizes == [8, 4, 2, 1]


@pytest.mark.parametrize("context, text", [(2000, "longer than the model's 1024"), (1, "nothing")])
def test_a_context_that_cannot_be(context, text):
    with pytest.raises(UserError, match=text):
        shape_of(PlanSettings(model="gpt2", context=context), open_config("gpt2"))
