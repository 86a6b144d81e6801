"""The page of rules in minigpt2/ops, and plain.py: both say what the ops do."""

import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

from book.parse import TAG, equations_of, read_sources
from minigpt2 import ops
from minigpt2.ops.cross_entropy import cross_entropy_gradient
from minigpt2.ops.dropout import dropout, dropout_backward
from minigpt2.ops.embedding import embedding, scatter_add
from minigpt2.ops.gelu import gelu, gelu_backward
from minigpt2.ops.layer_norm import layer_norm, layer_norm_backward
from minigpt2.ops.linear import linear, linear_backward
from minigpt2.ops.softmax import softmax, softmax_backward
from tests import plain
from tests.ops.cases import (
    FOREST,
    IDS,
    POSITIONS,
    ROWS,
    SCALE,
    TARGETS,
    WEIGHTS,
    C,
    F,
    H,
    K,
    N,
    T,
    V,
    lora_gradients,
    lora_onto,
)

MODULES = [
    importlib.import_module(f"minigpt2.ops.{m.name}") for m in pkgutil.iter_modules(ops.__path__)
]
FUNCTIONS = {
    name: function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__
}
# The line above the formulas: "    linear, keeps x and W                   linear_backward".
HEADINGS = re.findall(r"^    (\w+), [^(]+?  +(\w+)(?:, .+)?$", ops.__doc__, re.MULTILINE)


def test_the_page_names_ops_that_exist_and_leaves_none_out():
    assert {name for pair in HEADINGS for name in pair} <= set(FUNCTIONS)
    backward = {name for name in FUNCTIONS if re.search("_(backward|gradient)$", name)}
    assert backward and {name for _, name in HEADINGS} == backward


@pytest.mark.parametrize("text", [ops.__doc__, inspect.getsource(plain)], ids=["page", "plain"])
def test_every_equation_that_is_cited_exists(text):
    defined = {tag for source in read_sources().values() for _, tag in equations_of(source).defined}
    cited = {(int(chapter), int(number)) for chapter, number in TAG.findall(text)}
    assert len(cited) > 25 and cited <= defined


def test_each_op_is_what_the_plain_formulas_give():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, N, C))
    w, b, dk = rng.standard_normal((C, K)), rng.standard_normal(K), rng.standard_normal((N, K))
    gamma, beta = rng.standard_normal((2, C))
    h, dg = rng.standard_normal((2, N, F))
    s, dp = rng.standard_normal((2, N, V))
    a, b_ = rng.standard_normal((C, 2)), rng.standard_normal((2, K))
    wte, wpe = rng.standard_normal((V, C)), rng.standard_normal((T, C))

    def both(op, backward, arguments, upstream):
        result, saved = op(*arguments)
        gradients = backward(upstream, saved)
        return result, *(gradients if isinstance(gradients, tuple) else (gradients,))

    dwte = np.zeros_like(wte)
    loss, _, dx = cross_entropy_gradient(x, wte, ROWS, TARGETS, WEIGHTS, dwte)
    y, z = dropout(x, 0.3, np.random.default_rng(1))
    pairs = [
        (both(linear, linear_backward, (x, w, b), dk), plain.linear(x, w, b, dk)),
        (
            (
                embedding(wte, wpe, IDS, POSITIONS)[0],
                scatter_add(dy, IDS, V),
                scatter_add(dy, POSITIONS, T),
            ),
            plain.embedding(wte, wpe, IDS, POSITIONS, dy),
        ),
        (
            both(layer_norm, layer_norm_backward, (x, gamma, beta), dy),
            plain.layer_norm(x, gamma, beta, dy),
        ),
        (both(gelu, gelu_backward, (h,), dg)[:2], plain.gelu(h, dg)),
        (
            (lora_onto(x, dk, a, b_), *lora_gradients(dk, (x, dk, a, b_))),
            plain.lora(x, dk, a, b_, SCALE, dk),
        ),
        (both(softmax, softmax_backward, (s,), dp), plain.softmax(s, dp)),
        ((y, dropout_backward(dy, z)), plain.dropout(x, z.z, dy)),
        ((loss, dx, dwte), plain.cross_entropy(x, wte, ROWS, TARGETS, WEIGHTS)),
    ]
    for results, expected in pairs:
        for result, exact in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, exact, atol=1e-12)


def test_plain_attention_backward_is_the_slope_of_plain_attention():
    """Against the complex step; the op is compared with both in test_attention.py."""
    rng = np.random.default_rng(0)
    qkv, direction = rng.standard_normal((2, N, 3 * C))
    do, z = rng.standard_normal((N, C)), rng.random((H, N, N))
    end, h = FOREST, 1e-30
    slope = plain.attention(qkv + 1j * h * direction, end, H, z).imag / h
    dqkv = plain.attention_backward(do, qkv, end, H, z)
    np.testing.assert_allclose((do * slope).sum(), (dqkv * direction).sum(), rtol=1e-12)
