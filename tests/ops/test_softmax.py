"""Softmax: what its chapter claims."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.ops.softmax import softmax, softmax_backward

sizes = st.tuples(st.integers(1, 7), st.integers(1, 11), st.integers(0, 99))
quick = settings(deadline=None, max_examples=60)


def inputs(size, scale=3):
    """Random scores and dp."""
    rng = np.random.default_rng(size[2])
    return scale * rng.standard_normal(size[:2]), rng.standard_normal(size[:2])


@given(sizes)
@quick
def test_probabilities_are_positive_and_add_up_to_one(size):
    p, _ = softmax(inputs(size)[0])
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-14)


@given(sizes)
@quick
def test_differences_of_scores_become_ratios_of_probabilities(size):
    s, _ = inputs(size)
    p, _ = softmax(s)
    np.testing.assert_allclose(p / p[:, :1], np.exp(s - s[:, :1]), rtol=1e-12)


@given(sizes, st.floats(-1e3, 1e3))
@quick
def test_adding_a_constant_to_all_scores_changes_nothing(size, constant):
    s, _ = inputs(size)
    np.testing.assert_allclose(softmax(s + constant)[0], softmax(s)[0], rtol=1e-11)


@given(sizes, st.sampled_from([1e3, 1e30, 1e300]))
@quick
def test_no_exponential_overflows(size, scale):
    s, _ = inputs(size, scale)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        p, _ = softmax(s)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-14)


@given(sizes)
@quick
def test_the_ds_of_a_row_add_up_to_0(size):
    s, dp = inputs(size)
    np.testing.assert_allclose(softmax_backward(dp, softmax(s)[1]).sum(-1), 0, atol=1e-14)


@given(sizes)
@quick
def test_one_inner_product_a_row_stands_for_the_jacobian(size):
    s, dp = inputs(size)
    p, saved = softmax(s)
    rows = zip(p, dp, strict=True)
    expected = [(np.diag(one) - np.outer(one, one)) @ upstream for one, upstream in rows]
    np.testing.assert_allclose(softmax_backward(dp, saved), expected, atol=1e-14)


def test_a_probability_of_0_passes_no_gradient():
    s = np.array([[0.3, -np.inf, 1.0, -1e9]])
    p, saved = softmax(s)
    ds = softmax_backward(np.array([[1.0, 2.0, 3.0, 4.0]]), saved)
    assert p[0, 1] == p[0, 3] == ds[0, 1] == ds[0, 3] == 0 and ds[0, 0] != 0


def test_keeps_p():
    p, saved = softmax(inputs((3, 5, 0))[0])
    assert saved.p is p and len(saved) == 1
