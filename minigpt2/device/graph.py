"""Graphs: the launches of a step, captured once and repeated with one call.

Why
    A kernel launch costs the host a few microseconds, and a step of GPT-2 has 500 of them.  With
    the few rows of a tuning batch the kernels take less time than the host needs to launch them,
    and the GPU waits.  A stream of CUDA can record launches and not run them; the graph that it
    returns runs them all, in their order, in one call of 2 microseconds.

What a graph fixes
    Each launch with its addresses and numbers: a repetition reads and writes the same memory.  So
    what changes from step to step must lie in memory of its own, which the host fills before it
    launches the graph (`Slot`), and memory that the graph uses for its intermediate results must
    not be given to anybody else.  All graphs of a library take it from one pool: they run one
    after the other, and nothing in it is needed when a graph ends, apart from its result.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from minigpt2.backend import Array, pinned
from minigpt2.device.side_stream import Aside, side_stream_open

COPIES = 4  # of a slot that may be under way to the device at once
ALIGNED = 32  # numbers: each array begins at a multiple of 128 bytes


@cache
def graph_pool(library: ModuleType) -> Any:
    """Return the pool that has the memory of a library's graphs."""
    return library.cuda.MemoryPool()


@contextmanager
def memory_of_graphs(library: ModuleType) -> Iterator[None]:
    """Take new arrays from the pool of the graphs within the context."""
    with library.cuda.using_allocator(graph_pool(library).malloc):
        yield


def capture(
    library: ModuleType, work: Callable[[], Any], *, aside: Aside | None = None
) -> tuple[Any, Any]:
    """Record the launches of `work` and do not run them; return the graph and what work returned.

    `aside` says which launches of work go into the side stream, by default none.

    The work must have run before: then all its kernels are loaded.  It may launch kernels and
    products, and fill arrays; CUDA refuses the rest, with an error.
    """
    stream = library.cuda.get_current_stream()
    stream.begin_capture()
    try:
        with side_stream_open(library, aside) if aside else nullcontext():
            result = work()
    except BaseException:
        with_error_ignored(stream.end_capture)
        raise
    return stream.end_capture(), result


def with_error_ignored(function: Callable[[], Any]) -> None:
    """Call a function that fails, because its capture was refused already."""
    try:
        function()
    except Exception:  # CUDA's own, which depends on the library
        return


class Slot:
    """Fixed memory on the device for arrays of 32-bit numbers, filled in one copy.

    The host's side is pinned: the copy is queued, and nobody waits for it.
    """

    def __init__(self, library: ModuleType, sizes: Sequence[int]):
        """Make room for one array of each size."""
        self._library = library
        self._sizes = list(sizes)
        rooms = [-(-size // ALIGNED) * ALIGNED for size in sizes]
        *self._starts, total = np.cumsum([0, *rooms]).tolist()
        self.memory = library.empty(total, library.int32)
        self._hosts: deque[tuple[np.ndarray, Any]] = deque()

    def views(self, dtypes: Sequence[Any]) -> list[Array]:
        """Return the arrays, of these types."""
        places = zip(self._starts, self._sizes, strict=True)
        parts = [self.memory[start : start + size] for start, size in places]
        return [part.view(dtype) for part, dtype in zip(parts, dtypes, strict=True)]

    def fill(self, arrays: Sequence[np.ndarray]) -> None:
        """Queue the copy of these arrays, which have 32-bit numbers, to the device."""
        host, copied = self._free_host()
        for array, start in zip(arrays, self._starts, strict=True):
            host[start : start + array.size] = array.view(np.int32)
        self.memory.set(host)
        copied.record()
        self._hosts.append((host, copied))

    def _free_host(self) -> tuple[np.ndarray, Any]:
        """Return pinned memory that is on no way to the device, and its event."""
        if len(self._hosts) == COPIES:
            host, copied = self._hosts.popleft()
            copied.synchronize()
            return host, copied
        fresh = pinned(self._library, self.memory.size, np.int32)
        return fresh, self._library.cuda.Event()
