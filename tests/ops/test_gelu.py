"""GELU: what its chapter claims."""

from math import erf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.backend import Target
from minigpt2.ops.gelu import gelu, gelu_backward
from minigpt2.parallel import BLOCK_BYTES, row_blocks

numbers = st.lists(st.floats(-50, 50), min_size=1, max_size=20)
quick = settings(deadline=None, max_examples=60)


def value_and_slope(x):
    """y and ∂y/∂x at each number."""
    y, saved = gelu(np.reshape(x, (1, -1)).astype(float))
    return y[0], gelu_backward(np.ones_like(y), saved)[0][0]


@given(numbers)
@quick
def test_x_times_nearly_the_chance_that_a_normal_variable_is_below_x(x):
    exact = [one * (1 + erf(one / sqrt(2))) / 2 for one in x]
    np.testing.assert_allclose(value_and_slope(x)[0], exact, atol=5e-4)


@given(numbers)
@quick
def test_the_two_gates_add_up_to_one(x):
    x = np.array(x)
    np.testing.assert_allclose(value_and_slope(x)[0] - value_and_slope(-x)[0], x, atol=1e-13)


@given(st.lists(st.floats(8, 1e6), min_size=1, max_size=20))
@quick
def test_far_to_the_right_y_is_x_and_dx_is_dy(x):
    y, slope = value_and_slope(x)
    np.testing.assert_allclose(y, x, rtol=1e-14)
    np.testing.assert_allclose(slope, 1, rtol=1e-14)


@given(st.lists(st.floats(-1e6, -8), min_size=1, max_size=20))
@quick
def test_far_to_the_left_y_is_0_and_dx_is_0(x):
    y, slope = value_and_slope(x)
    np.testing.assert_allclose(y, 0, atol=1e-12)
    np.testing.assert_allclose(slope, 0, atol=1e-12)


def test_smooth_in_between():
    x = np.linspace(-6, 6, 4001)
    _, slope = value_and_slope(x)
    assert abs(np.diff(slope, 2)).max() < 2 * (x[1] - x[0]) ** 2  # so it has a second derivative


def test_without_a_backward_pass_y_is_the_same_and_nothing_is_saved():
    x = np.random.default_rng(0).standard_normal((7, 5))
    y, saved = gelu(x, x[0], backward=False)
    assert saved is None
    np.testing.assert_array_equal(y, gelu(x, x[0])[0])


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0.841192), (-1, -0.158808), (2, 1.954598)])
def test_the_tanh_form(x, y):
    np.testing.assert_allclose(value_and_slope([x])[0], y, atol=5e-7)


def test_blocks_of_rows_give_what_all_rows_at_once_give():
    x = np.random.default_rng(0).standard_normal((BLOCK_BYTES // (8 * 64) * 2 + 5, 64))
    assert len(row_blocks(len(x), 8 * 64)) > 2
    y, saved = gelu(x)
    one, slope = value_and_slope(x)
    np.testing.assert_allclose(y.ravel(), one, rtol=1e-14)
    np.testing.assert_allclose(gelu_backward(x, saved)[0].ravel(), x.ravel() * slope, rtol=1e-14)


@pytest.mark.parametrize("accumulate", [False, True])
def test_db_goes_where_it_is_sent(accumulate):
    dy, h, b = np.random.default_rng(0).standard_normal((3, 7, 5))
    saved = gelu(h, b[0])[1]
    out = np.full(5, 3.0)
    db = gelu_backward(dy, saved, bias=Target(out, accumulate))[1]
    assert db is out
    np.testing.assert_allclose(out, gelu_backward(dy, saved)[1] + 3 * accumulate, rtol=1e-14)
