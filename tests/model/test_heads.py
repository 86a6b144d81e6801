"""Heads: their gradients, their place in the flat array, and a model beside a model."""

import numpy as np
import pytest

from minigpt2.alignment.log_probs import Answer, batch_of_answers, policy_gradients
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import gpt2
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import (
    SCORE,
    VALUE,
    VALUE_HEAD,
    head_gradients,
    head_values,
    part,
    read_head,
    read_head_backward,
    with_heads,
)
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options
from minigpt2.training.state import new_state
from tests.gradients import (
    CAUGHT,
    assert_exact,
    assert_in_order,
    bugs_of,
    complex_step_error,
    each_gradient,
    zeros,
)
from tests.kernels.support import SHORT, device, error_of, machine, needs_device
from tests.model.cases import BATCHES, FIRST, C
from tests.model.head_cases import CASES, FIXED, slope

every_gradient = each_gradient(CASES)
HEADS = {f"{VALUE_HEAD}.weight": np.full((1, C), 2.0), f"{VALUE_HEAD}.bias": np.array([3.0])}


@every_gradient
def test_gradients_agree_with_the_complex_step(case, argument):
    assert_exact(case, argument, 1e-10)


@every_gradient
def test_gradients_agree_with_central_differences_to_second_order(case, argument):
    assert_in_order(case, argument)


@every_gradient
def test_every_planted_bug_and_a_gradient_of_zeros_are_caught(case, argument):
    bugs = bugs_of(case, argument)
    assert len(bugs) >= 3
    for name, bug in {**bugs, "zeros": zeros}.items():
        found = complex_step_error(case, argument, backward=bug, directions=2)
        assert found.error > CAUGHT, f"{name}: {found}"


def test_a_head_reads_the_rows_of_the_triples():
    whole = with_heads(FIXED, HEADS)
    h, _ = gpt2(FIXED, FIRST)
    expected = h[FIRST.rows] @ np.full(C, 2.0) + 3
    np.testing.assert_allclose(head_values(whole, FIRST, VALUE_HEAD), expected, rtol=1e-12)


def test_heads_are_in_the_one_flat_array_and_decayed_by_the_rule_of_the_layout():
    whole = with_heads(FIXED, HEADS)
    assert whole.flat.size == FIXED.flat.size + C + 1
    assert whole.n_decayed == FIXED.n_decayed + C
    assert whole.n_trainable == whole.flat.size
    whole[f"{VALUE_HEAD}.bias"][...] = 5
    assert whole.flat[-1] == 5 and (whole.flat[whole.n_decayed - C : whole.n_decayed] == 2).all()
    assert next(iter(whole.shapes)) == "wte.weight"  # as the projection on a device needs
    for name, view in FIXED.views.items():
        np.testing.assert_array_equal(whole[name], view)
    with pytest.raises(ValueError, match=r"there is a tensor value\.head\.bias already"):
        with_heads(whole, HEADS)


def test_frozen_tensors_stay_frozen_beside_a_head():
    names = ["wte.weight", "h.0.ln_1.bias"]
    frozen = Parameters(FIXED.config, np.empty_like(FIXED.flat), frozen=names)
    for name, view in FIXED.views.items():
        frozen[name][...] = view
    whole = with_heads(frozen, HEADS)
    gradients = gradients_of(whole)
    head_gradients(whole, FIRST, gradients, slope, VALUE_HEAD)
    everything = gradients_of(with_heads(FIXED, HEADS))
    head_gradients(with_heads(FIXED, HEADS), FIRST, everything, slope, VALUE_HEAD)
    for name in whole.trainable_names:
        np.testing.assert_allclose(gradients[name], everything[name], atol=1e-12)
    assert not gradients.trains("wte.weight")


def value_apart():
    """A policy, and a value function that begins as another model."""
    other = Parameters(FIXED.config, FIXED.flat[::-1].copy())
    return other, with_heads(FIXED, HEADS | {f"{VALUE}{n}": v for n, v in other.views.items()})


def test_a_part_is_a_model_of_its_own():
    other, whole = value_apart()
    np.testing.assert_array_equal(gpt2(part(whole, VALUE), FIRST)[0], gpt2(other, FIRST)[0])
    np.testing.assert_array_equal(gpt2(whole, FIRST)[0], gpt2(FIXED, FIRST)[0])


