"""Fake stream: launches that are recorded and not run, as a GPU's stream captures them.

Why
    A GPU can record the launches of a step once and repeat them with one call: a graph.  While a
    stream captures, nothing runs, so a program that looks at a result, copies from the host, or
    allocates memory that others get afterwards records something wrong.  A GPU notices only some
    of that.  Here each of it is an error:

    - kernels, matrix products and fills are recorded, with the memory that they work on, also in a
      second stream that waits for an event of the first;
    - all else that would compute or copy is refused, and the capture with it;
    - so is memory from elsewhere than a pool of the graph's own (device/fake_pool).

    What is in two streams may run in any order that their waits allow.  A graph runs what is in
    the second one as early as it can, and the next time as late, in turns.  So a wait that lacks
    changes bits.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minigpt2.device.fake_copies import Copies

REFUSED = "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing: {}"
INVALID = "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error"
# Functions and methods that may return a view, and then compute nothing.
VIEWS = {
    *("array_split", "asarray", "astype", "broadcast_to", "can_cast", "diagonal", "expand_dims"),
    *("moveaxis", "ndim", "ravel", "reshape", "result_type", "shape", "size", "split", "squeeze"),
    *("swapaxes", "transpose", "view", "may_share_memory", "shares_memory", "ascontiguousarray"),
}


class CaptureError(RuntimeError):
    """What CUDA refuses while a stream captures."""


class Launch(NamedTuple):
    """A launch in a graph, and the numbers of those that it waits for."""

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    after: frozenset[int]
    first: bool  # whether it is in the stream that captures


class Graph:
    """Launches that a stream has captured."""

    def __init__(self, *streams: "Stream"):
        self.launches: list[Launch] = []
        self.runs = 0
        # what the next launch of each stream waits for
        self.reached: dict[Stream, frozenset[int]] = dict.fromkeys(streams, frozenset())

    def launch(self, stream: "Stream | None" = None) -> None:
        """Run each launch once, behind those that it waits for."""
        refuse("the launch of a graph")
        order, late = list(range(len(self.launches))), self.runs % 2
        done: set[int] = set()
        for number in sorted(order, key=lambda n: late and not self.launches[n].first):
            for own in self.behind(number, done):
                done.add(own)
                function, args, kwargs, *_ = self.launches[own]
                function(*args, **kwargs)
        self.runs += 1

    def behind(self, number: int, done: "set[int] | frozenset[int]" = frozenset()) -> list[int]:
        """Return a launch and all that must run before it, in an order for that; not those done."""
        needed, more = set[int](), {number} - done
        while more:
            needed |= more
            more = {own for n in more for own in self.launches[n].after} - needed - done
        return sorted(needed)  # each waits for launches that were recorded before it

    def add(self, stream: "Stream", function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Record a launch."""
        after, first = self.reached[stream], stream is Stream.capturing
        self.launches.append(Launch(function, args, kwargs, after, first))
        self.reached[stream] = frozenset({len(self.launches) - 1})


class Stream:
    """A queue of launches; here each has ended when it returns, except for copies to the host."""

    null: "Stream"
    current: "Stream"
    entered: "list[Stream]"  # by `with`; when it ends, the one before is in use, whatever was
    capturing: "Stream | None" = None  # at most one
    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False):
        self.graph: Graph | None = None  # None also after what may not be captured
        self.copies = Copies()  # to the host

    def __enter__(self) -> "Stream":
        Stream.entered.append(self)
        return self.use()

    def __exit__(self, *_: Any) -> None:
        Stream.entered.pop()
        Stream.current = Stream.entered[-1]

    def use(self) -> "Stream":
        """Send all launches from here on into this stream."""
        Stream.current = self
        return self

    def synchronize(self) -> None:
        """Wait for all launches and copies."""
        refuse("to wait for a stream")
        self.copies.wait_for(self.copies.sent)

    def is_capturing(self) -> bool:
        """Return whether launches are recorded."""
        return Stream.capturing is self

    def begin_capture(self, mode: int | None = None) -> None:
        """Record all launches from here on, and do not run them."""
        refuse("a second capture")
        if self is Stream.null:
            raise CaptureError(REFUSED.format("the null stream captures nothing"))
        Stream.capturing, self.graph = self, Graph(self)

    def end_capture(self) -> Graph:
        """Return what was recorded.  Raises CaptureError if something was refused meanwhile."""
        if Stream.capturing is not self:
            raise CaptureError("cudaErrorIllegalState: the stream does not capture")
        Stream.capturing, graph = None, self.graph
        if graph is None:
            raise CaptureError(INVALID)
        waited = {own for number in graph.reached[self] for own in graph.behind(number)}
        if len(waited) < len(graph.launches):
            raise CaptureError("cudaErrorStreamCaptureUnjoined: another stream was not waited for")
        return graph

    def record(self, event: "Event | None" = None) -> "Event":
        """Put an event, a fresh one by default, behind all that is in the queue; return it."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        """Let all that comes into the queue from here on wait for an event."""
        if not Stream.capturing:
            return
        graph = Stream.capturing.graph
        if not graph or event.graph is not graph:
            return refuse("to wait for an event from outside")
        graph.reached[self] = graph.reached.get(self, frozenset()) | event.reached


Stream.null = Stream.current = Stream()
Stream.entered = [Stream.null]


class Event:
    """A place in a queue of launches, to wait for."""

    def __init__(self, block: bool = False, disable_timing: bool = False):
        self.done = True  # as long as it has not been recorded, and then, too: nothing is queued
        self.graph: Graph | None = None  # that has captured it
        self.reached: frozenset[int] = frozenset()  # its launches that the event is behind
        self.behind: tuple[Copies, int] | None = None  # the copies before it, and their number

    def record(self, stream: Stream | None = None) -> None:
        """Put the event behind all that is in the queue."""
        stream, self.graph = stream or Stream.current, None
        self.behind = stream.copies, stream.copies.sent
        if not Stream.capturing:
            return
        graph = Stream.capturing.graph
        if not graph or stream not in graph.reached:
            return refuse("an event of a stream that does not capture")
        self.graph, self.reached = graph, graph.reached[stream]

    def synchronize(self) -> None:
        """Wait until all before the event has ended."""
        refuse("to wait for an event")
        if self.graph:
            raise CaptureError("cudaErrorCapturedEvent: a graph has the event")
        if self.behind:
            copies, count = self.behind
            copies.wait_for(count)


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
    if Stream.current not in stream.graph.reached:
        refuse("a launch into another stream, which a GPU would not record")
    stream.graph.add(Stream.current, function, tuple(map(rooted, args)), kwargs)


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
