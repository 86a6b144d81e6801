"""Rehearsal: the parts make a step."""

from itertools import repeat

import numpy as np
import pytest

from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.planning.memory_and_flops import Load
from minigpt2.planning.microbenchmark import Rehearsed, rehearse
from minigpt2.training.step import Plan, train_steps
from tests.benchmarks.work import make_batch

CONFIG = GPT2Config(2000, 128, 192, 5, 6)


def test_the_parts_add_up():
    found = Rehearsed(forward=1.0, backward=2.0, again=2.5, loss=10.0, adamw=100.0)
    assert found.step(layers=3, micro_batches=2, recompute=False) == 2 * (3 * 3 + 10) + 100
    assert found.step(layers=3, micro_batches=2, recompute=True) == 2 * (3 * 3.5 + 10) + 100


def test_a_step_takes_about_as_long_as_rehearsed():
    """Within a factor of two, both at their best of four: other work may come between."""
    rng, rehearsals, taken = np.random.default_rng(0), [], []
    batch = make_batch(CONFIG, 1024, 128, 1.0, 0, rng)
    steps = train_steps(initialise(CONFIG, rng), repeat([batch]), Plan(9, 1e-4, 1, "linear"))
    next(steps)
    for _ in range(4):
        rehearsed = rehearse(CONFIG, Load(1024, 1024), 128, rng)
        rehearsals.append(rehearsed.step(CONFIG.n_layer, 1, False))
        taken += [next(steps).seconds, next(steps).seconds]
    assert min(rehearsals) == pytest.approx(min(taken), rel=1.0)
    assert min(taken) == pytest.approx(min(rehearsals), rel=1.0)
