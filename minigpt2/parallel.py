"""Parallel work: rows in blocks that fit in cache, and a thread for each core.

Why
    Element-wise formulas make several passes over their rows.  On a CPU those passes are cheap
    when a block of rows stays in cache from the first pass to the last, so such an op hands its
    formula to `map_rows`, which runs it block by block.  Each core takes the next block when it
    has finished its last (NumPy releases the interpreter's lock while it computes).  Threads wake
    once for all the blocks, not once for each: waking costs more than a block.  Meanwhile
    OpenBLAS runs on one thread a product (`blas`).  On a GPU the formula sees all rows at once.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.blas import single_threaded_blas

BLOCK_BYTES = 1 << 20  # of one array in one block of rows: a few such blocks fit in a core's L3


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


def run_tasks(tasks: SimpleQueue[Any]) -> None:
    """Run one task after the other, for ever; report each task's exception, or None."""
    while True:
        task, done = tasks.get()
        failure = None
        try:
            task()
        except BaseException as error:
            failure = error
        del task  # and the arrays that it refers to
        done.put(failure)


@cache
def workers() -> SimpleQueue[Any]:
    """Return the task queue of the worker threads: one for each core but the caller's.

    The standard library's pool would do the same, and take four times as long to wake.
    """
    tasks: SimpleQueue[Any] = SimpleQueue()
    for _ in range(cores() - 1):
        Thread(target=run_tasks, args=(tasks,), daemon=True).start()
    return tasks


def each_block(work: Callable[[Any], None], blocks: Sequence[Any]) -> None:
    """Do the work for every block; each core takes the next one when it has finished its last.

    An exception in a block is raised when no core is at work any more.
    """
    remaining = deque(blocks)

    def take_blocks() -> None:
        while remaining:
            try:
                block = remaining.popleft()
            except IndexError:  # another core was faster
                return
            work(block)

    others = min(cores(), len(blocks)) - 1
    if others < 1:
        return take_blocks()
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    with single_threaded_blas:
        for _ in range(others):
            workers().put((take_blocks, done))
        try:
            take_blocks()
        finally:
            failures = [done.get() for _ in range(others)]
    for failure in filter(None, failures):
        raise failure


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
