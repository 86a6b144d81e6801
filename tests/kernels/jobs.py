"""What is asked of each kernel: a job is an op's forward and backward pass on some inputs.

A job takes a function that puts an array where it is to be computed, and returns the results.  With
`exactly` it is the op's own formula in float64, with the stand-in's `asarray` the kernels.  Sizes
are those at which mistakes show: one row, a tile but one, a tile, a tile and one, more.
"""

from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np

from minigpt2.backend import Target, accumulation_dtype, array_module
from minigpt2.device import attention_blocks, fused_layer_norm
from minigpt2.device.fused_cross_entropy import launch_cross_entropy
from minigpt2.device.fused_rows import sums_of_rows
from minigpt2.ops.adamw import AdamW, Update, adamw_flat
from minigpt2.ops.attention import attention, attention_backward
from minigpt2.ops.cross_entropy import (
    cross_entropy,
    cross_entropy_gradient,
    nll_and_dlogits,
    nll_from_logits,
)
from minigpt2.ops.embedding import (
    embedding,
    embedding_backward,
    scatter_add,
    scatter_rows,
    take_rows,
)
from minigpt2.ops.gelu import gelu, gelu_backward
from minigpt2.ops.layer_norm import layer_norm, layer_norm_backward
from minigpt2.ops.linear import column_sums
from tests.kernels.decoding_jobs import JOBS as DECODING_JOBS
from tests.kernels.linear_jobs import JOBS as LINEAR_JOBS
from tests.kernels.support import exactly, single
from tests.ops.cases import ends

DEEP = ends((9, (20, (11, (7,)), (3,)), (1,), (14,)), (33,), (1,))  # a forest of depth four
FORESTS = {
    "one row": ends((1,)),
    "a tile but one": ends((31,)),
    "a tile": ends((32,)),
    "a tile and one": ends((33,)),
    "rows alone": ends(*[(1,)] * 40),
    "deep": DEEP,
    "far apart": ends((5,), (90,), (40,)),
    "a preamble": ends((37, *[(n,) for n in (9, 30, 2, 17, 26)])),
    "an end in a tile": ends((95,), (40,)),
    "an end after a tile": ends((129,), (30,)),
    "an end in half a tile": ends((96,)),
}
LARGE = "attention, large blocks, "  # jobs for tensor cores alone
STORED = "attention, stored ds, "  # with large blocks, too


@contextmanager
def backward_in(blocks):
    """Let attention's backward pass take blocks that are "large", or large with ds "stored".

    Else they are for more rows than jobs have, and for some GPUs alone.
    """
    fast = 0 if blocks == "stored" else np.inf
    with (
        mock.patch.object(attention_blocks, "SMALL_BELOW", 0),
        mock.patch.object(attention_blocks, "FAST_MEMORY", fast),
    ):
        yield


def attend(end, heads, d, seed=0, blocks=None):
    """Attention over a forest."""
    qkv, do = single(len(end), 3 * heads * d, seed=seed), single(len(end), heads * d, seed=seed)

    def job(put):
        with backward_in(blocks) if blocks else nullcontext():
            o, saved = attention(put(qkv), end, heads)
            return o, saved.lse, attention_backward(put(do), saved)

    return job


def attend_with_padding(end, rows, d, blocks=None):
    """Attention over a forest with rows behind it that see nothing: all they get is 0."""
    n = len(end)
    padded = np.concatenate([end, np.zeros(rows, end.dtype)])
    qkv, do = single(n + rows, 3 * d), single(n + rows, d)

    def job(put):
        on_device = put(qkv)
        if array_module(on_device) is np:
            o, saved = attention(on_device[:n], end, 1)
            dqkv = attention_backward(put(do)[:n], saved)
            return [np.concatenate([x, np.zeros((rows, x.shape[1]))]) for x in (o, dqkv)]
        with backward_in(blocks) if blocks else nullcontext():
            o, saved = attention(on_device, padded, 1)
            return o, attention_backward(put(do), saved)

    return job


def normalise(n, c, plain, multiprocessors=None):
    """Layer normalisation, by itself or with the gradient that comes along the residual.

    With few multiprocessors, a block's sets of warps take several rows each.
    """
    x, dy, d_residual = (single(n, c, seed=seed, scale=2) for seed in range(3))
    gamma, beta, before = (single(c, seed=seed) for seed in (4, 5, 6))

    def job(put):
        y, saved = layer_norm(put(x), put(gamma), put(beta))
        if plain:
            return y, *layer_norm_backward(put(dy), saved)
        targets = {"weight": added_to(put(before)), "bias": Target(put(before))}
        patched = mock.patch.object(fused_layer_norm, "multiprocessors", lambda xp: multiprocessors)
        with patched if multiprocessors else nullcontext():
            return y, *layer_norm_backward(put(dy), saved, put(d_residual), **targets)

    return job


