"""Fused rows: looking rows up by index, and adding up those that share one."""

from typing import Any

from minigpt2.backend import Array, array_module
from minigpt2.device.indices import index_on, order_on, runs_on, starts_on
from minigpt2.device.launch import fits, launch
from minigpt2.ops.embedding import Saved


def embedding(wte: Array, wpe: Array, ids: Array, positions: Array) -> Any:
    """Look up wte (V, C) at ids (N,) and wpe (T, C) at positions (N,), (3.1); returns x (N, C)."""
    xp = array_module(wte)
    x = xp.empty((len(ids), wte.shape[1]), wte.dtype)
    launch(xp, "embedding_forward", wte, wpe, index_on(xp, ids), index_on(xp, positions), x)
    return x, Saved(ids, positions)


def take_rows(x: Array, rows: Array) -> Any:
    """Return the rows `rows` (R,) of x (N, C), as (R, C)."""
    xp = array_module(x)
    out = xp.empty((len(rows), x.shape[1]), x.dtype)
    launch(xp, "gather_rows", x, index_on(xp, rows), out)
    return out


def add_at(table: Array, rows: Array, index: Array) -> Any:
    """Add rows (N, C) to those rows of the table that the index (N,) names, in order, (3.4)."""
    if not fits("embedding_backward", C=rows.shape[1]):
        return NotImplemented
    if len(index):
        xp = array_module(table)
        order, runs = order_on(xp, index), runs_on(xp, index)
        launch(xp, "embedding_backward", rows, index_on(xp, index), order, runs, table)
    return None


def scatter_rows(gradient: Array, rows: Array | None, n: int) -> Any:
    """Return an array (N, C) of n rows: those of a gradient (R, C) at `rows` (R,), 0 elsewhere."""
    return gradient if rows is None else sums_of_rows(gradient, rows, n)


def sums_of_rows(x: Array, index: Array, size: int) -> Any:
    """Return the sums (size, C) of the rows of x (N, C) that share an index (N,), (3.4)."""
    if not fits("sum_rows", C=x.shape[1]):
        return NotImplemented
    xp = array_module(x)
    out = xp.empty((size, x.shape[1]), x.dtype)
    launch(xp, "sum_rows", x, order_on(xp, index), starts_on(xp, index, size), out)
    return out
