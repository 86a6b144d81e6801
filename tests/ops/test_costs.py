"""The operations that each chapter's section "Cost" tells, counted while the op runs."""

from typing import ClassVar

import numpy as np
import pytest

from minigpt2.ops.attention import attention, attention_backward
from minigpt2.ops.cross_entropy import cross_entropy, cross_entropy_gradient
from minigpt2.ops.dropout import dropout, dropout_backward
from minigpt2.ops.embedding import Saved, embedding_backward
from minigpt2.ops.gelu import gelu, gelu_backward
from minigpt2.ops.layer_norm import layer_norm, layer_norm_backward
from minigpt2.ops.linear import linear, linear_backward
from minigpt2.ops.softmax import softmax, softmax_backward
from tests.fake_cores import fake_core_count

FUNCTIONS = ("exp", "tanh", "log", "power")  # counted apart from arithmetic
COMPARISONS = ("maximum", "greater_equal", "not_equal")  # not counted


class Counted(np.ndarray):
    """An array that counts what is done with it, by the name of the operation."""

    tally: ClassVar[dict[str, int]] = {}

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        """Do the operation on plain arrays, and count it."""
        plain = [np.asarray(x) if isinstance(x, Counted) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(np.asarray(x) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        count = np.size(result) if method == "__call__" else np.size(plain[0])
        if ufunc is np.matmul:
            count *= 2 * plain[0].shape[-1]
        Counted.tally[ufunc.__name__] = Counted.tally.get(ufunc.__name__, 0) + count
        if out is not None:
            return out[0]
        return result.view(Counted) if isinstance(result, np.ndarray) else result


def counted(*shape):
    """A random array that counts."""
    return np.random.default_rng(0).standard_normal(shape).view(Counted)


def count(function, *arguments, **options):
    """What the function returns, how much arithmetic it did, how many functions it evaluated."""
    Counted.tally = {}
    result = function(*arguments, **options)
    tally = {name: n for name, n in Counted.tally.items() if name not in COMPARISONS}
    functions = sum(tally.pop(name, 0) for name in FUNCTIONS)
    return result, sum(tally.values()), functions


N, C, K, V = 40, 150, 70, 400


def test_linear_costs_2nck_forward_and_4nck_backward():
    (_, saved), forward, _ = count(linear, counted(N, C), counted(C, K), counted(K))
    _, backward, _ = count(linear_backward, counted(N, K), saved)
    assert forward / (N * C * K) == pytest.approx(2, abs=0.05)
    assert backward / (N * C * K) == pytest.approx(4, abs=0.05)


def test_embedding_costs_4nc_additions_backward():
    ids = np.arange(N) % 7
    saved, tables = Saved(ids, ids), (counted(V, C), counted(9, C))
    _, backward, _ = count(embedding_backward, counted(N, C), saved, *tables)
    assert backward <= 4 * N * C


def test_gelu_costs_7_operations_and_one_exponential_and_6_for_the_slope_and_1_backward():
    _, forward, exponentials = count(gelu, counted(N, C), backward=False)
    assert (forward, exponentials) == (7 * N * C, N * C)
    (_, saved), forward, exponentials = count(gelu, counted(N, C))
    _, backward, _ = count(gelu_backward, counted(N, C), saved)
    assert (forward, exponentials) == (13 * N * C, N * C)
    assert backward == N * C


def test_softmax_costs_3_operations_and_one_exponential_forward_and_4_backward():
    (_, saved), forward, exponentials = count(softmax, counted(N, V))
    _, backward, _ = count(softmax_backward, counted(N, V), saved)
    assert (forward, exponentials) == (3 * N * V, N * V)
    assert backward == 4 * N * V


def test_layer_norm_costs_7nc_forward_and_11nc_backward():
    (_, saved), forward, _ = count(layer_norm, counted(N, C), counted(C), counted(C))
    _, backward, _ = count(layer_norm_backward, counted(N, C), saved)
    assert forward / (N * C) == pytest.approx(7, abs=0.05)
    assert backward / (N * C) == pytest.approx(11, abs=0.05)


def test_dropout_costs_one_product_an_element_backward():
    _, saved = dropout(counted(N, C), 0.5, np.random.default_rng(0))
    _, backward, _ = count(dropout_backward, counted(N, C), saved)
    assert backward == N * C


def test_attention_costs_4d_operations_a_visible_pair_forward_and_10d_backward(monkeypatch):
    fake_core_count(monkeypatch, 1)  # one tally
    n, heads = 60, 2
    pairs, width = heads * n * (n + 1) / 2, 200
    qkv, end = counted(n, 3 * heads * width), np.full(n, n)
    Counted.tally = {}
    _, saved = attention(qkv, end, heads, block=1)
    assert Counted.tally["matmul"] == 4 * width * pairs
    Counted.tally = {}
    attention_backward(counted(n, heads * width), saved)
    assert Counted.tally["matmul"] == 10 * width * pairs


def test_cross_entropy_costs_6mvc_with_gradient_and_a_third_for_the_loss_alone():
    triples = np.arange(N), np.arange(N), np.ones(N)
    tables = counted(N, C), counted(V, C)
    _, with_gradient, exponentials = count(cross_entropy_gradient, *tables, *triples, counted(V, C))
    _, loss_alone, _ = count(cross_entropy, *tables, *triples)
    assert with_gradient / (N * V * C) == pytest.approx(6, abs=0.15)
    assert exponentials == N * V + N
    assert loss_alone / (N * V * C) == pytest.approx(2, abs=0.05)
