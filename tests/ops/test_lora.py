"""LoRA: what its chapter claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.backend import Target
from minigpt2.ops.linear import linear, linear_backward
from minigpt2.ops.lora import lora, lora_backward, lora_input, merged, scale_of

sizes = st.tuples(
    st.integers(1, 7), st.integers(1, 6), st.integers(1, 5), st.integers(1, 8), st.integers(0, 99)
)
quick = settings(deadline=None, max_examples=40)


def inputs(size, dtype=np.float64):
    """Random x, w, b, A, B and dy for N rows, C features in and K out, rank r."""
    n, c, k, r, seed = size
    rng = np.random.default_rng(seed)
    shapes = (n, c), (c, k), (k,), (c, r), (r, k), (n, k)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@given(sizes)
@quick
def test_the_map_and_its_adapter_are_the_merged_map(size):
    x, w, bias, a, b, dy = inputs(size)
    y, saved = lora(x, linear(x, w, bias)[0], a, b, 0.7)
    whole = merged(w, a, b, 0.7)
    expected, saved_by_whole = linear(x, whole, bias)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    dx, da, db = lora_backward(dy, saved, dy @ w.T)
    dx_whole, dw, _ = linear_backward(dy, saved_by_whole)
    np.testing.assert_allclose(dx, dx_whole, atol=1e-12)
    np.testing.assert_allclose(da, 0.7 * dw @ b.T, atol=1e-12)  # the product rule on (11.9)
    np.testing.assert_allclose(db, 0.7 * a.T @ dw, atol=1e-12)


@given(sizes)
@quick
def test_what_is_added_has_the_rank_r_at_most(size):
    _, w, _, a, b, _ = inputs(size)
    change = merged(w, a, b, 2.0) - w
    assert np.linalg.matrix_rank(change, tol=1e-9) <= a.shape[1]


def test_with_b_at_0_the_first_step_moves_b_alone():
    x, w, bias, a, b, dy = inputs((5, 4, 3, 2, 0))
    base = linear(x, w, bias)[0]
    y, saved = lora(x, base.copy(), a, 0 * b, 0.7)
    assert np.array_equal(y, base)
    _, da, db = lora_backward(dy, saved, dy @ w.T)
    assert not da.any() and db.any()


def test_y_and_dx_are_changed_where_they_are_and_nothing_else_is():
    x, w, bias, a, b, dy = inputs((5, 4, 3, 2, 0))
    y, dx = linear(x, w, bias)[0], dy @ w.T
    before = [array.copy() for array in (x, a, b, dy)]
    result, saved = lora(x, y, a, b, 0.7)
    assert result is y
    assert lora_backward(dy, saved, dx)[0] is dx
    for array, copy in zip((x, a, b, dy), before, strict=True):
        assert np.array_equal(array, copy)


def test_what_is_recomputed_is_what_was_saved():
    x, _, _, a, b, _ = inputs((5, 4, 3, 2, 0))
    _, saved = lora(x, np.zeros((5, 3)), a, b, 0.7)
    again = lora_input(x, a, b, 0.7)
    assert np.array_equal(saved.h, again.h) and saved.scale == again.scale
    assert saved.x is again.x is x


@pytest.mark.parametrize("accumulate", [False, True])
def test_gradients_go_where_they_are_to_go(accumulate):
    x, _, _, a, b, dy = inputs((5, 4, 3, 2, 0))
    _, saved = lora(x, np.zeros((5, 3)), a, b, 0.7)
    _, da, db = lora_backward(dy, saved, np.zeros((5, 4)))
    places = np.ones_like(a), np.ones_like(b)
    targets = {k: Target(p, accumulate) for k, p in zip("ab", places, strict=True)}
    _, *results = lora_backward(dy, saved, np.zeros((5, 4)), **targets)
    for result, place, gradient in zip(results, places, (da, db), strict=True):
        assert result is place
        np.testing.assert_allclose(place, gradient + accumulate)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_no_number_changes_the_type(dtype):
    x, _, _, a, b, dy = inputs((5, 4, 3, 2, 0), dtype)
    y, saved = lora(x, np.zeros((5, 3), dtype), a, b, 0.7)
    results = lora_backward(dy, saved, np.zeros((5, 4), dtype))
    assert {array.dtype for array in (y, saved.h, *results)} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("change", "stabilised", "growth"),
    [
        (np.sign, False, 1),  # AdamW's first step moves each number by η
        (np.sign, True, 4),  # √(256 / 16)
        (lambda db: db, True, 1),  # a plain step, by the gradient
        (lambda db: db, False, 1 / 16),
    ],
    ids=["AdamW, α/r", "AdamW, α/√r", "plain, α/√r", "plain, α/r"],
)
def test_how_much_the_first_step_lowers_the_loss_by_rank(change, stabilised, growth):
    """The claims about (11.3) and (11.4): dy · (y of the step), with B = −dB or its signs."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((50, 256)), rng.standard_normal((50, 40))
    fall = {}
    for r in (16, 256):
        a = rng.uniform(-1 / 16, 1 / 16, (256, r))
        _, saved = lora(x, np.zeros((50, 40)), a, np.zeros((r, 40)), scale_of(16, r, stabilised))
        _, _, db = lora_backward(dy, saved, np.zeros((50, 256)))
        y, _ = lora(x, np.zeros((50, 40)), a, -change(db), saved.scale)
        fall[r] = -(dy * y).sum()
    assert fall[256] / fall[16] == pytest.approx(growth, rel=0.1)
