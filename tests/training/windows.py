"""Windows: the micro-batches of a step, as tests cut them."""

from itertools import pairwise

import numpy as np
import pytest

from minigpt2.data.batches import batch_of
from minigpt2.data.forest import Segment, lay_out
from minigpt2.training.config import TrainingConfig
from minigpt2.training.micro_batches import gather_gradients
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.state import new_state
from tests.data.small import example_of
from tests.model.cases import V

RNG = np.random.default_rng(0)
EXAMPLES = [
    example_of(RNG.integers(V, size=prompt), RNG.integers(V, size=answer))
    for prompt, answer in ((3, 1), (1, 6), (4, 2), (2, 5), (5, 3), (1, 1), (4, 4))
]
UNWEIGHTED = lay_out([Segment([1, 2, 3], [0, 0, 0])])


def run(parameters, batches, *, drop=0.0, recompute=False, seed=0, state=None):
    """Loss and gradients of a step."""
    state = state or new_state(parameters, seed=seed)
    config = TrainingConfig(1, 1.0, dropout=drop, recompute=recompute)
    results = gather_gradients(state, batches, WeightedNLL(), config)
    return WeightedNLL().metrics(batches, results)["loss"], state.gradients


def assert_same(found, expected, bound=1e-12):
    """Loss and every gradient agree, relative to their size."""
    assert found[0] == pytest.approx(expected[0], rel=bound)
    for name, gradient in expected[1].views.items():
        error = np.linalg.norm(found[1][name] - gradient)
        assert error <= bound * np.linalg.norm(gradient), name


def cut(sizes):
    """The examples as micro-batches of these sizes."""
    starts = np.cumsum([0, *sizes])
    pairs = pairwise(starts)
    return [batch_of(EXAMPLES[start:stop]) for start, stop in pairs]
