"""A small model in a folder, changes to its tensors, and the errors of folders that are refused."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.weights import TENSORS, load_parameters

CONFIG = GPT2Config(vocab_size=13, n_positions=5, n_embd=6, n_layer=2, n_head=2)
PARAMETERS = initialise(CONFIG, np.random.default_rng(0))


def change(folder, **tensors):
    """Put tensors in place of those stored; None takes one out."""
    stored = {**load_file(folder / TENSORS), **tensors}
    save_file({n: t for n, t in stored.items() if t is not None}, folder / TENSORS)


def refusal(folder):
    """The error that a folder raises."""
    with pytest.raises(UserError) as refused:
        load_parameters(folder)
    assert str(folder / TENSORS) in str(refused.value)
    return str(refused.value)


def assert_loaded(folder):
    """The folder holds the parameters as they were."""
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)
