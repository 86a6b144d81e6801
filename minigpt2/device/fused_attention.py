"""Fused attention: attention's kernels in place of its formula, on a device.

There are two sets: attention_mma*.cu for tensor cores, the others for all else.  Both need tables
of the forest (attention_blocks), which are the same for all layers of a step.  They are sent once.
"""

from math import sqrt
from types import ModuleType
from typing import Any

from minigpt2.backend import Array, array_module
from minigpt2.device import attention_blocks as blocks
from minigpt2.device.attention_blocks import ForestTables, forest_tables, tables_in
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
            flat = library.asarray(forest_tables(end).flat)
            self.on_device[library] = tables_in(flat, len(end))
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


def attention_backward(do: Array, saved: Saved) -> Any:
    """Turn dL/do (N, C) into dL/dqkv (N, 3C), (8.12) to (8.20)."""
    xp, h, (n, c) = array_module(do), saved.n_head, do.shape
    d = c // h
    if saved.dropout or not fits("attention_forward", D=d):
        return NotImplemented
    forest, scale = FORESTS.get(xp, saved.end), 1 / saved.divisor
    dqkv, delta = xp.empty((n, 3, h, d), do.dtype), xp.empty((h, n), xp.float32)
    qkv, d_o = saved.qkv.reshape(n, 3, h, d), do.reshape(n, h, d)
    o, lse = saved.o.reshape(n, h, d), saved.lse.reshape(h, n)
    outputs = lse, delta, dqkv
    if on_tensor_cores(xp, do.dtype):
        small = blocks.are_small(n, h)
        variant = "_small" if small else ""
        queries, keys = (
            forest.queries[blocks.dq_rows(d, small)],
            forest.keys[blocks.dkv_rows(small)],
        )
        seen = forest.end, forest.max_end[blocks.TILE], forest.min_end, queries
        launch(xp, f"attention_mma_dq{variant}", qkv, o, d_o, *seen, *outputs, scale=scale)
        seen_by = forest.end, keys
        launch(xp, f"attention_mma_dkv{variant}", qkv, d_o, *seen_by, *outputs, scale=scale)
    else:
        launch(xp, "attention_delta", o, d_o, delta)
        own = blocks.simple_rows(d)
        max_end = forest.max_end[blocks.simple_tile(d, backward=True)]
        of_queries = forest.end, max_end, forest.queries[own]
        with on_side_stream(xp, qkv, d_o, lse, delta):
            launch(xp, "attention_dq", qkv, d_o, *of_queries, *outputs, scale=scale)
        of_keys = forest.end, forest.max_end[own], forest.keys[own]
        launch(xp, "attention_dkv", qkv, d_o, *of_keys, *outputs, scale=scale)
        wait_for_side_stream(xp)  # dq is a part of dqkv
    return dqkv.reshape(n, 3 * c)
