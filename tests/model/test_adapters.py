"""Adapters: what is trained, what stays, and the merged model."""

import numpy as np
import pytest

from minigpt2.model.adapters import LAYERS, Adapted, LoRA, Merged, merge, with_adapters
from minigpt2.model.gpt2 import forward, loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.state import new_state
from minigpt2.training.step import step
from tests.model.cases import BATCHES, CONFIG, FIRST, FIXED, random_parameters

ALL = LoRA(rank=3, alpha=6.0)
SOME = LoRA(rank=2, alpha=1.0, layers=("attn.c_proj", "mlp.c_fc"), stabilised=True)


def adapted(lora=ALL, seed=0, random_b=True, dtype=np.float64):
    """The model with adapters that are not zero."""
    base = random_parameters(1, dtype)
    made = with_adapters(base, lora, np.random.default_rng(seed))
    if random_b:
        made.flat[...] = 0.3 * np.random.default_rng(seed + 1).standard_normal(made.flat.size)
    return made


@pytest.mark.parametrize("lora", [ALL, SOME])
def test_the_flat_array_has_the_adapters_alone_in_the_order_of_the_forward_pass(lora):
    made, c = adapted(lora), CONFIG.n_embd
    names = [f"h.{i}.{n}.{p}" for i in range(2) for n in lora.layers for p in ("lora_A", "lora_B")]
    assert list(made.adapters) == names == made.trainable_names
    outputs = {"attn.c_attn": 3 * c, "attn.c_proj": c, "mlp.c_fc": 4 * c, "mlp.c_proj": c}
    inputs = dict.fromkeys(LAYERS, c) | {"mlp.c_proj": 4 * c}
    count = 2 * lora.rank * sum(inputs[n] + outputs[n] for n in lora.layers)
    assert made.flat.size == count == lora.n_parameters(CONFIG) == made.n_trainable
    assert made.n_decayed == count  # all have two axes
    assert made.trainable is made.flat or np.shares_memory(made.trainable, made.flat)
    assert not any(np.shares_memory(made.flat, FIXED[name]) for name in FIXED.views)
    assert made.frozen == set(FIXED.shapes)


@pytest.mark.parametrize("lora", [ALL, SOME])
def test_new_adapters_change_nothing(lora):
    made = adapted(lora, random_b=False)
    h, expected = (forward(p, FIRST, backward=False).h for p in (made, FIXED))
    np.testing.assert_array_equal(h, expected)
    for name, matrix in made.adapters.items():
        bound = len(matrix) ** -0.5
        assert matrix.any() == name.endswith("lora_A")
        assert abs(matrix).max() <= bound
    big = with_adapters(FIXED, LoRA(50, 1), np.random.default_rng(0))["h.0.mlp.c_proj.lora_A"]
    assert abs(big).max() == pytest.approx(len(big) ** -0.5, rel=0.01)
    assert big.std() == pytest.approx(len(big) ** -0.5 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("lora", [ALL, SOME])
def test_the_merged_model_is_the_adapted_one(lora):
    made = adapted(lora)
    before = made.base.flat.copy()
    h = forward(made, FIRST, backward=False).h
    tensors = {name: np.array(tensor) for name, tensor in Merged(made).items()}
    assert np.array_equal(made.base.flat, before) and len(Merged(made)) == len(FIXED.shapes)
    merged = merge(made)
    assert merged is made.base and not np.array_equal(merged.flat, before)
    np.testing.assert_allclose(forward(merged, FIRST, backward=False).h, h, atol=1e-11)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(merged[name], tensor)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("drop", [0.0, 0.2])
def test_gradients_are_those_of_the_merged_model(recompute, drop):
    made = adapted()
    gradients, of_whole = gradients_of(made), None
    whole = Parameters(CONFIG, np.concatenate([t.ravel() for t in Merged(made).values()]))
    of_whole = gradients_of(whole)
    for parameters, total in ((made, gradients), (whole, of_whole)):
        for batch in BATCHES:
            rng = np.random.default_rng(4)
            options = {"drop": drop, "rng": rng, "recompute": recompute}
            loss_and_gradients(parameters, batch, total, **options)
    for name in made.trainable_names:
        layer, part = name.rsplit(".", 1)
        dw, s = of_whole[f"{layer}.weight"], made.lora_scale
        a, b = made[f"{layer}.lora_A"], made[f"{layer}.lora_B"]
        expected = s * dw @ b.T if part == "lora_A" else s * a.T @ dw  # (11.9)
        np.testing.assert_allclose(gradients[name], expected, atol=1e-9 * abs(dw).max())


@pytest.mark.parametrize("recompute", [False, True])
def test_steps_train_every_adapter_and_leave_the_model_as_it_is(recompute):
    made = adapted(random_b=False, dtype=np.float32)
    before, first = made.base.flat.copy(), made.flat.copy()
    state = new_state(made)
    config = TrainingConfig(4, 1e-2, recompute=recompute)
    losses = [step(state, [FIRST], WeightedNLL(), config).loss for _ in range(4)]
    assert losses[-1] < losses[0]
    assert np.array_equal(made.base.flat, before)
    for name, matrix in made.adapters.items():
        start = made.like(first)[name]
        assert (matrix != start).any(), name
        assert matrix.any()


def test_a_copy_of_another_type_and_another_array():
    made = adapted()
    single = made.astype(np.float32)
    assert {view.dtype for view in single.views.values()} == {np.dtype(np.float32)}
    assert isinstance(single, Adapted) and single.lora_scale == made.lora_scale == 2.0
    other = made.like(np.zeros_like(made.flat))
    assert other.base is made.base and not other["h.0.attn.c_attn.lora_A"].any()
    assert made.on(np).base is made.base


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"layers": ()},
        {"layers": ("attn.c_attn", "wte")},
    ],
)
def test_what_is_no_adapter_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        LoRA(**{"rank": 2, "alpha": 1.0, **wrong})
