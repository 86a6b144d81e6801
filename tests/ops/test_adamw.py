"""AdamW: what its chapter claims, against the equations written for one number at a time."""

from math import sqrt

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.device import fake_cupy
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW, Update, adamw_flat, adamw_update, norm_of
from minigpt2.training.state import new_state
from tests import plain
from tests.watched import Watched

CONFIG = GPT2Config(vocab_size=7, n_positions=3, n_embd=4, n_layer=1, n_head=2)
P = CONFIG.n_parameters
ETA = 0.01


def start(seed=0, dtype=np.float64, config=CONFIG):
    """Random parameters, and zeros for their gradients."""
    rng = np.random.default_rng(seed)
    parameters = Parameters(config, rng.standard_normal(config.n_parameters).astype(dtype))
    state = new_state(parameters)
    return parameters, state.gradients, state


def adamw_step(parameters, gradients, state, eta, constants):
    """Take one step, counted if its norm is finite; return the norm."""
    update = Update(state.step + 1, eta, parameters.n_decayed, constants)
    norm = adamw_flat(parameters.trainable, gradients.flat, state.m, state.v, update)
    state.step += bool(np.isfinite(norm))
    return norm


SETTINGS = [
    AdamW(),
    AdamW(0.8, 0.95, 1e-3, 0.3, 0.5),
    AdamW(0.9, 0.99, 1e-8, 0.0, 0.0),
    AdamW(0.0, 0.5, 1e-2, 1.0, 1e3),
]


@pytest.mark.parametrize("block", [1 << 18, 40])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_several_steps_are_those_of_the_definition(settings, block, monkeypatch):
    monkeypatch.setattr("minigpt2.parallel.BLOCK_BYTES", block)
    parameters, gradients, moments = start()
    rng = np.random.default_rng(1)
    sizes = 10.0 ** rng.integers(-4, 2, P)  # gradients that differ by orders of magnitude
    steps = [rng.standard_normal(P) * sizes * scale for scale in (1, 0.01, 3, 1e-3, 1)]
    etas = [0.01, 0.02, 0.03, 0.02, 0.01]
    decayed = np.arange(P) < parameters.n_decayed
    expected = plain.adamw(parameters.flat, steps, decayed, settings, etas)
    for g, eta in zip(steps, etas, strict=True):
        gradients.flat[:] = g
        norm = adamw_step(parameters, gradients, moments, eta, settings)
        assert norm == pytest.approx(np.linalg.norm(g), rel=1e-14)
        np.testing.assert_array_equal(gradients.flat, g)
    assert moments.step == 5
    np.testing.assert_allclose(parameters.flat, expected, rtol=1e-12, atol=1e-14)


def test_the_first_step_moves_every_parameter_by_eta_against_the_sign_of_its_gradient():
    parameters, gradients, moments = start()
    before = parameters.flat.copy()
    rng = np.random.default_rng(1)
    gradients.flat[:] = rng.choice([-1, 1], P) * 10.0 ** rng.integers(-3, 3, P)
    adamw_step(parameters, gradients, moments, ETA, AdamW(weight_decay=0, clip=0))
    moved = parameters.flat - before
    np.testing.assert_allclose(moved, -ETA * np.sign(gradients.flat), rtol=2e-5)


def test_a_gradient_of_0_moves_nothing_but_by_decay():
    parameters, gradients, moments = start()
    before = parameters.flat.copy()
    adamw_step(parameters, gradients, moments, ETA, AdamW(weight_decay=0.5))
    n = parameters.n_decayed
    np.testing.assert_allclose(parameters.flat[:n], before[:n] * (1 - ETA * 0.5), rtol=1e-15)
    np.testing.assert_array_equal(parameters.flat[n:], before[n:])


def test_only_parameters_with_two_axes_decay():
    settings = AdamW(weight_decay=0.5, clip=0)
    (decayed, gradients, moments), (plain, _, others) = start(), start()
    gradients.flat[:] = 1
    adamw_step(decayed, gradients, moments, ETA, settings)
    adamw_step(plain, gradients, others, ETA, AdamW(weight_decay=0, clip=0))
    for name, view in decayed.views.items():
        assert (view == plain[name]).all() == (view.ndim == 1), name


def test_the_decay_is_not_divided_by_the_root_of_v():
    settings = AdamW(weight_decay=0.5, clip=0)
    for scale in (1.0, 1e3):
        parameters, gradients, moments = start()
        before = parameters.flat.copy()
        gradients.flat[:] = scale * np.random.default_rng(1).choice([-1, 1], P)
        adamw_step(parameters, gradients, moments, ETA, settings)
        by_decay = parameters.flat - before + ETA * np.sign(gradients.flat)
        n = parameters.n_decayed
        np.testing.assert_allclose(by_decay[:n], -ETA * 0.5 * before[:n], atol=1e-9)


def test_epsilon_is_outside_the_root():
    parameters, gradients, moments = start()
    before = parameters.flat.copy()
    gradients.flat[:] = 1e-3
    adamw_step(parameters, gradients, moments, ETA, AdamW(eps=1e-3, weight_decay=0, clip=0))
    np.testing.assert_allclose(before - parameters.flat, ETA / 2, rtol=1e-9)


