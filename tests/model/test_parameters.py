"""Parameters: layout and official names."""

import numpy as np
import pytest

from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters, tensor_shapes

ONE_LAYER = GPT2Config(vocab_size=29, n_positions=11, n_embd=6, n_layer=1, n_head=3)
LARGER = GPT2Config(vocab_size=400, n_positions=100, n_embd=48, n_layer=3, n_head=3)


def test_tensors_carry_the_official_names_and_shapes():
    assert list(tensor_shapes(ONE_LAYER).items()) == [
        ("wte.weight", (29, 6)),
        ("wpe.weight", (11, 6)),
        ("h.0.attn.c_attn.weight", (6, 18)),
        ("h.0.attn.c_proj.weight", (6, 6)),
        ("h.0.mlp.c_fc.weight", (6, 24)),
        ("h.0.mlp.c_proj.weight", (24, 6)),
        ("h.0.ln_1.weight", (6,)),
        ("h.0.ln_1.bias", (6,)),
        ("h.0.attn.c_attn.bias", (18,)),
        ("h.0.attn.c_proj.bias", (6,)),
        ("h.0.ln_2.weight", (6,)),
        ("h.0.ln_2.bias", (6,)),
        ("h.0.mlp.c_fc.bias", (24,)),
        ("h.0.mlp.c_proj.bias", (6,)),
        ("ln_f.weight", (6,)),
        ("ln_f.bias", (6,)),
    ]


def test_every_layer_has_the_tensors_of_the_first():
    names = [name.split(".", 2) for name in tensor_shapes(LARGER) if name.startswith("h.")]
    for layer in "012":
        own = [rest for _, number, rest in names if number == layer]
        assert own == [rest for _, number, rest in names if number == "0"] and len(own) == 12


@pytest.mark.parametrize("config", [ONE_LAYER, LARGER])
def test_views_lie_one_after_the_other_in_the_flat_array(config):
    flat = np.arange(config.n_parameters, dtype=np.float64)
    parameters = Parameters(config, flat)
    joined = np.concatenate([view.ravel() for view in parameters.views.values()])
    np.testing.assert_array_equal(joined, flat)


@pytest.mark.parametrize("config", [ONE_LAYER, LARGER])
def test_tensors_with_two_axes_come_first_and_end_at_n_decayed(config):
    parameters = Parameters(config, np.arange(config.n_parameters, dtype=np.float64))
    for name, view in parameters.views.items():
        decayed = view.ravel() < parameters.n_decayed
        assert decayed.all() if view.ndim == 2 else not decayed.any(), name


def test_views_and_flat_array_share_memory():
    parameters = initialise(ONE_LAYER, np.random.default_rng(0))
    for name, view in parameters.views.items():
        assert np.shares_memory(view, parameters.flat)
        view[...] = 7
        assert (parameters[name] == 7).all()
    assert (parameters.flat == 7).all()
    parameters.flat[:] = 8
    assert all((view == 8).all() for view in parameters.views.values())


def test_a_block_has_its_views_under_their_names_within_the_block():
    parameters = initialise(LARGER, np.random.default_rng(0))
    for layer in range(3):
        block = parameters.block(layer)
        assert len(block) == 12
        for name, view in block.items():
            assert view is parameters[f"h.{layer}.{name}"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_and_moments_have_the_same_layout(dtype):
    parameters = initialise(ONE_LAYER, np.random.default_rng(0), dtype)
    zeros = gradients_of(parameters)
    assert zeros.flat.dtype == dtype and not zeros.flat.any()
    assert not np.shares_memory(zeros.flat, parameters.flat)
    assert {n: v.shape for n, v in zeros.views.items()} == tensor_shapes(ONE_LAYER)


def test_an_array_of_another_length_is_refused():
    for length in (-1, 1):
        with pytest.raises(ValueError):
            Parameters(ONE_LAYER, np.zeros(ONE_LAYER.n_parameters + length))


def test_the_largest_official_size_has_a_layout_without_an_array():
    shapes = tensor_shapes(OFFICIAL["gpt2-xl"])
    assert len(shapes) == 2 + 48 * 12 + 2
    assert shapes["h.47.mlp.c_proj.weight"] == (6400, 1600)
