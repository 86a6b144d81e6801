"""Linear map: what its chapter claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.backend import Target
from minigpt2.ops.linear import Saved, linear, linear_backward

sizes = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
quick = settings(deadline=None, max_examples=40)


def inputs(size):
    """Random x, w, b and dy for N rows, C features in and K out."""
    n, c, k, seed = size
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in ((n, c), (c, k), (k,), (n, k))]


@given(sizes)
@quick
def test_weights_are_stored_in_out_so_that_y_is_x_w_without_a_transpose(size):
    x, w, b, _ = inputs(size)
    expected = [
        [sum(row[c] * w[c, k] for c in range(len(w))) + b[k] for k in range(len(b))] for row in x
    ]
    np.testing.assert_allclose(linear(x, w, b)[0], expected, atol=1e-13)


@given(sizes)
@quick
def test_the_rows_never_mix_in_dx(size):
    x, w, b, dy = inputs(size)
    dx, _, _ = linear_backward(dy, linear(x, w, b)[1])
    for n in range(len(x)):
        alone = linear_backward(dy[n : n + 1], linear(x[n : n + 1], w, b)[1])[0]
        np.testing.assert_allclose(dx[n : n + 1], alone, atol=1e-13)


@given(sizes)
@quick
def test_rows_are_all_that_is_summed_in_dw(size):
    x, w, b, dy = inputs(size)
    _, dw, db = linear_backward(dy, linear(x, w, b)[1])
    of_rows = [linear_backward(dy[[n]], linear(x[[n]], w, b)[1]) for n in range(len(x))]
    np.testing.assert_allclose(dw, sum(np.outer(x[n], dy[n]) for n in range(len(x))), atol=1e-13)
    np.testing.assert_allclose(dw, sum(one[1] for one in of_rows), atol=1e-13)
    np.testing.assert_allclose(db, sum(one[2] for one in of_rows), atol=1e-13)


def test_keeps_x():
    x, w, b, _ = inputs((3, 5, 2, 0))
    saved = linear(x, w, b)[1]
    assert saved == Saved(x, w) == (x, w, True) and len(saved) == 3


def test_dw_is_written_to_the_array_that_is_passed():
    x, w, b, dy = (np.random.default_rng(5).standard_normal(s) for s in ((7, 3), (3, 5), 5, (7, 5)))
    out = np.full_like(w, np.nan)
    _, dw, _ = linear_backward(dy, linear(x, w, b)[1], weight=Target(out))
    assert dw is out
    np.testing.assert_array_equal(out, linear_backward(dy, linear(x, w, b)[1])[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("accumulate", [False, True])
def test_dw_and_db_go_where_they_are_sent(accumulate, dtype):
    x, w, b, dy = inputs((7, 3, 5, 5))
    saved = linear(x, w, b)[1]
    _, dw, db = linear_backward(dy, saved)
    to_w, to_b = np.full_like(w, 2, dtype), np.full_like(b, 3, dtype)
    sent = Target(to_w, accumulate), Target(to_b, accumulate)
    _, at_w, at_b = linear_backward(dy, saved, weight=sent[0], bias=sent[1])
    assert at_w is to_w and at_b is to_b
    np.testing.assert_allclose(to_w, dw + 2 * accumulate, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(to_b, db + 3 * accumulate, rtol=1e-6, atol=1e-6)


def test_without_a_bias_there_is_no_gradient_of_one():
    x, w, _, dy = inputs((7, 3, 5, 5))
    y, saved = linear(x, w, None)
    np.testing.assert_array_equal(y, x @ w)
    assert not saved.biased and linear_backward(dy, saved)[2] is None


def test_a_frozen_layer_passes_the_gradient_on_and_has_none_of_its_own():
    x, w, b, dy = (np.random.default_rng(5).standard_normal(s) for s in ((7, 3), (3, 5), 5, (7, 5)))
    saved = linear(x, w, b)[1]
    dx, dw, db = linear_backward(dy, saved, trains=False)
    np.testing.assert_array_equal(dx, linear_backward(dy, saved)[0])
    assert dw is None and db is None
