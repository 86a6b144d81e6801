"""Fused loss: cross-entropy with its projection, in products whose rows begin at aligned addresses.

NVIDIA's products of 16-bit numbers are six times as fast if the rows of every matrix begin at
multiples of 16 bytes, and V = 50,257 is odd.  So a row of logits has W ≥ V places, a multiple of
64.  Where the table lies in a larger array, as wte does at the beginning of all parameters, the
rows behind it stand in for the W − V rows that it lacks: their logits are never read, and their
gradient is exactly 0.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.device.fused_cross_entropy import launch_cross_entropy
from minigpt2.device.fused_rows import sums_of_rows
from minigpt2.device.indices import index_on, is_staged, weights_on
from minigpt2.device.launch import fits
from minigpt2.device.products import matmul
from minigpt2.device.side_stream import on_side_stream, wait_for_side_stream
from minigpt2.ops.cross_entropy import weighted_sum
from minigpt2.ops.embedding import take_rows

ALIGNED = 64  # numbers; rows are a multiple of this
CHUNK = 50 << 20  # logits of a chunk, as many in float32: with fewer rows products are slower


def cross_entropy(
    x: Array,
    wte: Array,
    rows: Array,
    targets: Array,
    weights: Array,
    *,
    chunk: int | None = None,
) -> Any:
    """Return ℒ and the nll (M,) of x (N, C) and wte (V, C), (9.1) to (9.4)."""
    xp, m = array_module(x), len(rows)
    nll, unused = xp.empty(m, xp.float32), xp.zeros(m, xp.float32)
    ids = index_on(xp, targets)
    for part, _, logits in logit_chunks(x, wte, rows, chunk):
        arrays = logits, ids[part], unused[part], nll[part]
        launch_cross_entropy(*arrays, v=len(wte), gradient=False)  # (9.2) (9.3)
    return weighted_sum(weights, nll), nll


def cross_entropy_gradient(
    x: Array,
    wte: Array,
    rows: Array,
    targets: Array,
    weights: Array,
    dwte: Array | None,
    *,
    chunk: int | None = None,
    accumulate: bool = True,
) -> Any:
    """Return ℒ, the nll (M,) and dL/dx (N, C); add dL/dwte to dwte (V, C), (9.1) to (9.9).

    The triples of a staged batch all count, and it needs no ℒ: None.
    """
    if not fits("sum_rows", C=x.shape[1]):
        return NotImplemented
    xp = array_module(x)
    used = np.arange(len(rows)) if is_staged(rows) else np.flatnonzero(weights)
    if len(used) < len(rows):
        rows, targets, chosen = rows[used], targets[used], weights[used]
    else:
        chosen = weights
    nll = xp.empty(len(used), xp.float32)
    dx_used = xp.empty((len(used), x.shape[1]), x.dtype)
    ids, w = index_on(xp, targets), weights_on(xp, chosen)
    if dwte is not None and not accumulate and not len(used):
        dwte.fill(0)
    for part, x_n, logits in logit_chunks(x, wte, rows, chunk):
        arrays = logits, ids[part], w[part], nll[part]
        launch_cross_entropy(*arrays, v=len(wte), gradient=True)  # (9.2) to (9.7)
        table = with_rows_behind(wte, logits.shape[1])
        dlogits = logits[:, : len(table)]
        if dwte is not None:
            add = accumulate or part.start > 0
            into = with_rows_behind(dwte, len(table))
            turned = dlogits[:, : len(into)]
            with on_side_stream(xp, turned, x_n):
                matmul(turned, x_n, transpose_x=True, out=into, accumulate=add)  # (9.8)
        matmul(dlogits, table, out=dx_used[part])  # (9.9)
        wait_for_side_stream(xp)  # the next chunk's logits will be in the same memory
    dx = sums_of_rows(dx_used, rows, len(x))  # (9.9)
    if is_staged(rows):
        return None, nll, dx
    every = nll
    if len(used) < len(weights):
        every = xp.zeros(len(weights), xp.float32)
        every[xp.asarray(used)] = nll
    return weighted_sum(weights, every), every, dx


def logit_chunks(
    x: Array, wte: Array, rows: Array, chunk: int | None
) -> Iterator[tuple[slice, Array, Array]]:
    """Yield for each chunk of triples its slice, its rows of x (B, C), and their logits (B, W).

    What stands in a row behind the logits of the table is not a logit.  All chunks share one
    memory.
    """
    xp, width = array_module(x), -(-len(wte) // ALIGNED) * ALIGNED
    table = with_rows_behind(wte, width)
    most = chunk or max(1, CHUNK // width)
    chunk = -(-len(rows) // max(1, -(-len(rows) // most)))  # all chunks of nearly one size
    memory = xp.empty((chunk, width), x.dtype)
    if len(table) < width:
        memory.fill(0)  # an access reads the numbers behind the last logit, too
    index = index_on(xp, rows)
    for start in range(0, len(rows), chunk):
        part = slice(start, min(start + chunk, len(rows)))
        x_n = take_rows(x, index[part])  # (B, C)
        logits = memory[: len(x_n)]
        matmul(x_n, table, transpose_w=True, out=logits[:, : len(table)])  # (9.1)
        yield part, x_n, logits


def with_rows_behind(table: Array, rows: int) -> Array:
    """Return `rows` rows from the table's address on, where its array is so long; else it.

    The head comes first in a step's backward pass.  So nobody has put a gradient behind that of
    the table yet, if this one is written and not added.
    """
    flat, size = table.base, rows * table.shape[1]
    first = flat is not None and flat.ndim == 1 and flat.dtype == table.dtype
    if first and flat.data.ptr == table.data.ptr and flat.size >= size:
        return flat[:size].reshape(rows, -1)
    return table