def test_scaling_the_loss_changes_nothing():
    found = []
    for scale in (1.0, 1e4):
        parameters, gradients, moments = start()
        for step in range(3):
            gradients.flat[:] = scale * np.random.default_rng(step).standard_normal(P)
            adamw_step(parameters, gradients, moments, ETA, AdamW(clip=0, eps=1e-16))
        found.append(parameters.flat)
    np.testing.assert_allclose(*found, rtol=1e-10)


@pytest.mark.parametrize(("clip", "kappa"), [(1.0, 0.2), (5.0, 1.0), (50.0, 1.0), (0.0, 1.0)])
def test_the_gradient_is_clipped_to_a_global_norm(clip, kappa):
    parameters, gradients, moments = start()
    gradients.flat[[0, -1]] = 3, -4  # norm 5, over both parts of the layout
    assert adamw_step(parameters, gradients, moments, ETA, AdamW(clip=clip)) == 5
    np.testing.assert_allclose(moments.m[[0, -1]], [0.1 * kappa * 3, -0.1 * kappa * 4])
    squares = [0.001 * (kappa * 3) ** 2, 0.001 * (kappa * 4) ** 2]
    np.testing.assert_allclose(moments.v[[0, -1]], squares)


def test_the_global_norm_is_over_all_parameters():
    parameters, gradients, moments = start()
    gradients.flat[:] = np.random.default_rng(0).standard_normal(P)
    total = sum((view**2).sum() for view in gradients.views.values())
    norm = adamw_step(parameters, gradients, moments, ETA, AdamW())
    assert norm == pytest.approx(sqrt(total), rel=1e-14)


def test_the_norm_of_many_small_numbers_is_not_lost_to_rounding():
    """One sum of squares in float32 would be off by 2e-4 here, and by 2e-3 at 124M."""
    g = np.random.default_rng(0).standard_normal(30_000_000, np.float32)
    squares = sum((part.astype(float) ** 2).sum() for part in np.array_split(g, 100))
    assert norm_of(g) == pytest.approx(sqrt(squares), rel=1e-6)


@pytest.mark.parametrize("clip", [0.0, 1.0, 1e3])
def test_the_scale_of_the_loss_is_taken_out_again(clip):
    g, states = np.random.default_rng(0).standard_normal(P), []
    for scale in (1.0, 1024.0):
        theta, m, v = np.ones((3, P))
        update = Update(3, ETA, P // 2, AdamW(clip=clip), scale)
        assert adamw_flat(theta, scale * g, m, v, update) == scale * norm_of(g)
        states.append((theta, m, v))
    for one, other in zip(*states, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_a_copy_gets_the_new_parameters_rounded():
    theta, g, m, v = np.random.default_rng(0).random((4, P))
    copy = np.zeros(P, np.float16)
    adamw_flat(theta, g, m, v, Update(1, ETA, P // 2, AdamW()), copy=copy)
    np.testing.assert_array_equal(copy, theta.astype(np.float16))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    parameters, gradients, moments = start()
    gradients.flat[:] = 1
    adamw_step(parameters, gradients, moments, ETA, AdamW())
    before = [a.copy() for a in (parameters.flat, moments.m, moments.v)]
    gradients.flat[P // 2] = bad
    assert not np.isfinite(adamw_step(parameters, gradients, moments, ETA, AdamW()))
    for was, now in zip(before, (parameters.flat, moments.m, moments.v), strict=True):
        np.testing.assert_array_equal(was, now)
    assert moments.step == 1


def test_the_constants_by_default():
    assert AdamW() == AdamW(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1, clip=1.0)


def test_moments_start_at_0_with_the_layout_of_the_parameters():
    parameters, _, moments = start(dtype=np.float32)
    for one in (moments.m, moments.v):
        assert one.shape == parameters.flat.shape and one.dtype == np.float32 and not one.any()
        assert not np.shares_memory(one, parameters.flat)
    assert not np.shares_memory(moments.m, moments.v) and moments.step == 0


def test_single_precision_stays_single_precision():
    Watched.kinds = set()
    arrays = [np.ones(9, np.float32).view(Watched) for _ in range(4)]
    adamw_update(*arrays, Update(3, 0.01, 9, AdamW()), kappa=0.5, decay=0.1)
    assert Watched.kinds == {np.dtype(np.float32)}


def test_a_piece_on_a_device_is_the_same(monkeypatch):
    monkeypatch.setattr(backend, "LIBRARIES", [fake_cupy])
    host = np.random.default_rng(0).random((4, P))
    device = [fake_cupy.asarray(array) for array in host]
    for arrays in (host, device):
        adamw_update(*arrays, Update(3, 0.01, 9, AdamW()), kappa=0.5, decay=0.1)
    for one, other in zip(host, device, strict=True):
        np.testing.assert_allclose(fake_cupy.asnumpy(other), one, rtol=1e-13)
