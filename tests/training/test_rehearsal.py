"""Rehearsal: the parts make a step."""

from itertools import repeat
from statistics import median

import numpy as np
import pytest

from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import initialise
from minigpt2.training.forecast import Load
from minigpt2.training.loop import Plan, train_steps
from minigpt2.training.rehearsal import Rehearsed, rehearse
from tests.benchmarks.work import make_batch

CONFIG = GPT2Config(2000, 128, 192, 5, 6)


def test_the_parts_add_up():
    found = Rehearsed(forward=1.0, backward=2.0, again=2.5, loss=10.0, adamw=100.0)
    assert found.step(layers=3, micro_batches=2, recompute=False) == 2 * (3 * 3 + 10) + 100
    assert found.step(layers=3, micro_batches=2, recompute=True) == 2 * (3 * 3.5 + 10) + 100


def test_a_step_takes_about_as_long_as_rehearsed():
    """Within a factor of two: the machine that tests run on is shared."""
    rng = np.random.default_rng(0)
    rehearsed = rehearse(CONFIG, Load(1024, 1024), 128, rng).step(CONFIG.n_layer, 1, False)
    batch = make_batch(CONFIG, 1024, 128, 1.0, 0, rng)
    steps = train_steps(initialise(CONFIG, rng), repeat([batch]), Plan(4, 1e-4, 1, "linear"), rng)
    taken = median(step.seconds for step in list(steps)[1:])
    assert rehearsed == pytest.approx(taken, rel=1.0)
    assert taken == pytest.approx(rehearsed, rel=1.0)