def added_to(array):
    """A gradient that another is added to, in the precision of sums."""
    return Target(array.astype(accumulation_dtype(array.dtype)), accumulate=True)


def sum_columns(n, k):
    """The sums over the rows of a matrix."""
    dy = single(n, k)
    return lambda put: (column_sums(put(dy)),)


def gate(n, f, bias, begin=0):
    """GELU, with a bias or without; before the bias stand other numbers in its array."""
    h, dy, numbers = single(n, f, scale=2), single(n, f, seed=1), single(begin + f, seed=2)

    def job(put):
        b = put(numbers)[begin:]
        y, saved = gelu(put(h), b if bias else None)
        if not bias:
            return y, gelu_backward(put(dy), saved)[0]
        return y, *gelu_backward(put(dy), saved, bias=added_to(b))

    return job


def embed(n, c, few):
    """Both tables and their gradients, which are in float32; `few` tokens, so they come often."""
    rng = np.random.default_rng(n)
    ids, positions = rng.integers(0, few, n), np.arange(n) % 7
    wte, wpe, dx = single(few + 2, c), single(7, c, seed=1), single(n, c, seed=2)
    before = single(few + 2, c, seed=3), single(7, c, seed=4)

    def job(put):
        x, saved = embedding(put(wte), put(wpe), ids, positions)
        library = array_module(x)
        on = exactly if library is np else library.asarray
        tables = [on(table.copy()) for table in before]
        embedding_backward(put(dx), saved, *tables)
        return x, *tables

    return job


def take(n, c, chosen):
    """Rows by their index, some of them twice."""
    x, rows = single(n, c), np.random.default_rng(n).integers(0, n, chosen)
    return lambda put: (take_rows(put(x), rows),)


