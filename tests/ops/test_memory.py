"""The memory that an op takes beyond its inputs, and the precision of what it adds up.

Memory is told in arrays of the input's size: what an op returns and saves, and what it needs for a
while.  A formula that forgets to work in place takes one more.
"""

import tracemalloc

import numpy as np
import pytest

from minigpt2.backend import Target
from minigpt2.ops.adamw import AdamW, Update, adamw_update
from minigpt2.ops.attention import attention, attention_backward
from minigpt2.ops.gelu import gelu, gelu_backward
from minigpt2.ops.layer_norm import layer_norm, layer_norm_backward
from minigpt2.ops.linear import column_sums, linear, linear_backward

N, C = 500, 256  # less than one block of rows, and much more than what else is allocated


def arrays_for(function, *arguments, **options):
    """The most arrays (N, C) of float64 that a function has at one time, those it returns too."""
    tracemalloc.start()
    result = function(*arguments, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del result
    return peak / (8 * N * C)


def drawn(*shape, dtype=np.float64):
    """A random array."""
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def test_gelu_works_in_place():
    x, b = drawn(N, C), drawn(C)
    _, saved = gelu(x, b)
    assert arrays_for(gelu, x, backward=False) == pytest.approx(3, abs=0.2)  # x², w, y
    assert arrays_for(gelu, x) == pytest.approx(4, abs=0.2)  # 1 − w, for a while
    assert arrays_for(gelu, x, b) == pytest.approx(5, abs=0.2)  # x = h + b
    assert arrays_for(gelu_backward, x, saved) == pytest.approx(1, abs=0.2)


def test_layer_norm_works_in_place():
    x, gamma = drawn(N, C), drawn(C)
    _, saved = layer_norm(x, gamma, gamma)
    assert arrays_for(layer_norm, x, gamma, gamma) == pytest.approx(2, abs=0.2)  # x̂, y
    assert arrays_for(layer_norm_backward, x, saved) == pytest.approx(2, abs=0.2)
    assert arrays_for(layer_norm_backward, x, saved, x) == pytest.approx(2, abs=0.2)


def test_an_update_makes_one_array():
    theta, g, m, v = drawn(4, N, C) ** 2
    update = Update(1, 0.1, N * C, AdamW())
    arrays = [array.ravel() for array in (theta, g, m, v)]
    assert arrays_for(adamw_update, *arrays, update, kappa=1.0, decay=0.1) == pytest.approx(
        1, abs=0.2
    )


@pytest.mark.parametrize(("rate", "forward", "backward"), [(0.0, 1.1, 2.1), (0.5, 2.2, 4.1)])
def test_attention_makes_few_arrays_of_pairs(rate, forward, backward):
    n, heads = 128, 8
    qkv, end, do = drawn(n, 3 * heads), np.full(n, n), drawn(n, heads)
    options = {"dropout": rate, "seed": 1}
    _, saved = attention(qkv, end, heads, **options)
    of_pairs = n * n * heads / (N * C)  # how many arrays (N, C) all pairs are
    peak = arrays_for(attention, qkv, end, heads, **options) / of_pairs
    assert peak == pytest.approx(forward, abs=0.15)
    assert arrays_for(attention_backward, do, saved) / of_pairs == pytest.approx(backward, abs=0.15)


def test_a_product_is_made_where_the_gradient_of_the_weights_goes():
    x, w = drawn(C, C), drawn(C, C)
    _, saved = linear(x, w, None)
    out = np.empty_like(w)
    of_w = C / N  # how many arrays (N, C) the weights are
    assert arrays_for(linear_backward, x, saved) == pytest.approx(2 * of_w, abs=0.2)
    here, added = (Target(out, accumulate) for accumulate in (False, True))
    assert arrays_for(linear_backward, x, saved, weight=here) == pytest.approx(of_w, abs=0.2)
    assert arrays_for(linear_backward, x, saved, weight=added) == pytest.approx(2 * of_w, abs=0.2)


def test_sums_over_rows_of_16_bit_numbers_are_made_in_float32():
    x, gamma = drawn(40, C, dtype=np.float16), drawn(C, dtype=np.float16)
    exact = x.astype(float).sum(0)
    _, saved = gelu(x, gamma)
    np.testing.assert_allclose(column_sums(x), exact, rtol=1e-6, atol=1e-5)
    assert column_sums(x).dtype == np.float32
    assert gelu_backward(x, saved)[1].dtype == np.float32
    _, dgamma, dbeta = layer_norm_backward(x, layer_norm(x, gamma, gamma)[1])
    assert dgamma.dtype == dbeta.dtype == np.float32
