"""Microbenchmark: the parts make a step."""

from itertools import repeat
from time import process_time

import numpy as np
import pytest

from minigpt2.alignment.rollout import rollout
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.planning import microbenchmark as module
from minigpt2.planning.memory_and_flops import MicroBatch
from minigpt2.planning.microbenchmark import (
    StepTimes,
    TokenTimes,
    bytes_to_time,
    time_step,
    time_token,
)
from minigpt2.training.config import TrainingConfig
from tests.benchmarks.work import make_batch
from tests.stepping import take

CONFIG = GPT2Config(2000, 128, 192, 5, 6)


def test_the_parts_add_up():
    times = StepTimes(
        forward=1.0, backward=2.0, backward_with_recomputation=2.5, loss=10.0, adamw=100.0
    )
    assert times.step(layers=3, micro_batches=2, recompute=False) == 2 * (3 * 3 + 10) + 100
    assert times.step(layers=3, micro_batches=2, recompute=True) == 2 * (3 * 3.5 + 10) + 100


def test_a_step_takes_about_as_long_as_its_parts():
    """Within a factor of two, both at their best of four: other work may come between."""
    rng, estimates, taken = np.random.default_rng(0), [], []
    batch = make_batch(CONFIG, 512, 128, 1.0, 0, rng)
    steps = take(initialise(CONFIG, rng), repeat([batch]), TrainingConfig(9, 1e-4, 1, "linear"))
    next(steps)
    for _ in range(4):
        times = time_step(CONFIG, MicroBatch(512, 512), 128, rng)
        step = times.step(layers=CONFIG.n_layer, micro_batches=1, recompute=False)
        estimates.append(step)
        taken += [next(steps).seconds, next(steps).seconds]
    assert min(estimates) == pytest.approx(min(taken), rel=1.0)
    assert min(taken) == pytest.approx(min(estimates), rel=1.0)


def test_what_a_rollout_takes_adds_up():
    assert TokenTimes(row=1.0, token=5.0).draw(layers=3, groups=2, tokens=10) == 2 * 10 * (3 + 5)
    times = StepTimes(
        forward=1.0, backward=2.0, backward_with_recomputation=2.5, loss=12.0, adamw=100.0
    )
    assert times.read(layers=3, rows=2.0, triples=0.5) == 3 * 2 + 0.5 * 12 / 3


def test_answers_are_drawn_in_about_the_time_that_their_tokens_take(monkeypatch):
    """Within a factor of two, both at their best, and in time of the cores: there is other work."""
    monkeypatch.setattr(module, "perf_counter", process_time)
    parameters, estimates, taken = initialise(CONFIG, np.random.default_rng(0)), [], []
    answers, prompt, tokens = 12, 40, 24
    for seed in range(20):
        rng = np.random.default_rng(seed)
        times = time_token(CONFIG, answers, prompt + tokens // 2, rng)
        estimates.append(times.draw(layers=CONFIG.n_layer, groups=1, tokens=tokens))
        started = process_time()
        drawn = rollout(
            parameters, [[1] * prompt], answers, stop=-1, max_new_tokens=tokens, rng=rng
        )
        taken.append(process_time() - started)
        assert [len(answer.ids) for answer in drawn] == [tokens] * answers
        if 0.5 < min(estimates) / min(taken) < 2:
            return
    pytest.fail(f"estimated {min(estimates):.3f} s, taken {min(taken):.3f} s")


def test_a_large_micro_batch_is_timed_on_some_of_its_rows(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "seconds_of", lambda action: seen.append(action()) or 1.0)
    monkeypatch.setattr(module, "MOST_ROWS", 100)
    batch = MicroBatch(3000, 3000)
    times = time_step(CONFIG, batch, 32, np.random.default_rng(0))
    y, _ = seen[1]
    assert len(y) == 96  # three sequences
    assert times.forward == times.backward == 3000 / 96
    assert bytes_to_time(CONFIG, batch, 32) < bytes_to_time(CONFIG, batch, 3000)