def add_rows(n, c, size):
    """Sums of rows that share an index, which names some rows often and others never."""
    rng = np.random.default_rng(n)
    x, index, once = single(n, c), rng.integers(0, size, n), rng.permutation(size)[: n // 2]

    def job(put):
        rows = put(x)
        add = scatter_add if array_module(rows) is np else sums_of_rows
        return add(rows, index, size), scatter_rows(rows[: len(once)], once, size)

    return job


def learn(m, v):
    """The nll and the gradient of rows of logits."""
    rng = np.random.default_rng(m)
    logits = single(m, v, scale=3)
    logits[0, :: max(1, v // 3)] += 20  # one row that is nearly sure
    targets, weights = rng.integers(0, v, m), rng.random(m)
    weights[m // 2] = 0

    def job(put):
        for_loss, for_both = put(logits.copy()), put(logits.copy())
        without = nll_from_logits(for_loss, targets)
        return without, nll_and_dlogits(for_both, targets, weights), for_both

    return job


def learn_in_wider_rows(m, v, width):
    """Logits in rows with room behind them, whose gradient is 0; what stood there is NaN."""
    logits = np.full((m, width), np.nan, np.float32)
    logits[:, :v] = single(m, v, scale=3)
    targets, weights = np.arange(m, dtype=np.int32) * 5 % v, abs(single(m, seed=1))

    def job(put):
        memory = put(logits.copy())
        xp = array_module(memory)
        if xp is np:
            memory[:, v:] = 0
            return nll_and_dlogits(memory[:, :v], targets, weights), memory
        nll = xp.empty(m, np.float32)
        arrays = memory, xp.asarray(targets), xp.asarray(weights), nll
        launch_cross_entropy(*arrays, v=v, gradient=True)
        return nll, memory

    return job


def project(n, c, v, chunk):
    """The loss with its projection, in chunks; rows occur in several triples or in none."""
    rng = np.random.default_rng(n)
    rows, targets = rng.integers(0, n, 2 * n), rng.integers(0, v, 2 * n)
    weights = np.where(rng.random(2 * n) < 0.4, 0, rng.random(2 * n))
    x, wte, before = single(n, c), single(v, c, seed=1), single(v, c, seed=2)

    def job(put):
        dwte = put(before.copy())
        triples = rows, targets, weights
        results = cross_entropy_gradient(put(x), put(wte), *triples, dwte, chunk=chunk)
        return *results, dwte

    return job


def project_in_flat_arrays(n, c, v, chunk, accumulate):
    """The same with the table and its gradient at the beginning of flat arrays, as in a model.

    The gradient is in float32.  What stands behind it is not returned where it may be written.
    """
    rng = np.random.default_rng(n)
    rows, targets, weights = rng.integers(0, n, n), rng.integers(0, v, n), rng.random(n)
    x, flat, before = single(n, c), single((v + 70) * c, seed=1), single((v + 70) * c, seed=2)

    def job(put):
        parameters = put(flat)
        exact = array_module(parameters) is np
        gradients = exactly(before) if exact else array_module(parameters).asarray(before)
        wte, dwte = (a[: v * c].reshape(v, c) for a in (parameters, gradients))
        inputs = put(x), wte, rows, targets, weights
        alone = cross_entropy(*inputs, chunk=chunk)
        results = cross_entropy_gradient(*inputs, dwte, chunk=chunk, accumulate=accumulate)
        return *alone, *results, gradients if accumulate else dwte

    return job


def optimise(p, decayed, clip):
    """Three steps of AdamW."""
    theta, g, m = (single(p, seed=seed) for seed in range(3))
    settings = AdamW(clip=clip, weight_decay=0.3, eps=1e-6)

    def job(put):
        arrays = [put(theta.copy()), put(g), put(0.1 * m), put(0.01 * m * m)]
        copy = put(np.zeros_like(theta))
        for step in (1, 2, 3):
            update = Update(step, 0.01, decayed, settings, loss_scale=2.0)
            norm = adamw_flat(*arrays, update, copy=copy)
        theta_now, _, m_now, v_now = arrays
        return theta_now, m_now, v_now, copy, np.array([norm]) if isinstance(norm, float) else norm

    return job


ROWS_TAKEN = (1, 1, 1), (5, 12, 3), (9, 515, 20), (3, 1032, 6)
JOBS = {
    **{f"attention, {name}": attend(end, 2, 64) for name, end in FORESTS.items()},
    **{f"attention, heads of {d}": attend(DEEP, 3, d) for d in (32, 80, 128)},
    "attention, padding": attend_with_padding(DEEP, 150, 64),
    **{
        f"{kind}{name}": attend(FORESTS[name], 2, 64, blocks=blocks)
        for kind, blocks in ((LARGE, "large"), (STORED, "stored"))
        for name in ("one row", "deep", "an end in a tile", "an end after a tile")
    },
    f"{STORED}an end in half a tile": attend(
        FORESTS["an end in half a tile"], 1, 64, blocks="stored"
    ),
    **{f"{LARGE}heads of {d}": attend(DEEP, 3, d, blocks="large") for d in (32, 80, 128)},
    **{f"{STORED}heads of {d}": attend(DEEP, 3, d, blocks="stored") for d in (32, 80, 128)},
    f"{LARGE}padding": attend_with_padding(DEEP, 150, 64, blocks="large"),
    f"{STORED}padding": attend_with_padding(DEEP, 150, 64, blocks="stored"),
    **{
        f"layer_norm, {n} x {c}{'' if plain else ', with a residual'}": normalise(n, c, plain)
        for n, c, plain in ((1, 1, True), (3, 255, True), (5, 256, False), (300, 33, False))
    },
    "gelu, 3 x 264, a bias that begins anywhere": gate(3, 264, True, begin=1),
    **{f"layer_norm, {n} x {c}": normalise(n, c, False) for n, c in ((9, 136), (27, 1032))},
    "layer_norm, 2 x 2048": normalise(2, 2048, False),
    "layer_norm, 45 x 256, several turns": normalise(45, 256, False, multiprocessors=1),
    **{
        f"column_sums, {n} x {k}": sum_columns(n, k)
        for n, k in ((1, 1), (1, 8), (2, 515), (31, 128), (33, 520), (300, 264))
    },
    **{
        f"gelu, {n} x {f}": gate(n, f, bias)
        for n, f, bias in ((1, 1, False), (3, 1020, True), (2, 1028, True), (35, 130, True))
    },
    **{
        f"embedding, {n} x {c}": embed(n, c, few)
        for n, c, few in ((1, 4, 1), (40, 12, 3), (9, 516, 90))
    },
    **{f"embedding, {r} rows of {n} x {c}": take(n, c, r) for n, c, r in ROWS_TAKEN},
    **{
        f"sum_rows, {n} x {c} into {size}": add_rows(n, c, size)
        for n, c, size in ((2, 4, 1), (40, 12, 6), (9, 516, 30))
    },
    **{
        f"cross_entropy, {m} x {v}": learn(m, v)
        for m, v in ((1, 1), (3, 511), (2, 515), (2, 4104), (2, 50257))
    },
    **{
        f"cross_entropy, {m} x {v} in rows of {width}": learn_in_wider_rows(m, v, width)
        for m, v, width in ((3, 13, 16), (2, 14001, 14080), (3, 18, 19))
    },
    "cross_entropy with the projection": project(20, 12, 103, 7),
    **{
        f"cross_entropy in a model, {'added' if add else 'written'}": project_in_flat_arrays(
            20, 12, 103, 7, add
        )
        for add in (True, False)
    },
    **{
        f"adamw, {p} of which {decayed}": optimise(p, decayed, clip)
        for p, decayed, clip in (
            (1, 0, 1.0),
            (1027, 513, 0.0),
            (1028, 514, 0.0),
            (1028, 515, 0.0),
            (1028, 512, 0.0),
            (1031, 1029, 0.0),
            (4100, 4100, 1.0),
        )
    },
    **DECODING_JOBS,
    **LINEAR_JOBS,
}
