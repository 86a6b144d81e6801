"""Workload: the micro-batches of a run, and settings that fit."""

from dataclasses import replace

import pytest

from minigpt2.commands.dataset import open_examples
from minigpt2.data.batches import windows
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, TINY
from minigpt2.planning.batch_profile import PlanSettings, choices, config_of, job_of
from minigpt2.planning.memory_and_flops import How, memory, peak

FULL = PlanSettings(model="gpt2", batch_size=8, micro_batch=3, context=100)


def test_without_data_every_example_is_as_long_as_the_context():
    job = job_of(FULL, OFFICIAL["gpt2"], [])
    assert [load.rows for load in job.loads] == [3 * 99, 3 * 99, 2 * 99]
    assert job.largest == (297, 297) and job.steps == 1
    assert sum(load.supervised for load in job.loads) == 8 * 99


def test_with_data_the_batches_are_those_that_a_run_would_compute():
    settings = PlanSettings(data="almanac", model="tiny", batch_size=32, seed=3)
    examples = open_examples(settings).examples
    job = job_of(settings, TINY, examples)
    epoch = windows(examples, 32, 32, seed=3)
    rows = [len(next(epoch)[0].ids) for _ in range(job.steps)]
    assert [load.rows for load in job.loads] == rows
    assert job.steps == -(-len(examples) // 32)
    assert job.largest.rows == max(rows) and min(rows) <= job.typical.rows <= max(rows)


def test_a_choice_needs_what_the_forecast_says_of_its_settings():
    job = job_of(FULL, OFFICIAL["gpt2"], [])
    for choice in choices(FULL, job, [], 1000):
        there = choice.put_into(FULL)
        load = job_of(there, job.config, []).largest
        assert choice.bytes == peak(memory(job.config, load, How(choice.recompute), 1000))


def test_choices_come_best_first():
    found = list(choices(replace(FULL, micro_batch=8, context=256), job_of(FULL, TINY, []), [], 0))
    assert [c.context for c in found] == sorted((c.context for c in found), reverse=True)
    first = [c for c in found if c.context == 100]
    assert [c.recompute for c in first] == [False] * (len(first) // 2) + [True] * (len(first) // 2)
    for again in (False, True):
        assert [c.micro_batch for c in first if c.recompute is again] == [8, 4, 2, 1]


@pytest.mark.parametrize("context, text", [(2000, "longer than the model's 1024"), (1, "nothing")])
def test_a_context_that_cannot_be(context, text):
    with pytest.raises(UserError, match=text):
        config_of(replace(FULL, context=context))
