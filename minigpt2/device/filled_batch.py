"""Filled batches: a batch gets a shape that comes again, so that a graph can be repeated for it.

A batch is filled up by rows that see themselves alone and that nothing reads, and by triples of
weight 0.  Neither changes the loss or a gradient: what flows back through them is exactly 0.

Sizes are rounded up to a multiple of an eighth of the power of two below, at least 64: at most an
eighth of the work is idle, a sixteenth on average, and few shapes occur.
"""

from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.device.attention_blocks import ForestTables, forest_tables
from minigpt2.device.indices import ORDER, RUNS, VALUES, WEIGHTS, Wanted, sorted_rows
from minigpt2.model.batch import Batch


class Filled(NamedTuple):
    """A batch filled up to a shape that repeats."""

    batch: Batch  # N rows, M triples
    rows: Array | None  # (R,) the rows that the loss reads; None for all
    places: Array  # (M,) of the triples among them
    used: Array  # the triples of the batch that count, those of weight ≠ 0


def rounded_up(size: int) -> int:
    """Return the size that a size is filled up to."""
    step = max(64, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


def longer(array: Array, size: int, value: int) -> Array:
    """Return an array (size,) that begins as another and ends with a value."""
    result = np.full(size, value, np.asarray(array).dtype)
    result[: len(array)] = array
    return result


def filled(batch: Batch) -> Filled:
    """Fill a batch up, by at least one row."""
    used = np.flatnonzero(batch.weights)
    n, n_filled, m_filled = len(batch.ids), rounded_up(len(batch.ids) + 1), rounded_up(len(used))
    rows, places = np.unique(batch.rows[used], return_inverse=True)
    idle = n_filled - 1
    every = len(rows) == n
    r_filled = n_filled if every else rounded_up(len(rows))
    arrays = Batch(
        ids=longer(batch.ids, n_filled, 0),
        positions=longer(batch.positions, n_filled, 0),
        end=np.append(batch.end, np.arange(len(batch.ids), n_filled) + 1),
        rows=longer(batch.rows[used], m_filled, idle),
        targets=longer(batch.targets[used], m_filled, 0),
        weights=longer(batch.weights[used], m_filled, 0),
    )
    read = None if every else longer(rows, r_filled, idle)
    return Filled(arrays, read, longer(places, m_filled, r_filled - 1), used)


def wanted_of(ready: Filled) -> list[tuple[Array, Wanted]]:
    """Return what the ops of a step want of a batch's arrays on the host."""
    batch, n = ready.batch, len(ready.batch.ids)
    read = n if ready.rows is None else len(ready.rows)
    wanted = [
        (batch.ids, VALUES),
        (batch.ids, ORDER),
        (batch.ids, RUNS),
        (batch.positions, VALUES),
        (batch.positions, ORDER),
        (batch.positions, RUNS),
        (batch.targets, VALUES),
        (batch.weights, WEIGHTS),
        (ready.places, VALUES),
        (ready.places, ORDER),
        (ready.places, Wanted("starts", read)),
    ]
    if ready.rows is not None:
        rows = ready.rows
        wanted += [(rows, VALUES), (rows, ORDER), (rows, Wanted("starts", n))]
    return wanted


class Prepared(NamedTuple):
    """A batch filled up, with all that the ops want of it but the weights' values."""

    ready: Filled
    arrays: list[np.ndarray]  # of 32-bit numbers, as `wanted_of` lists them
    tables: ForestTables

    def with_weights(self, weights: Array) -> "Prepared":
        """Return the same for other weights (M,) of the batch, 0 at the same triples."""
        ready = self.ready
        size = len(ready.batch.weights)
        batch = ready.batch._replace(weights=longer(weights[ready.used], size, 0))
        ready = ready._replace(batch=batch)
        arrays = [
            want.compute(array) if want == WEIGHTS else made
            for (array, want), made in zip(wanted_of(ready), self.arrays, strict=True)
        ]
        return Prepared(ready, arrays, self.tables)


def prepared(batch: Batch) -> Prepared:
    """Compute on the host all that a step needs of a batch."""
    ready = filled(batch)
    wanted = wanted_of(ready)
    indices = {id(array): array for array, want in wanted if want == ORDER}
    orders = {number: sorted_rows(index) for number, index in indices.items()}
    arrays = [want.compute(array, orders.get(id(array))) for array, want in wanted]
    return Prepared(ready, arrays, forest_tables(ready.batch.end))
