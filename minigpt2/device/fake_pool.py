"""Fake pool: memory that is handed out again, as CuPy's pools do it.

A pool gives the memory of an array that is gone to the next one of its size and stream, with every
bit set, and a graph does not keep its arrays: whoever holds on to memory that a graph writes to
must say so, as on a GPU.
"""

import ctypes
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import numpy as np

from minigpt2.device.fake_stream import Stream, refuse

ROUNDED = 512  # bytes: CuPy's pools hand out multiples of them


class MemoryPool:
    """Memory that is handed out again once its array is gone."""

    def __init__(self) -> None:
        # by their stream and bytes
        self.free: defaultdict[tuple[Stream, int], list[np.ndarray]] = defaultdict(list)
        self.used = 0

    def malloc(self, size: int) -> Any:
        """Return memory of at least so many bytes; it comes back when nothing refers to it."""
        size = -(-size // ROUNDED) * ROUNDED
        free = self.free[Stream.current, size]
        memory: Any = free.pop() if free else np.empty(size, np.uint8)
        allocation = (ctypes.c_ubyte * size).from_buffer(memory)
        allocation.pooled = memory  # type: ignore[attr-defined]
        finalize(allocation, self.take_back, memory, free).atexit = False
        self.used += size
        return allocation

    def take_back(self, memory: np.ndarray, free: list[np.ndarray]) -> None:
        """Make memory free, spoilt unless a capture, in which nothing runs, gives it back."""
        if not Stream.capturing:
            memory[...] = 0xFF
        free.append(memory)
        self.used -= memory.size

    def used_bytes(self) -> int:
        """Return the bytes of all arrays that live."""
        return self.used

    def total_bytes(self) -> int:
        """Return the bytes of all memory of the pool."""
        return self.used + sum(size * len(memory) for (_, size), memory in self.free.items())

    def free_all_blocks(self) -> None:
        """Give up the memory of arrays that are gone."""
        self.free.clear()


allocators: list[Callable[[int], Any]] = []  # the last of them has the memory


@contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    """Take the memory of new arrays from an allocator within the context."""
    allocators.append(allocator)
    try:
        yield
    finally:
        allocators.pop()


def memory_for(shape: Any, dtype: Any) -> np.ndarray:
    """Return memory for an array; what it holds is anything."""
    if not allocators:
        refuse("memory from a pool that others use, too")
        return np.empty(shape, dtype)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, allocators[-1](size)) if size else np.empty(shape, dtype)
