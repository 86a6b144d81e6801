"""Fused attention: attention's kernels in place of its formula, on a device.

There are two sets: attention_mma*.cu for tensor cores, the others for all else; attention_delta.cu
serves both.  They need tables of the forest (attention_blocks), which are the same for all layers
of a step and are sent once.
"""

from math import sqrt
from types import ModuleType
from typing import Any, NamedTuple

from minigpt2.backend import Array, array_module
from minigpt2.device import attention_blocks as blocks
from minigpt2.device.attention_blocks import ForestTables, forest_tables, tables_in
from minigpt2.device.fused_columns import memory_rate
from minigpt2.device.launch import fits, launch
from minigpt2.device.side_stream import on_side_stream, wait_for_side_stream
from minigpt2.ops.attention import Saved


class ForestCache:
    """The last forest that was copied to the device: all layers of a step attend over the same."""

    def __init__(self) -> None:
        self.end: Array = None
        self.on_device: dict[ModuleType, ForestTables] = {}  # by library

    def get(self, library: ModuleType, end: Array) -> ForestTables:
        """Return the tables of the forest of `end` (N,) on the device."""
        if end is not self.end:
            self.end, self.on_device = end, {}
        if library not in self.on_device:
            tables = forest_tables(end)
            flat = library.asarray(tables.flat)
            self.on_device[library] = tables_in(flat, len(end), tables.slabs)
        return self.on_device[library]

    def put(self, end: Array, tables: ForestTables) -> None:
        """Take `tables`, which are on a device, for those of the forest of `end`.

        Only while the same array `end` is passed to attention.
        """
        self.end, self.on_device = end, {array_module(tables.flat): tables}


FORESTS = ForestCache()


def on_tensor_cores(library: ModuleType, dtype: Any) -> bool:
    """Return whether tensor cores attend: they need numbers of 16 bits, and sm_80 or later."""
    return dtype.itemsize == 2 and int(library.cuda.Device().compute_capability) >= 80


def ds_is_stored(library: ModuleType, dtype: Any, n: int, n_head: int) -> bool:
    """Return whether the backward pass over N rows stores the gradients of scores."""
    stored = blocks.stores_ds(n, n_head, memory_rate(library))
    return stored and on_tensor_cores(library, dtype)


def attention(
    qkv: Array,
    end: Array,
    n_head: int,
    dropout: float = 0.0,
    seed: int = 0,
    block: int = 128,
    divisor: float | None = None,
) -> Any:
    """Attend over the forest of `end` (N,), (8.1) to (8.11); returns o (N, C) and what it saves.

    NotImplemented with dropout, and for a head size that no kernel is compiled for.
    """
    xp, n, d = array_module(qkv), len(qkv), qkv.shape[1] // (3 * n_head)
    if dropout or not fits("attention_forward", D=d):
        return NotImplemented
    o, lse = xp.empty((n, n_head, d), qkv.dtype), xp.empty((n_head, n), xp.float32)
    heads, forest = qkv.reshape(n, 3, n_head, d), FORESTS.get(xp, end)
    divisor = sqrt(d) if divisor is None else divisor
    scale = 1 / divisor
    if on_tensor_cores(xp, qkv.dtype):
        tables = forest.max_end[blocks.TILE], forest.min_end, forest.queries[blocks.FORWARD_ROWS]
        launch(xp, "attention_mma_forward", heads, forest.end, *tables, o, lse, scale=scale)
    else:
        max_end = forest.max_end[blocks.simple_tile(d, backward=False)]
        order = forest.queries[blocks.simple_rows(d)]
        launch(xp, "attention_forward", heads, forest.end, max_end, order, o, lse, scale=scale)
    o = o.reshape(n, n_head * d)
    return o, Saved(qkv, end, o, lse[..., None], n_head, dropout, seed, block, divisor)


class BackwardArrays(NamedTuple):
    """What the kernels of a backward pass read and write."""

    qkv: Array  # (N, 3, H, D)
    o: Array  # (N, H, D)
    d_o: Array  # (N, H, D)
    lse: Array  # (H, N) λ
    delta: Array  # (H, N) Δ, which one kernel writes and others read
    dqkv: Array  # (N, 3, H, D) the result


