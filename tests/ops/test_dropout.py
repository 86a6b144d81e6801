"""Dropout: what its chapter claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.ops.dropout import dropout, dropout_backward, keep_factors
from tests.kernels.support import SHORT

rates = st.floats(0.01, 0.95)
seeds = st.integers(0, 999)
quick = settings(deadline=None, max_examples=40)


def run(rate, seed, shape=(13, 17), dtype=float):
    """x, y, dy and dx of one run."""
    x, dy = np.random.default_rng([seed, 1]).standard_normal((2, *shape)).astype(dtype)
    y, saved = dropout(x, rate, np.random.default_rng(seed))
    return x, y, dy, dropout_backward(dy, saved)


@given(rates, seeds)
@quick
def test_a_feature_is_zero_or_scaled_up(rate, seed):
    x, y, _, _ = run(rate, seed)
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], x[~dropped] / (1 - rate), rtol=1e-14)


@given(rates, seeds)
@quick
def test_a_feature_that_was_dropped_receives_no_gradient(rate, seed):
    _, y, dy, dx = run(rate, seed)
    np.testing.assert_array_equal(dx[y == 0], 0)
    np.testing.assert_allclose(dx[y != 0], dy[y != 0] / (1 - rate), rtol=1e-14)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_each_feature_is_set_to_zero_with_probability_rho(rate):
    n = 200_000
    _, y, _, _ = run(rate, 5, (n, 1))
    assert abs((y == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_expectation_of_the_output_is_the_input(rate):
    x, n = np.array([[0.5, -2.0, 3.0]]), 40_000
    y, _ = dropout(np.repeat(x, n, 0), rate, np.random.default_rng(6))
    deviation = abs(x[0]) * np.sqrt(rate / (1 - rate) / n)
    assert (abs(y.mean(0) - x[0]) < 5 * deviation).all()


def test_features_are_dropped_independently():
    _, y, _, _ = run(0.5, 7, (20_000, 4))
    correlation = np.corrcoef((y == 0).T) - np.eye(4)
    assert abs(correlation).max() < 5 / np.sqrt(20_000)


@given(seeds)
@quick
def test_with_rho_0_the_op_is_the_identity_and_draws_no_random_number(seed):
    x, y, dy, dx = run(0.0, seed)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dx, dy)
    rng = np.random.default_rng(seed)
    dropout(x, 0.0, rng)
    assert rng.bit_generator.state == np.random.default_rng(seed).bit_generator.state


@given(rates, seeds)
@quick
def test_both_precisions_drop_the_same_features(rate, seed):
    single, double = run(rate, seed, dtype=np.float32)[1], run(rate, seed)[1]
    np.testing.assert_array_equal(single == 0, double == 0)


def test_dropping_needs_random_numbers_and_keeping_everything_does_not():
    x = np.ones((2, 3))
    assert dropout(x, 0.0, None)[0] is x
    with pytest.raises(ValueError, match=r"^dropout draws random masks: pass rng$"):
        dropout(x, 0.5, None)


class Drawn:
    """A generator that draws these numbers."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def random(self, shape, dtype):
        """The numbers, of the type that is named."""
        assert dtype is np.float32
        return np.array(self.numbers, dtype).reshape(shape)


def test_what_is_drawn_below_rho_is_dropped_and_rho_itself_is_not():
    z = keep_factors((2, 2), 0.25, Drawn(0.0, 0.2499999, 0.25, 0.75), np.zeros(1))
    np.testing.assert_array_equal(z, [[0, 0], [4 / 3, 4 / 3]])


@pytest.mark.parametrize("dtype", SHORT.values(), ids=SHORT)
def test_numbers_of_16_bits_stay_so_and_are_scaled_in_float32(dtype):
    """A factor in bfloat16 would make every feature 0.2 % too small."""
    x = np.linspace(-2, 2, 4096).astype(dtype).reshape(64, 64)
    y, saved = dropout(x, 0.1, np.random.default_rng(0))
    dx = dropout_backward(x, saved)
    wide, _ = dropout(x.astype(np.float32), 0.1, np.random.default_rng(0))
    for found in (y, dx):
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, wide.astype(x.dtype))
    means = [abs(numbers.astype(np.float64)).mean() for numbers in (y, wide)]
    assert means[0] == pytest.approx(means[1], rel=3e-4)
