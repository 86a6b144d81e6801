"""Initialisation: the initial values have the distributions of the chapter."""

from math import sqrt

import numpy as np
import pytest

from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise

ONE_LAYER = GPT2Config(vocab_size=29, n_positions=11, n_embd=6, n_layer=1, n_head=3)
LARGER = GPT2Config(vocab_size=400, n_positions=100, n_embd=48, n_layer=3, n_head=3)


def test_matrices_and_embeddings_are_normal_and_the_ends_of_branches_smaller():
    parameters = initialise(LARGER, np.random.default_rng(0), np.float64)
    seen = set()
    for name, view in parameters.views.items():
        if view.ndim == 2:
            sigma = 0.02 / sqrt(2 * 3) if name.endswith("c_proj.weight") else 0.02
            seen.add(sigma)
            error = sqrt(view.size)
            assert abs(view.mean()) < 4 * sigma / error, name
            assert abs(view.std() / sigma - 1) < 4 / (sqrt(2) * error), name
            within = (abs(view) < sigma).mean()  # of a normal variable, 68.3 %
            assert abs(within - 0.6827) < 4 * 0.4654 / error, name
    assert len(seen) == 2


def test_biases_are_0_and_gamma_is_1():
    parameters = initialise(LARGER, np.random.default_rng(0))
    for name, view in parameters.views.items():
        if name.endswith("bias"):
            assert (view == 0).all(), name
        elif view.ndim == 1:
            assert (view == 1).all() and "ln_" in name, name


def test_the_seed_fixes_the_initial_values_and_no_two_tensors_are_alike():
    one, same, other = (initialise(LARGER, np.random.default_rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.flat, same.flat)
    matrices = {name: view for name, view in one.views.items() if view.ndim == 2}
    assert len({view.ravel()[:20].tobytes() for view in matrices.values()}) == len(matrices)
    assert all((view != other[name]).any() for name, view in matrices.items())


def test_initial_values_are_single_precision_by_default():
    assert initialise(ONE_LAYER, np.random.default_rng(0)).flat.dtype == np.float32


@pytest.mark.parametrize("sizes", [(2**31 - 1, 8, 2048, 1), (5, 8, 2**30, 10_000)], ids=str)
def test_a_model_larger_than_the_memory_is_refused_at_once(sizes):
    vocab_size, n_positions, n_embd, n_layer = sizes
    config = GPT2Config(vocab_size, n_positions, n_embd, n_layer, n_head=1)
    with pytest.raises(UserError, match=r"a model of [\d,]+ parameters would take [\d,.]+ GB, but"):
        initialise(config, np.random.default_rng(0))