def attention_backward(do: Array, saved: Saved) -> Any:
    """Turn dL/do (N, C) into dL/dqkv (N, 3C), (8.12) to (8.20)."""
    xp, h, (n, c) = array_module(do), saved.n_head, do.shape
    d = c // h
    if saved.dropout or not fits("attention_forward", D=d):
        return NotImplemented
    arrays = BackwardArrays(
        qkv=saved.qkv.reshape(n, 3, h, d),
        o=saved.o.reshape(n, h, d),
        d_o=do.reshape(n, h, d),
        lse=saved.lse.reshape(h, n),
        delta=xp.empty((h, n), xp.float32),
        dqkv=xp.empty((n, 3, h, d), do.dtype),
    )
    if not on_tensor_cores(xp, do.dtype):
        way = without_tensor_cores
    elif ds_is_stored(xp, do.dtype, n, h):
        way = with_ds_stored
    else:
        way = with_scores_made_twice
    way(xp, arrays, FORESTS.get(xp, saved.end), 1 / saved.divisor)
    return arrays.dqkv.reshape(n, 3 * c)


def with_ds_stored(
    library: ModuleType, a: BackwardArrays, forest: ForestTables, scale: float
) -> None:
    """Fill dqkv on tensor cores: ds for dk and dv, and then one product for dq."""
    _, n_head, d = a.o.shape
    ds = library.empty((forest.slabs, n_head, blocks.SLAB), a.qkv.dtype)
    queries, keys = forest.queries[blocks.dq_rows(d, False)], forest.keys[blocks.dkv_rows(False)]
    launch(library, "attention_delta", a.o, a.d_o, a.delta)
    of_keys = a.qkv, a.d_o, forest.end, keys, a.lse, a.delta, a.dqkv, forest.start, ds
    launch(library, "attention_mma_dkv_stored", *of_keys, scale=scale)
    of_queries = a.qkv, forest.max_end[blocks.TILE], queries, forest.start, ds, a.dqkv
    launch(library, "attention_mma_dq_stored", *of_queries, scale=scale)


def with_scores_made_twice(
    library: ModuleType, a: BackwardArrays, forest: ForestTables, scale: float
) -> None:
    """Fill dqkv on tensor cores: the scores, p and ds for dq and again for dk and dv."""
    n, n_head, d = a.o.shape
    small = blocks.are_small(n, n_head)
    variant = "_small" if small else ""
    queries, keys = forest.queries[blocks.dq_rows(d, small)], forest.keys[blocks.dkv_rows(small)]
    seen = forest.end, forest.max_end[blocks.TILE], forest.min_end, queries
    of_queries = a.qkv, a.o, a.d_o, *seen, a.lse, a.delta, a.dqkv
    launch(library, f"attention_mma_dq{variant}", *of_queries, scale=scale)
    of_keys = a.qkv, a.d_o, forest.end, keys, a.lse, a.delta, a.dqkv, None, None
    launch(library, f"attention_mma_dkv{variant}", *of_keys, scale=scale)


def without_tensor_cores(
    library: ModuleType, a: BackwardArrays, forest: ForestTables, scale: float
) -> None:
    """Fill dqkv in float arithmetic; dq next to dk and dv, where there is a side stream."""
    d = a.o.shape[-1]
    own, met = blocks.simple_rows(d), blocks.simple_tile(d, backward=True)
    outputs = a.lse, a.delta, a.dqkv
    launch(library, "attention_delta", a.o, a.d_o, a.delta)
    of_queries = forest.end, forest.max_end[met], forest.queries[own]
    with on_side_stream(library, a.qkv, a.d_o, a.lse, a.delta):
        launch(library, "attention_dq", a.qkv, a.d_o, *of_queries, *outputs, scale=scale)
    of_keys = forest.end, forest.max_end[own], forest.keys[own]
    launch(library, "attention_dkv", a.qkv, a.d_o, *of_keys, *outputs, scale=scale)
    wait_for_side_stream(library)  # dq is a part of dqkv
