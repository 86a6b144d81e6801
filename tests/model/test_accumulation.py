"""Gradients: the first one is written, later ones are added, and a frozen tensor has none."""

import numpy as np
import pytest

from minigpt2.backend import deliver
from minigpt2.model.gpt2 import gpt2, gpt2_backward, loss_and_gradients
from minigpt2.model.gradients import Gradients, gradients_of
from minigpt2.model.parameters import Parameters, tensor_shapes
from tests.model.cases import CONFIG, FIRST, RATE, SECOND, random_parameters


def stale(parameters):
    """Gradients that hold NaN from an earlier step."""
    gradients = gradients_of(parameters)
    gradients.flat[:] = np.nan
    gradients.clear()
    return gradients


def frozen(names):
    """The parameters of the other tests with these tensors frozen."""
    source = random_parameters()
    parameters = Parameters(CONFIG, np.empty_like(source.flat), frozen=names)
    for name, view in parameters.views.items():
        view[...] = source[name]
    return parameters


def test_without_a_loss_on_the_logits_every_tensor_is_written_too():
    parameters = random_parameters()
    h, saved = gpt2(parameters, FIRST)
    gradients = stale(parameters)
    gpt2_backward(np.ones_like(h), saved, gradients)
    gradients.complete()
    _, again = gpt2(parameters, FIRST)
    expected = gradients_of(parameters)
    gpt2_backward(np.ones_like(h), again, expected)
    np.testing.assert_array_equal(gradients.flat, expected.flat)


def test_a_step_overwrites_what_the_step_before_left():
    parameters = random_parameters()
    gradients = gradients_of(parameters)
    loss_and_gradients(parameters, FIRST, gradients)
    gradients.clear()
    loss_and_gradients(parameters, SECOND, gradients)
    expected = gradients_of(parameters)
    loss_and_gradients(parameters, SECOND, expected)
    np.testing.assert_array_equal(gradients.flat, expected.flat)


def test_what_received_no_gradient_is_0_when_the_step_is_complete():
    gradients = stale(random_parameters())
    deliver(np.ones(CONFIG.n_embd), gradients.target("ln_f.bias"))
    gradients.complete()
    assert gradients.flat.sum() == CONFIG.n_embd and np.isfinite(gradients.flat).all()


def test_the_first_gradient_is_written_and_later_ones_are_added():
    gradients = Gradients({"w": np.full(3, np.nan)})
    first, second = gradients.target("w"), gradients.target("w")
    assert (first.accumulate, second.accumulate) == (False, True)
    assert deliver(np.full(3, 2.0), first) is first.array is gradients["w"]
    deliver(np.ones(3), second)
    np.testing.assert_array_equal(gradients["w"], 3)
    assert gradients.target("frozen") is None
    assert deliver(first.array, first) is first.array  # made in place: nothing is copied
    alone = np.ones(3)
    assert deliver(alone, None) is alone


SETS = [
    ["wte.weight"],
    ["wte.weight", "wpe.weight"],
    ["h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias", "h.1.mlp.c_proj.weight", "ln_f.bias"],
    ["h.0.attn.c_proj.bias", "h.1.mlp.c_fc.bias"],
    [name for name in tensor_shapes(CONFIG) if name != "h.1.ln_2.weight"],
]


@pytest.mark.parametrize("names", SETS, ids=len)
@pytest.mark.parametrize("recompute", [False, True])
def test_frozen_tensors_have_no_gradient_and_change_no_other(names, recompute):
    parameters, free = frozen(names), random_parameters()
    gradients, expected = gradients_of(parameters), gradients_of(free)
    for model, into in ((parameters, gradients), (free, expected)):
        for batch in (FIRST, SECOND):
            rng = np.random.default_rng(0)
            options = {"drop": RATE, "rng": rng, "recompute": recompute}
            loss_and_gradients(model, batch, into, **options)
    assert set(gradients.views) == set(free.views) - set(names)
    assert gradients.flat.shape == parameters.trainable.shape
    for name, view in gradients.views.items():
        np.testing.assert_array_equal(view, expected[name], err_msg=name)


def test_frozen_tensors_come_last_and_decayed_ones_first():
    parameters = frozen(["wpe.weight", "ln_f.weight"])
    assert list(parameters.views)[-2:] == ["wpe.weight", "ln_f.weight"]
    sizes = {name: view.size for name, view in parameters.views.items()}
    assert parameters.n_trainable == len(parameters.flat) - sum(list(sizes.values())[-2:])
    decayed = [n for n in parameters.trainable_names if parameters.views[n].ndim == 2]
    assert parameters.n_decayed == sum(sizes[name] for name in decayed)


def test_another_tensor_is_one_more_entry_of_the_table():
    shapes = {**tensor_shapes(CONFIG), "score.weight": (1, CONFIG.n_embd)}
    flat = np.arange(CONFIG.n_parameters + CONFIG.n_embd, dtype=np.float64)
    parameters = Parameters(CONFIG, flat, shapes=shapes)
    assert parameters["score.weight"].shape == (1, CONFIG.n_embd)
    assert parameters.n_decayed == sum(v.size for v in parameters.views.values() if v.ndim == 2)
    assert "score.weight" in gradients_of(parameters).views


def test_a_name_that_is_in_no_table_cannot_be_frozen():
    with pytest.raises(ValueError, match=r"wte\.wight"):
        frozen(["wte.wight"])
