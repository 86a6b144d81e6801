"""Fake stream: launches that are recorded and not run, as a GPU's stream captures them.

Why
    A GPU can record the launches of a step once and repeat them with one call: a graph.  While a
    stream captures, nothing runs, so a program that looks at a result, copies from the host, or
    allocates memory that others get afterwards records something wrong.  A GPU notices only some
    of that.  Here each of it is an error:

    - kernels, matrix products and fills are recorded, with the memory that they work on;
    - all else that would compute or copy is refused, and the capture with it;
    - so is memory from elsewhere than a pool of the graph's own.

    A pool gives the memory of an array that is gone to the next one of its size, with every bit
    set, and a graph does not keep its arrays: whoever holds on to memory that a graph writes to
    must say so, as on a GPU.
"""

import ctypes
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import numpy as np

REFUSED = "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing: {}"
INVALID = "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error"
# Functions and methods that may return a view, and then compute nothing.
VIEWS = {
    *("array_split", "asarray", "astype", "broadcast_to", "can_cast", "diagonal", "expand_dims"),
    *("moveaxis", "ndim", "ravel", "reshape", "result_type", "shape", "size", "split", "squeeze"),
    *("swapaxes", "transpose", "view", "may_share_memory", "shares_memory", "ascontiguousarray"),
}
ROUNDED = 512  # bytes: CuPy's pools hand out multiples of them


class CaptureError(RuntimeError):
    """What CUDA refuses while a stream captures."""


class Graph:
    """Launches that a stream has captured."""

    def __init__(self) -> None:
        self.launches: list[tuple[Callable[..., Any], Any, Any]] = []

    def launch(self, stream: "Stream | None" = None) -> None:
        """Run all launches in their order."""
        refuse("the launch of a graph")
        for function, args, kwargs in self.launches:
            function(*args, **kwargs)


class Stream:
    """A queue of launches; here each has ended when it returns."""

    null: "Stream"
    current: "Stream"
    capturing: "Stream | None" = None  # at most one
    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False):
        self.graph: Graph | None = None  # None also after what may not be captured
        self.before: list[Stream] = []

    def __enter__(self) -> "Stream":
        self.before.append(Stream.current)
        return self.use()

    def __exit__(self, *_: Any) -> None:
        Stream.current = self.before.pop()

    def use(self) -> "Stream":
        """Send all launches from here on into this stream."""
        Stream.current = self
        return self

    def synchronize(self) -> None:
        """Wait for all launches."""
        refuse("to wait for a stream")

    def is_capturing(self) -> bool:
        """Return whether launches are recorded."""
        return Stream.capturing is self

    def begin_capture(self, mode: int | None = None) -> None:
        """Record all launches from here on, and do not run them."""
        refuse("a second capture")
        if self is Stream.null:
            raise CaptureError(REFUSED.format("the null stream captures nothing"))
        Stream.capturing, self.graph = self, Graph()

    def end_capture(self) -> Graph:
        """Return what was recorded.  Raises CaptureError if something was refused meanwhile."""
        if Stream.capturing is not self:
            raise CaptureError("cudaErrorIllegalState: the stream does not capture")
        Stream.capturing, graph = None, self.graph
        if graph is None:
            raise CaptureError(INVALID)
        return graph


Stream.null = Stream.current = Stream()


class Event:
    """A place in a queue of launches, to wait for."""

    def __init__(self, block: bool = False, disable_timing: bool = False):
        self.done = True  # as long as it has not been recorded, and then, too: nothing is queued

    def record(self, stream: Stream | None = None) -> None:
        """Put the event behind all that is in the queue."""
        refuse("an event for the host")

    def synchronize(self) -> None:
        """Wait until all before the event has ended."""
        refuse("to wait for an event")


def refuse(what: str) -> None:
    """Raise CaptureError, and spoil the capture, if a stream captures."""
    if Stream.capturing:
        Stream.capturing.graph = None
        raise CaptureError(REFUSED.format(what))


def record(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Run a function that computes on NumPy arrays, or record it if a stream captures."""
    stream = Stream.capturing
    if stream is None:
        function(*args, **kwargs)
        return
    if stream.graph is None:
        raise CaptureError(INVALID)
    if stream is not Stream.current:
        refuse("a launch into another stream, which a GPU would not record")
    stream.graph.launches.append((function, tuple(map(rooted, args)), kwargs))


def arrays_in(x: Any) -> Iterator[np.ndarray]:
    """Yield the arrays in lists, tuples and dicts."""
    if isinstance(x, np.ndarray):
        yield x
    for item in x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else ():
        yield from arrays_in(item)


def computed(name: str, function: Callable[..., Any], sources: Any, args: Any, kwargs: Any) -> Any:
    """Return the result of a function of NumPy's.

    Raises CaptureError while a stream captures, unless all that it returns are views of its
    sources.
    """
    if not Stream.capturing:
        return function(*args, **kwargs)
    arrays = list(arrays_in(sources))
    if arrays and name not in VIEWS:
        refuse(name)
    result = function(*args, **kwargs)
    for array in arrays_in(result):
        if array.size and not any(np.may_share_memory(array, source) for source in arrays):
            refuse(f"{name}, which copies")
    return result


def rooted(x: Any) -> Any:
    """Return an array on the same memory that does not keep it from going back to its pool."""
    if isinstance(x, tuple):
        return tuple(map(rooted, x))
    base = x
    while isinstance(base, np.ndarray):
        base = base.base
    memory = getattr(base, "pooled", None)
    if memory is None:
        return x
    return np.ndarray(x.shape, x.dtype, memory, x.ctypes.data - memory.ctypes.data, x.strides)


class MemoryPool:
    """Memory that is handed out again once its array is gone."""

    def __init__(self) -> None:
        self.free: defaultdict[int, list[np.ndarray]] = defaultdict(list)  # by their bytes
        self.used = 0

    def malloc(self, size: int) -> Any:
        """Return memory of at least so many bytes; it comes back when nothing refers to it."""
        size = -(-size // ROUNDED) * ROUNDED
        memory: Any = self.free[size].pop() if self.free[size] else np.empty(size, np.uint8)
        allocation = (ctypes.c_ubyte * size).from_buffer(memory)
        allocation.pooled = memory  # type: ignore[attr-defined]
        finalize(allocation, self.take_back, memory).atexit = False
        self.used += size
        return allocation

    def take_back(self, memory: np.ndarray) -> None:
        """Keep memory for later, spoilt unless a capture, in which nothing runs, frees it."""
        if not Stream.capturing:
            memory[...] = 0xFF
        self.free[memory.size].append(memory)
        self.used -= memory.size

    def used_bytes(self) -> int:
        """Return the bytes of all arrays that live."""
        return self.used

    def total_bytes(self) -> int:
        """Return the bytes of all memory of the pool."""
        return self.used + sum(size * len(memory) for size, memory in self.free.items())

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
