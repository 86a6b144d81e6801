"""Attention's blocks: how many rows each has, and what kernels must know of a forest.

On tensor cores a block owns rows of one head and loops over the tiles that they see.  Large blocks
read each tile for more rows.  But few rows make few large blocks, fewer than a GPU has places for,
and then small ones are faster.  µs on an NVIDIA H200, in bfloat16, heads of 64 features:

    rows x heads                dq: large  small      dkv: large  small
    8 sequences, 8,184 x 12          90.8  102.4            99.5  139.0
    4 sequences, 4,096 x 20          74.4   79.4            79.1  112.9
    32 examples, 997 x 12            12.6    9.1            36.7   16.6

An H200 has 132 multiprocessors, each with places for two large blocks of dq, with 128 rows, or
four of dkv, with 64.  Both times 33,792 rows of a head fill it.  So blocks are small below
SMALL_BELOW rows times heads; between the rows of this table nothing was measured.

With large blocks, dkv can store ds in memory, and dq is then one product and not three
(kernels/stored_ds.cuh).  In the first row dq takes 1.8 ps for each query and key of a head that see
each other.  Stored, ds has 1.2 times as many, as tiles are whole: 2.3 bytes to write, which dkv may
hide, and 2.3 to read; with k, dq, and Δ's o and do it is 5.7 bytes, or 1.3 ps at the 4.28 · 10¹²
bytes a second of a copy on an H200.  An H100 computes as much and copies 3 · 10¹²: 1.9 ps, less
what dkv hides, so it may lose.  Hence ds is stored where memory is about as fast as an H200's.
This is a prediction: storing was not measured.

What the kernels must know of a forest depends on its `end` alone, and its size on N alone.  So it
is computed once a step, on the host, and sent in one copy.
"""

from math import ceil
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array

TILE = 64  # keys of a tile on tensor cores
FORWARD_ROWS = 64  # queries of a block of attention_mma_forward
SMALL_BELOW = 32768  # rows times heads
FAST_MEMORY = 4e12  # bytes a second, by the data sheet, from which on ds is stored
SLAB_QUERIES = 32  # of a slab of ds, whose keys are a tile's
SLAB = SLAB_QUERIES * TILE  # numbers
TILES, QUERIES, KEYS = (TILE, 32, 16), (32, 64, 128), (32, 64)  # rows, of which there are tables
ALIGNED = 32  # numbers: each table begins at a multiple of 128 bytes
Sizes = dict[str, int]


def are_small(n: int, n_head: int) -> bool:
    """Return whether the backward pass over N rows takes small blocks."""
    return n * n_head < SMALL_BELOW


def stores_ds(n: int, n_head: int, memory_rate: float) -> bool:
    """Return whether ds is stored in the backward pass over N rows, with memory of this rate."""
    return not are_small(n, n_head) and memory_rate >= FAST_MEMORY


def simple_rows(d: int) -> int:
    """Return the rows that a block of attention_threads.cuh owns for D features."""
    return 64 if d <= 64 else 32


def simple_tile(d: int, backward: bool) -> int:
    """Return the rows of a tile that it meets."""
    if backward:
        return 32 if d <= 80 else 16
    return 64 if d <= 64 else 32


def dq_rows(d: int, small: bool) -> int:
    """Return the queries of a block of attention_mma_dq for D features."""
    return 64 if small or d > 80 else 128


def dkv_rows(small: bool) -> int:
    """Return the keys of a block of attention_mma_dkv."""
    return 32 if small else 64


def dkv_stage(d: int, small: bool) -> int:
    """Return the queries that a block of attention_mma_dkv copies at once."""
    if small:
        return 128 if d <= 64 else 64
    return 64 if d <= 80 else 32


def forward_shared(n: Sizes, size: int) -> int:
    """Return the bytes of a block's queries, and of two tiles of keys, values and ends."""
    return size * n["D"] * (FORWARD_ROWS + 4 * TILE) + 8 * TILE


def dq_shared(n: Sizes, size: int, small: bool) -> int:
    """Return the same with do and Δ next to the queries."""
    rows = dq_rows(n["D"], small)
    return size * n["D"] * (2 * rows + 4 * TILE) + 8 * TILE + 4 * rows


