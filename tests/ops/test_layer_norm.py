"""Layer normalisation: what its chapter claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.backend import Target
from minigpt2.ops.layer_norm import layer_norm, layer_norm_backward
from minigpt2.parallel import BLOCK_BYTES, row_blocks
from tests import plain
from tests.kernels.support import SHORT

sizes = st.tuples(st.integers(1, 7), st.integers(2, 11), st.integers(0, 99))
quick = settings(deadline=None, max_examples=40)


def inputs(size):
    """Random x, gamma, beta and dy; never zeros or ones, which hide mistakes."""
    n, c, seed = size
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in ((n, c), (c,), (c,), (n, c))]


@given(sizes)
@quick
def test_every_tokens_features_get_mean_0_and_variance_1(size):
    x, _, _, _ = inputs(size)
    y, _ = layer_norm(x, np.ones(x.shape[1]), np.zeros(x.shape[1]), eps=0)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(-1), 1, atol=1e-12)


@given(sizes)
@quick
def test_no_token_depends_on_its_neighbours(size):
    x, gamma, beta, dy = inputs(size)
    y, saved = layer_norm(x, gamma, beta)
    dx, _, _ = layer_norm_backward(dy, saved)
    for n in range(len(x)):
        alone, kept = layer_norm(x[[n]], gamma, beta)
        np.testing.assert_allclose(y[[n]], alone, atol=1e-13)
        np.testing.assert_allclose(dx[[n]], layer_norm_backward(dy[[n]], kept)[0], rtol=1e-9)


@given(sizes, st.floats(-10, 10))
@quick
def test_a_step_that_adds_a_constant_leaves_the_output_alone(size, shift):
    x, gamma, beta, _ = inputs(size)
    moved, _ = layer_norm(x + shift, gamma, beta, eps=1e-3)
    np.testing.assert_allclose(moved, layer_norm(x, gamma, beta, eps=1e-3)[0], atol=1e-9)


@given(sizes, st.floats(0.1, 10))
@quick
def test_a_step_that_scales_x_leaves_the_output_alone_up_to_epsilon(size, scale):
    x, gamma, beta, _ = inputs(size)
    y, _ = layer_norm(x, gamma, beta, eps=1e-3)
    np.testing.assert_allclose(
        layer_norm(scale * x, gamma, beta, eps=1e-3 * scale**2)[0], y, atol=1e-9
    )


@given(sizes)
@quick
def test_dx_is_g_without_its_mean_and_without_its_component_along_x_hat_times_r(size):
    x, gamma, beta, dy = inputs(size)
    _, saved = layer_norm(x, gamma, beta, eps=0)
    dx, _, _ = layer_norm_backward(dy, saved)
    scale = saved.rstd[:, 0] * np.linalg.norm(gamma * dy, axis=-1)
    np.testing.assert_allclose(dx.sum(-1) / scale, 0, atol=1e-11)
    np.testing.assert_allclose((dx * saved.x_hat).sum(-1) / scale, 0, atol=1e-11)
    rest = gamma * dy - dx / saved.rstd
    for n, row in enumerate(rest):
        plane = np.stack([np.ones_like(row), saved.x_hat[n]], 1)
        left = row - plane @ np.linalg.lstsq(plane, row)[0]
        np.testing.assert_allclose(left / scale[n], 0, atol=1e-10)


def test_every_step_of_the_derivation_is_the_derivative_it_says():
    """(4.9), (4.12), (4.14) and (4.16), for one token, against the complex step."""
    (x,), eps, h = np.random.default_rng(0).standard_normal((1, 7)), 1e-2, 1e-30
    c = len(x)

    def definition(x):
        mu = x.sum() / c
        v = ((x - mu) ** 2).sum() / c
        r = (v + eps) ** -0.5
        return mu, v, r, (x - mu) * r

    mu, _, r, x_hat = definition(x)
    slopes = [definition(x + 1j * h * e) for e in np.eye(c)]
    dmu, dv, dr, dx_hat = (np.array(slope).imag / h for slope in zip(*slopes, strict=True))
    close = {"rtol": 1e-12, "atol": 1e-15}
    np.testing.assert_allclose(dmu, 1 / c, **close)  # (4.9)
    np.testing.assert_allclose(dv, 2 / c * (x - mu), **close)  # (4.12)
    np.testing.assert_allclose(dr, -(r**2) * x_hat / c, **close)  # (4.14)
    jacobian = r * (np.eye(c) - 1 / c - np.outer(x_hat, x_hat) / c)
    np.testing.assert_allclose(dx_hat, jacobian, **close)  # (4.16)


def test_epsilon_is_inside_the_root():
    x = np.array([[1.0, -1.0]])
    y, saved = layer_norm(x, np.ones(2), np.zeros(2), eps=3.0)
    np.testing.assert_allclose(saved.rstd, [[1 / np.sqrt(1 + 3.0)]])
    np.testing.assert_allclose(y, [[0.5, -0.5]])


def test_a_token_with_equal_features_is_finite():
    y, saved = layer_norm(np.full((2, 5), 3.0), np.ones(5), np.full(5, 0.5))
    np.testing.assert_array_equal(y, 0.5)
    assert np.isfinite(layer_norm_backward(np.ones((2, 5)), saved)[0]).all()


def test_blocks_of_rows_give_what_all_rows_at_once_give():
    c = 64
    x, gamma, beta, dy = inputs((BLOCK_BYTES // (8 * c) * 2 + 5, c, 0))
    assert len(row_blocks(len(x), 8 * c)) > 2
    y, saved = layer_norm(x, gamma, beta)
    dx, _, _ = layer_norm_backward(dy, saved)
    plain_y, plain_dx, _, _ = plain.layer_norm(x, gamma, beta, dy)
    np.testing.assert_allclose(y, plain_y, atol=1e-12)
    np.testing.assert_allclose(dx, plain_dx, atol=1e-12)


def test_keeps_x_hat_and_r():
    x, gamma, beta, _ = inputs((3, 5, 0))
    saved = layer_norm(x, gamma, beta)[1]
    assert saved._fields == ("x_hat", "rstd", "gamma")


@pytest.mark.parametrize("accumulate", [False, True])
def test_dgamma_and_dbeta_go_where_they_are_sent(accumulate):
    x, gamma, beta, dy = inputs((7, 5, 0))
    saved = layer_norm(x, gamma, beta)[1]
    to_gamma, to_beta = np.full(5, 2.0), np.full(5, 3.0)
    sent = Target(to_gamma, accumulate), Target(to_beta, accumulate)
    _, dgamma, dbeta = layer_norm_backward(dy, saved, weight=sent[0], bias=sent[1])
    assert dgamma is to_gamma and dbeta is to_beta
    _, dgamma, dbeta = layer_norm_backward(dy, saved)
    np.testing.assert_allclose(to_gamma, dgamma + 2 * accumulate, rtol=1e-14)
    np.testing.assert_allclose(to_beta, dbeta + 3 * accumulate, rtol=1e-14)


@pytest.mark.parametrize("dtype", SHORT.values(), ids=SHORT)
def test_sums_of_16_bit_numbers_are_in_float32(dtype):
    """Where there is no kernel, as for wide rows: 4,096 squares of 5 are too large for float16."""
    rng = np.random.default_rng(0)
    x, dy = (5 * rng.standard_normal((3, 4096)) for _ in range(2))
    gamma, beta = rng.standard_normal((2, 4096))
    short = [array.astype(dtype) for array in (x, gamma, beta, dy)]
    x, gamma, beta, dy = (array.astype(np.float64) for array in short)
    y, saved = layer_norm(*short[:3])
    exact, wide = layer_norm(x, gamma, beta)
    np.testing.assert_allclose(saved.rstd, wide.rstd, rtol=1e-5)
    actual = (y, *layer_norm_backward(short[3], saved))
    expected = (exact, *layer_norm_backward(dy, wide))
    bound = 4 * (2.0**-11 if dtype is np.float16 else 2.0**-8)
    for one, right in zip(actual, expected, strict=True):
        assert abs(one.astype(np.float64) - right).max() < bound * abs(right).max()
    assert actual[0].dtype == actual[1].dtype == dtype
