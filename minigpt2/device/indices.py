"""Indices: what the host says about a batch, as the kernels read it.

A kernel reads indices in 32 bits, and some of them sorted: the sums of (3.4) go through the rows in
the order of their index.  The host computes all of this with NumPy.  Each array that an op asks for
is one copy to the device, unless the whole batch was sent before, in one copy (`staged`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array


class Wanted(NamedTuple):
    """What is wanted of an index array (N,).

    values   (N,) itself
    weights  (N,) itself, of floats
    order    (N,) a stable sort of the rows by index
    starts   (size + 1,) where the rows of index 0, 1, ..., size begin in that order
    runs     (N + 1,) where a run of equal indices begins in that order; N behind the last run
    """

    kind: str
    size: int = 0

    def compute(self, index: Array, order: Array | None = None) -> np.ndarray:
        """Return it on the host, in 32 bits; `order` is the sort of the rows, if it is known."""
        if self.kind == "weights":
            return index.astype(np.float32)
        if self.kind == "values":
            return index.astype(np.int32)
        order = sorted_rows(index) if order is None else order  # (N,)
        if self.kind == "order":
            return order.astype(np.int32)
        ascending = index[order]
        if self.kind == "starts":
            return np.searchsorted(ascending, np.arange(self.size + 1)).astype(np.int32)
        runs = np.full(len(index) + 1, len(index), np.int32)
        starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
        runs[: len(starts)] = starts
        return runs


def sorted_rows(index: Array) -> np.ndarray:
    """Return a stable sort of the rows (N,) by their index."""
    return np.argsort(index, kind="stable")


VALUES, WEIGHTS = Wanted("values"), Wanted("weights")
ORDER, RUNS = Wanted("order"), Wanted("runs")
Views = Mapping[tuple[int, Wanted], Array]  # by the identity of the host's array
_staged: list[Views] = [{}]


@contextmanager
def staged(views: Views) -> Iterator[None]:
    """Let ops take these arrays, which are on the device already."""
    _staged.append(views)
    try:
        yield
    finally:
        _staged.pop()


def is_staged(index: Array) -> bool:
    """Whether an array of the host was sent with its batch."""
    return (id(index), VALUES) in _staged[-1]


def on_device(library: ModuleType, index: Array, wanted: Wanted) -> Any:
    """Return what is wanted of a host's array, on the device; a device's array is passed through.

    Raises TypeError where an order is wanted of an array on the device: the host must compute it.
    """
    if isinstance(index, library.ndarray):
        if wanted not in (VALUES, WEIGHTS):
            raise TypeError(f"the {wanted.kind} of an index is computed on the host")
        return index
    view = _staged[-1].get((id(index), wanted))
    return library.asarray(wanted.compute(index)) if view is None else view


def index_on(library: ModuleType, index: Array) -> Any:
    """Return indices (N,) on the device, in 32 bits."""
    return on_device(library, index, VALUES)


def weights_on(library: ModuleType, weights: Array) -> Any:
    """Return weights (N,) on the device, in float32."""
    return on_device(library, weights, WEIGHTS)


def order_on(library: ModuleType, index: Array) -> Any:
    """Return on the device the rows (N,) in the order of their index."""
    return on_device(library, index, ORDER)


def starts_on(library: ModuleType, index: Array, size: int) -> Any:
    """Return on the device where the runs of 0, 1, ..., size − 1 begin in it, and its end."""
    return on_device(library, index, Wanted("starts", size))


def runs_on(library: ModuleType, index: Array) -> Any:
    """Return on the device where runs of equal indices begin in that order (N + 1,)."""
    return on_device(library, index, RUNS)
