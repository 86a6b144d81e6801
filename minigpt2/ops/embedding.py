"""Embedding: a row of features for each token id, plus one for its position.

Why
    The network computes with features, not with ids.  The position's row is
    added because attention by itself does not see the order of the keys.

Definition, for row n with token id tₙ and position pₙ
    xₙ = wte[tₙ] + wpe[pₙ]                                   (3.1)
    wte has a row for each of the V ids, wpe for each of the T positions.

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    Looking up row v of a table is a product with a one-hot row.  With the Kronecker
    delta, δ(a, b) = 1 when a = b and 0 otherwise, (3.1) is
    xₙ = Σᵥ δ(tₙ, v) wte[v] + Σₚ δ(pₙ, p) wpe[p].  This is linear in both tables, and
    each row of a table may feed many rows n, so the gradients add over n:
    dwte[v] = Σₙ δ(tₙ, v) dxₙ                                (3.2)
    dwpe[p] = Σₙ δ(pₙ, p) dxₙ                                (3.3)

Read it
    The backward pass is a scatter-add: an id that occurs k times receives the sum of
    k gradients, and an id that does not occur receives zero.  Writing instead of
    adding would keep only the last of the k, and `table[ids] += dx` does just that,
    since NumPy reads all old rows before it writes the first new one.  So the rows
    are sorted by id, and each run of equal ids is summed:
    out[v] = Σ_{n : index[n] = v} rows[n]                    (3.4)
    The order of the additions is fixed, so results repeat bit for bit.

Example: token 2 occurs twice
    >>> wte, wpe = np.array([[0, 0], [1, 1], [2, 2]]), np.array([[10, 0], [20, 0], [30, 0]])
    >>> ids, positions = np.array([2, 0, 2]), np.array([0, 1, 2])
    >>> print(embedding(wte, wpe, ids, positions)[0].tolist())  # (3.1)
    [[12, 2], [20, 0], [32, 2]]
    >>> dx = np.array([[1, 2], [3, 4], [5, 6]])
    >>> print(scatter_add(dx, ids, size=3).tolist())  # (3.2): token 2 receives (1 + 5, 2 + 6)
    [[3, 4], [0, 0], [6, 8]]
    >>> wrong = np.zeros((3, 2), int)
    >>> wrong[ids] += dx
    >>> print(wrong.tolist())
    [[3, 4], [0, 0], [5, 6]]

Cost
    N·C additions forward.  Backward at most 4·N·C additions and two sorts of N
    indices.  The sums are added to the tables' gradients in place, since fresh tables
    of (V + T)·C numbers would be larger than any other array of a step.  Keeps the
    ids and positions.
"""

from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, accumulation_dtype, array_module, fusible


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    ids: Array  # (N,)
    positions: Array  # (N,)


@fusible
def take_rows(x: Array, rows: Array) -> Array:
    """Return the rows `rows` (R,) of x (N, C), as (R, C)."""
    return x[array_module(x).asarray(rows)]


def chosen_rows(rows: Array | None, *arrays: Array) -> tuple[Array, ...]:
    """Return the rows `rows` (R,) of arrays (N, C); without `rows`, the arrays themselves."""
    return arrays if rows is None else tuple(take_rows(array, rows) for array in arrays)


@fusible
def scatter_rows(gradient: Array, rows: Array | None, n: int) -> Array:
    """Return an array (N, C) of n rows: those of a gradient (R, C) at `rows` (R,), 0 elsewhere.

    Each row is named once.  Without `rows` this is the gradient itself.
    """
    if rows is None:
        return gradient
    return scatter_add(gradient, rows, n).astype(gradient.dtype, copy=False)


def scatter_add(rows: Array, index: Array, size: int) -> Array:
    """Sum the rows (N, C) that share an index (N,) into a fresh table (size, C)."""
    table = array_module(rows).zeros((size, rows.shape[1]), accumulation_dtype(rows.dtype))
    add_at(table, rows, index)
    return table


@fusible
def add_at(table: Array, rows: Array, index: Array) -> None:
    """Add rows (N, C) to those rows of the table (size, C) that the index (N,) names."""
    if not len(index):
        return
    xp = array_module(rows)
    order = np.argsort(index, kind="stable")  # (N,)
    index = index[order]  # (N,)
    starts = np.flatnonzero(np.append(True, index[1:] != index[:-1]))
    runs = xp.add.reduceat(rows[xp.asarray(order)], xp.asarray(starts))
    table[xp.asarray(index[starts])] += runs  # (3.4)


@fusible
def embedding(wte: Array, wpe: Array, ids: Array, positions: Array) -> tuple[Array, Saved]:
    """Look up wte (V, C) at ids (N,) and wpe (T, C) at positions (N,); returns x (N, C)."""
    xp = array_module(wte)
    x = wte[xp.asarray(ids)]  # (N, C)  (3.1)
    x += wpe[xp.asarray(positions)]  # (N, C)  (3.1)
    return x, Saved(ids, positions)


def embedding_backward(dx: Array, saved: Saved, dwte: Array | None, dwpe: Array | None) -> None:
    """Add the tables' gradients for dL/dx (N, C) to dL/dwte (V, C) and dL/dwpe (T, C).

    A frozen table has None for its gradient.
    """
    if dwte is not None:
        add_at(dwte, dx, saved.ids)  # (3.2)
    if dwpe is not None:
        add_at(dwpe, dx, saved.positions)  # (3.3)