def dkv_shared(n: Sizes, size: int, small: bool) -> int:
    """Return the bytes of a block's keys and values, with a number each, and of two stages."""
    rows, stage = dkv_rows(small), dkv_stage(n["D"], small)
    return size * n["D"] * (2 * rows + 4 * stage) + 16 * stage + 4 * rows


def dq_stored_shared(n: Sizes, size: int) -> int:
    """Return the bytes of two tiles of keys, and of a block's ds in them."""
    return size * 2 * TILE * (dq_rows(n["D"], small=False) + n["D"])


def simple_shared(n: Sizes, size: int, backward: bool) -> int:
    """Return the bytes of a block without tensor cores: all numbers have 4, whatever `size` is."""
    d, own, met = n["D"], simple_rows(n["D"]), simple_tile(n["D"], backward)
    own_numbers, met_numbers = (2 * own * d, 3 * met + own) if backward else (own * d, 2 * met)
    return 4 * (own_numbers + 2 * met * (d + 4) + 16 * (own + 4) + met_numbers)


class ForestTables(NamedTuple):
    """What the kernels must know of a forest: integers of 32 bits, all in one array.

    Tables of tiles and of blocks are listed by how many rows these have.
    """

    flat: Array  # all of them, one after the other
    end: Array  # (N,)
    min_end: Array  # (T,) the smallest end in each tile of 64 keys
    max_end: dict[int, Array]  # the largest end in each tile of keys
    queries: dict[int, Array]  # the blocks of queries, those that see most tiles first
    keys: dict[int, Array]  # the blocks of keys, those that most queries see first
    start: Array  # (T,) the slabs of ds before those of each tile of 64 keys
    slabs: int  # all slabs of ds, or more: those that there is room for


def tables_in(flat: Array, n: int, slabs: int) -> ForestTables:
    """Return the tables of a forest of N rows as views of the array that holds them."""
    start = 0

    def table(rows: int) -> Array:
        nonlocal start
        first, length = start, ceil(n / rows)
        start += ALIGNED * ceil(length / ALIGNED)
        return flat[first : first + length]

    end, min_end = table(1), table(TILE)
    largest = {rows: table(rows) for rows in TILES}
    queries = {rows: table(rows) for rows in QUERIES}
    keys = {rows: table(rows) for rows in KEYS}
    starts = table(TILE)
    return ForestTables(flat[:start], end, min_end, largest, queries, keys, starts, slabs)


def size_of_tables(n: int) -> int:
    """Return how many integers the tables of a forest of N rows have."""
    rows = (1, TILE, *TILES, *QUERIES, *KEYS, TILE)
    return sum(ALIGNED * ceil(n / (ALIGNED * each)) for each in rows)


def forest_tables(end: Array) -> ForestTables:
    """Compute the tables of the forest of `end` (N,), on the host."""
    end = np.asarray(end)
    n = len(end)
    tables = tables_in(np.zeros(size_of_tables(n), np.int32), n, slabs=0)
    tables.end[:] = end
    for rows, max_end in tables.max_end.items():
        max_end[:] = np.maximum.reduceat(end, np.arange(0, n, rows)) if n else 0
    tables.min_end[:] = np.minimum.reduceat(end, np.arange(0, n, TILE)) if n else 0
    for rows, order in tables.queries.items():
        first = np.arange(0, n, rows)[:, None]
        last_tile = (np.minimum(first + rows, n) - 1) // TILE
        seen = tables.max_end[TILE] > first  # by (8.21)
        seen &= np.arange(seen.shape[1]) <= last_tile
        order[:] = np.argsort(-seen.sum(1), kind="stable")
    for rows, order in tables.keys.items():
        first = np.arange(0, n, rows)
        furthest = np.maximum.reduceat(end, first) if n else first
        order[:] = np.argsort(first - furthest, kind="stable")
    queries = np.maximum(tables.max_end[TILE] - np.arange(0, n, TILE), 0)
    slabs = -(-queries // SLAB_QUERIES)
    tables.start[:] = np.cumsum(slabs) - slabs
    return tables._replace(slabs=int(slabs.sum()))
