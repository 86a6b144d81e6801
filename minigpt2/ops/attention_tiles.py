"""Tiles of attention: which keys a block of queries meets, and what each core computes.

The matrix of all pairs is cut into tiles: blocks of queries by blocks of keys.  A block of queries
meets every key that one of its rows sees, by (8.1), and ends where a leaf ends if it can.  So up to
twice as many pairs are computed as are visible where segments have half a block or more, and about
as many where a long beginning is shared.  Short segments that share nothing are another matter: of
5 rows each, a block has 20 times as many.

The forest of ops/attention in blocks of at most four rows; * marks a tile whose pairs are all
visible.  No query of rows 4 to 6 meets a key after 6, and rows 7 and 8 skip keys 3 to 6:

    >>> end = np.array([8, 8, 8, 7, 7, 7, 7, 8, 9])
    >>> row = np.arange(9)
    >>> for rows in query_blocks(end, 4):
    ...     tiles = [(row[keys], visible) for keys, visible in key_blocks(end, rows, 4)]
    ...     print(row[rows], *(f"{keys}*" if visible is None else keys for keys, visible in tiles))
    [0 1 2 3] [0 1 2 3]
    [4 5 6] [3 4 5 6] [0 1 2]*
    [7 8] [0 1 2 7 8]

All layers of a step ask for the same plan, so it is made once.  It holds one number for each pair
of a tile that is visible in part, so B numbers a row in a long sequence.

On a CPU, going forward, blocks of queries write to different rows, so each core takes one after the
other, all heads at once.  Going backward they add to the same rows of dk and dv, so each core takes
a share of the heads instead, G of them.  Meanwhile each core makes its own matrix products, so a
block may be as large as its cache allows: up to 128 rows, and as many pairs as 128 by 128.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array


def query_blocks(end: Array, block: int) -> list[slice]:
    """Split the rows of a forest into slices of at most `block`, at ends of leaves if possible.

    Row i is the last of a leaf iff end[i] = i + 1; rows up to the next one are a run.  A run that
    is longer than a block is cut evenly.  Runs share a slice only up to half a block: no row of
    one sees the other's, so their pairs are computed for nothing.
    """
    slices, start = [], 0
    stops = (np.flatnonzero(end == np.arange(1, len(end) + 1)) + 1).tolist()
    for stop, after in pairwise([*stops, np.inf]):
        if after - start > block // 2:
            pieces = -(-(stop - start) // block)
            step = -(-(stop - start) // pieces)
            slices += [slice(i, min(i + step, stop)) for i in range(start, stop, step)]
            start = stop
    return slices


def key_blocks(
    end: Array, rows: slice, block: int, xp: ModuleType = np
) -> Iterator[tuple[Any, Array | None]]:
    """Yield the blocks of keys that some query of the slice `rows` sees; its own rows come first.

    Row j is such a key iff j < rows.stop and end[j] > rows.start.  Each block is (keys, visible).
    Keys are a slice where they are contiguous, else an array of indices of the library xp; at most
    block² pairs come at once.  `visible` (B, K) says which pairs are, and is None when all are.
    """
    seen = np.flatnonzero(end[: rows.stop] > rows.start)
    i = np.arange(rows.start, rows.stop)[:, None]
    pieces = -(-len(seen) // (block**2 // len(i)))
    step = max(len(i), -(-len(seen) // pieces))
    for stop in range(len(seen), 0, -step):
        j = seen[max(0, stop - step) : stop]
        visible = (j <= i) & (i < end[j])  # (B, K)  (8.1)
        contiguous = j[-1] - j[0] + 1 == len(j)
        keys = slice(j[0], j[-1] + 1) if contiguous else xp.asarray(j)
        yield keys, None if visible.all() else visible


class QueryBlock(NamedTuple):
    """A block of query rows, and the blocks of keys that it sees."""

    rows: slice
    tiles: list[tuple[Any, Array | None]]  # keys, and the mask that is added to their scores


def tile_plan(end: Array, block: int, xp: ModuleType, dtype: Any) -> list[QueryBlock]:
    """Return every block of queries with the keys it sees, and masks to add to the scores.

    A mask (B, K) is 0 for a visible pair and −∞ for another, and None when all pairs are visible:
    adding is many times faster than choosing.  All layers ask for the same plan, so it is kept.
    """
    return cached_tile_plan(np.asarray(end, np.int64).tobytes(), block, xp, dtype)


@lru_cache(2)
def cached_tile_plan(end_bytes: bytes, block: int, xp: ModuleType, dtype: Any) -> list[QueryBlock]:
    """Return the plan for the bytes of `end`, which a cache can compare and an array cannot."""
    end = np.frombuffer(end_bytes, np.int64)

    def mask_of(visible: Array | None) -> Array | None:
        if visible is None:
            return None
        return xp.asarray(np.where(visible, 0, -np.inf).astype(dtype))  # (8.1)

    return [
        QueryBlock(
            rows, [(keys, mask_of(visible)) for keys, visible in key_blocks(end, rows, block, xp)]
        )
        for rows in query_blocks(end, block)
    ]


def dropout_rng(seed: int, rows: slice) -> np.random.Generator:
    """Return the generator that draws z for a block of query rows, for all heads.

    The 1 keeps the stream of row 0 apart from that of the seed alone, which model/block uses.
    """
    return np.random.default_rng([seed, rows.start, 1])


def head_groups(n_head: int, groups: int) -> list[slice]:
    """Split the heads into at most so many slices, as even as possible."""
    step = -(-n_head // groups)
    return [slice(i, min(i + step, n_head)) for i in range(0, n_head, step)]


def scores(q: Array, k: Array, mask: Array | None) -> Array:
    """Return q kᵀ + mask (G, B, K) for q (G, B, D), already divided by τ, and k (G, K, D)."""
    s = q @ k.transpose(0, 2, 1)  # (G, B, K)  (8.2)
    if mask is not None:
        s += mask  # (8.1)
    return s