def test_what_the_value_apart_learns_leaves_the_policy_alone_and_the_reverse():
    _, whole = value_apart()
    gradients = gradients_of(whole)
    for batch in BATCHES:
        head_gradients(part(whole, VALUE), batch, gradients.part(VALUE), slope, "head")
    assert gradients.holding == {name for name in whole.views if name.startswith(VALUE)}
    batch = batch_of_answers([Answer([1, 2], [3, 4])])
    before = gradients.flat.copy()
    policy_gradients(whole, batch, gradients, np.ones_like, Options())
    for name in whole.views:
        same = np.array_equal(gradients[name], whole.like(before)[name])
        assert same == name.startswith(VALUE), name


def test_without_a_slope_nothing_is_written():
    gradients = gradients_of(with_heads(FIXED, HEADS))
    whole = with_heads(FIXED, HEADS)
    v = head_gradients(whole, FIRST, gradients, np.zeros_like, VALUE_HEAD)
    np.testing.assert_array_equal(v, head_values(whole, FIRST, VALUE_HEAD))
    assert not gradients.holding


def test_dropout_is_that_of_the_arguments():
    whole, drawn = with_heads(FIXED, HEADS), []
    for drop, seed in ((0.0, 0), (0.5, 0), (0.5, 0), (0.5, 1)):
        into = whole, FIRST, gradients_of(whole), slope, VALUE_HEAD
        v = head_gradients(*into, drop=drop, rng=np.random.default_rng(seed))
        drawn.append(v.tolist())
    assert drawn[1] == drawn[2] and drawn[0] != drawn[1] != drawn[3]


def test_recomputation_gives_the_same_bits():
    whole = with_heads(FIXED, HEADS)
    flat = []
    for recompute in (False, True):
        gradients = gradients_of(whole)
        for batch in BATCHES:
            into = gradients, slope, VALUE_HEAD
            head_gradients(whole, batch, *into, recompute=recompute)
        flat.append(gradients.flat)
    np.testing.assert_array_equal(*flat)


ON_DEVICE = GPT2Config(vocab_size=211, n_positions=64, n_embd=32, n_layer=2, n_head=1)
ANSWERS = batch_of_answers([Answer([5, 6, 7], [8, 9, 210]), Answer([5, 6, 7], [1, 210])])


def head_on_policy(parameters, scale):
    """The loss of a value function on the policy's rows."""

    def head(h, places, gradients):
        v = np.linspace(-1, 1, len(places)) * scale
        return read_head_backward(v, h, places, parameters, VALUE_HEAD, gradients)

    return head


def both_losses(parameters, gradients, scale):
    """The gradients of a policy and its value function, in two micro-batches, and then a score."""
    for _ in range(2):
        options, head = Options(loss_scale=scale), head_on_policy(parameters, scale)
        into = parameters, ANSWERS, gradients, lambda log_p: np.sin(3 * log_p)
        policy_gradients(*into, options, temperature=0.8, head=head)
    into = part(parameters, VALUE), ANSWERS, gradients.part(VALUE)
    v = head_gradients(*into, lambda v: scale * np.cos(np.arange(len(v))), "head")
    return v, gradients.flat


@needs_device
@pytest.mark.parametrize("precision", ["float32", *SHORT])
def test_on_a_device_they_are_those_of_the_cpu(precision):
    rng = np.random.default_rng(1)
    body = initialise(ON_DEVICE, rng, np.float32)
    heads = {f"{VALUE}{name}": 4 * view for name, view in body.views.items()}
    heads[f"{VALUE_HEAD}.weight"] = rng.standard_normal((1, 32), np.float32)
    heads[f"{VALUE_HEAD}.bias"] = np.ones(1, np.float32)
    parameters = with_heads(Parameters(ON_DEVICE, 3 * body.flat), heads)
    exact = parameters.like(parameters.flat.astype(np.float64))
    expected, d_expected = both_losses(exact, gradients_of(exact), 1)
    scale = 256.0 if precision == "float16" else 1.0
    with device(machine()) as xp:
        state = new_state(parameters.on(xp), precision)
        found, d_found = both_losses(state.compute, state.gradients, scale)
        d_found = xp.asnumpy(d_found)
    bound = {"float32": 2e-5, "float16": 1e-2, "bfloat16": 8e-2}[precision]
    assert abs(found - expected).max() <= bound * abs(expected).max()
    assert error_of(d_found / scale, d_expected) <= bound


def test_a_head_is_read_in_float32_from_sixteen_bits():
    h = np.full((1, C), 1.001, np.float16)
    whole = with_heads(FIXED, {f"{SCORE}.weight": np.ones((1, C))})
    rounded = whole.like(whole.flat.astype(np.float16))
    v = read_head(h, np.zeros(1, np.int64), rounded, SCORE)
    assert v.dtype == np.float32 and v[0] == pytest.approx(C * float(h[0, 0]), rel=1e-6)
