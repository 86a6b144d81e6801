"""Parallel work: rows in blocks that fit in cache, products in tiles, and a thread for each core.

Why
    Element-wise formulas make several passes over their rows.  On a CPU those passes are cheap
    when a block of rows stays in cache from the first pass to the last, so such an op hands its
    formula to `map_rows`, which runs it block by block.  Each core takes the next block when it
    has finished its last (NumPy releases the interpreter's lock while it computes).  Threads wake
    once for all the blocks, not once for each: waking costs more than a block.  On a GPU the
    formula sees all rows at once.

    Other programs want the cores, too.  A helper thread whose core is taken may begin late, after
    milliseconds.  So nobody waits for it: the thread that wants the result does all blocks that
    no helper has begun.

    OpenBLAS does wait.  It cuts a product into one piece for each of its threads, in advance, and
    spins until the last one is done: with another program on one of two cores, a product of 0.2 ms
    took up to 15 ms.  So `matmul` cuts a large product itself, into tiles that are blocks like all
    others, each one OpenBLAS's work on one thread (`blas`).  A small product is the caller's alone.
    What is cut, and where, depends on the shapes and the number of cores, so the results are the
    same bits whoever computes the tiles.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import product
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.blas import openblas, single_threaded_blas

BLOCK_BYTES = 1 << 20  # of one array in one block of rows: a few such blocks fit in a core's L3
TILE = 1 << 22  # multiplications of a tile at least: less than 0.1 ms is not worth a second core
TILE_EDGE = 48  # sides of tiles are multiples of it, and of what OpenBLAS computes at once
LARGE_VECTOR = 1 << 19  # multiplications of a vector with a matrix that OpenBLAS's threads share


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def row_blocks(n: int, row_bytes: int) -> list[slice]:
    """Cut n rows of row_bytes each into slices of at most BLOCK_BYTES (and at least one row).

    With more than one block, their number is a multiple of the number of cores (fewer only where
    there are not enough rows), and their sizes differ as little as possible.
    """
    count = -(-n // max(1, BLOCK_BYTES // max(1, row_bytes)))
    if count > 1:
        count = -(-count // cores()) * cores()
    step = max(1, -(-n // max(1, count)))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


class Blocks:
    """Blocks of work, of which each thread takes the next one when it has finished its last."""

    def __init__(self, work: Callable[[Any], None], blocks: Sequence[Any]):
        self.work, self.remaining = work, deque(blocks)
        self.outcomes: SimpleQueue[BaseException | None] = SimpleQueue()  # of helpers' blocks

    def __iter__(self) -> Iterator[Any]:
        """Take one block after the other, until none remains."""
        while self.remaining:
            try:
                block = self.remaining.popleft()
            except IndexError:  # another thread was faster
                return
            yield block

    def help(self) -> None:
        """Do blocks until none remains; report for each its exception, or None."""
        for block in self:
            failure = None
            try:
                self.work(block)
            except BaseException as error:
                failure = error
            self.outcomes.put(failure)


def help_all(queue: SimpleQueue[Blocks]) -> None:
    """Help with one set of blocks after the other, for ever."""
    while True:
        queue.get().help()  # and keep none of its arrays


@cache
def helpers() -> SimpleQueue[Blocks]:
    """Return the queue at which helper threads wait: one for each core but the caller's.

    The standard library's pool would do the same, and take four times as long to wake.
    """
    queue: SimpleQueue[Blocks] = SimpleQueue()
    for _ in range(cores() - 1):
        Thread(target=help_all, args=(queue,), daemon=True).start()
    return queue


def each_block(work: Callable[[Any], None], blocks: Sequence[Any]) -> None:
    """Do the work for every block; each core takes the next one when it has finished its last.

    The caller waits for blocks that helpers have begun, never for a helper that has begun none.
    An exception in a block is raised when no core is at work any more.
    """
    shared, own = Blocks(work, blocks), 0
    with single_threaded_blas:
        for _ in range(min(cores(), len(blocks)) - 1):
            helpers().put(shared)
        try:
            for block in shared:
                own += 1
                work(block)
        finally:
            abandoned = sum(1 for _ in shared)  # blocks that nobody begins after an exception
            begun = len(blocks) - own - abandoned
            failures = [shared.outcomes.get() for _ in range(begun)]
            del shared.work  # a helper that comes too late has nothing to keep arrays for
    for failure in filter(None, failures):
        raise failure


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return a @ b of two matrices, made in `out` if there is one."""
    xp, blas = array_module(a), openblas()
    work = a.size * b.shape[1]  # multiplications
    is_vector = len(a) == 1 or b.shape[1] == 1
    if xp is not np or not blas or (is_vector and work >= LARGE_VECTOR):
        return xp.matmul(a, b, out=out)
    with single_threaded_blas as threads:
        is_small = is_vector or work < 2 * TILE or a.dtype != b.dtype
        count = 1 if is_small else min(cores(), threads, work // TILE)
        if count < 2:
            return np.matmul(a, b, out=out)
        y = np.empty((len(a), b.shape[1]), a.dtype) if out is None else out

        def multiply(tile: tuple[slice, slice]) -> None:
            rows, columns = tile
            np.matmul(a[rows], b[:, columns], out=y[tile])

        each_block(multiply, tiles(len(a), b.shape[1], count))
    return y


@lru_cache(256)
def tiles(rows: int, columns: int, count: int) -> list[tuple[slice, slice]]:
    """Cut a matrix (rows, columns) into `count` tiles, as square as possible.

    There are fewer where sides of multiples of TILE_EDGE reach the end sooner.
    """
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    high = min(divisors, key=lambda n: rows / n + columns * n / count)
    cuts = []
    for length, parts in ((rows, high), (columns, count // high)):
        step = -(-length // parts // TILE_EDGE) * TILE_EDGE
        cuts.append([slice(i, min(i + step, length)) for i in range(0, length, step)])
    return list(product(*cuts))


def map_rows(formula: Callable[..., Any], *arrays: Array, sums: int = 0) -> Any:
    """Return formula(*arrays), computed on blocks of rows when the arrays are NumPy's.

    Every array has the rows on axis 0.  The formula returns one array or a tuple of arrays.  The
    last `sums` of them are sums over the rows; in all others a row depends on the same row of the
    arrays alone.
    """
    n = len(arrays[0])
    largest = max(a.nbytes for a in arrays)
    if n < 2 or largest <= BLOCK_BYTES or array_module(arrays[0]) is not np:
        return formula(*arrays)
    blocks = row_blocks(n, largest // n)
    sample = formula(*(a[:1].copy() for a in arrays))  # shows shapes and types
    is_tuple = isinstance(sample, tuple)
    samples = sample if is_tuple else (sample,)
    mapped = len(samples) - sums
    results = [np.empty((n, *x.shape[1:]), x.dtype) for x in samples[:mapped]]
    results += [np.empty((len(blocks), *x.shape), x.dtype) for x in samples[mapped:]]

    def fill(numbered: tuple[int, slice]) -> None:
        number, rows = numbered
        parts = formula(*(a[rows] for a in arrays))
        places = [rows] * mapped + [number] * sums
        parts = parts if is_tuple else (parts,)
        for result, place, part in zip(results, places, parts, strict=True):
            result[place] = part

    each_block(fill, list(enumerate(blocks)))
    results[mapped:] = [result.sum(0) for result in results[mapped:]]
    return tuple(results) if is_tuple else results[0]
