"""Backend: which array library computes, and how rows are cut into blocks.

Why
    One derivation serves every device.  An op asks `array_module(x)` for the
    library that x belongs to and writes its formula once against that.

    Element-wise formulas make several passes over their rows.  On a CPU those
    passes are cheap when a block of rows stays in cache from the first pass to
    the last, so such an op hands its formula to `map_rows`, which runs it block
    by block.  Every core takes the next block when it is done with its last (NumPy lets
    go of the interpreter's lock while it computes).  Threads are woken once for all the
    blocks, not once for each, which would cost more than it brings.  Meanwhile a matrix
    product is its core's own: OpenBLAS would split it among all cores, each of which is
    busy, so it is told not to.  On a GPU the formula sees all rows at once.

    NumPy adds and multiplies one pass at a time.  For one sum that is frequent, a x + b y, BLAS
    has a function that needs one pass instead of three: `axpby`.

    For some ops a GPU has a kernel that does all of the op in one go.  Such an op is
    `fusible`: when its arrays are on a device, the function that was registered under
    the op's name is called in its place.  The op itself knows nothing of kernels, and
    where none is registered its formula runs on the device's arrays.

What the data folder makes stays on the host: ids, positions, forests, triples.  They are
small, and indices that the host knows need not be asked for.  An op sends to the device what
it needs of them.  Back come only losses and the gradient's norm, once a step, by `fetch`: each
time a host asks a device for a number, it waits for all that was launched before.
"""

import ctypes
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

Array = Any  # numpy.ndarray, or cupy.ndarray where a GPU computes
Op = TypeVar("Op", bound=Callable[..., Any])
BLOCK_BYTES = 1 << 20  # of one array in one block of rows: a few such blocks fit in a core's L3
LIBRARIES: list[ModuleType] = []  # of devices that are in use
FUSED: dict[str, Callable[..., Any]] = {}  # what takes an op's place on them, by the op's name


def import_cupy() -> ModuleType:
    """Return CuPy.  Raises ImportError where it is not installed."""
    import cupy

    return cupy


def register(library: ModuleType, fused: Iterable[Callable[..., Any]]) -> None:
    """Let a device's library be used, with its fused ops."""
    if library not in LIBRARIES:
        LIBRARIES.append(library)
    FUSED.update({op.__name__: op for op in fused})


def array_module(x: Array) -> ModuleType:
    """Return the array library of x: numpy, or that of the device where x lives."""
    for library in LIBRARIES:
        if isinstance(x, library.ndarray):
            return library
    return np


def fusible(op: Op) -> Op:
    """Let a fused op take this one's place when its first array lives on a device.

    It does so unless it returns NotImplemented.
    """

    @wraps(op)
    def either(*arguments: Any, **named: Any) -> Any:
        if LIBRARIES and op.__name__ in FUSED and array_module(arguments[0]) is not np:
            result = FUSED[op.__name__](*arguments, **named)
            if result is not NotImplemented:
                return result
        return op(*arguments, **named)

    return either  # type: ignore[return-value]


def fetch(*arrays: Array) -> list[np.ndarray]:
    """Return arrays of float numbers as NumPy's, each flat; from a device in one copy."""
    xp = array_module(arrays[0])
    if xp is np:
        return [np.ravel(array) for array in arrays]
    flat = [array.ravel() for array in arrays]
    together = xp.asnumpy(xp.concatenate(flat))
    return np.split(together, np.cumsum([len(array) for array in flat])[:-1])


def wide(dtype: Any) -> Any:
    """Return the type that sums of a type of numbers are kept in: float32 for those of 16 bits."""
    return np.dtype(np.float32) if np.dtype(dtype).itemsize == 2 else np.dtype(dtype)


def row_blocks(n: int, row_bytes: int) -> list[slice]:
    """Cut n rows of row_bytes each into slices of at most BLOCK_BYTES (and at least one row).

    If one is not enough, there are as many for each core, all of one size as nearly as may be.
    """
    count = -(-n // max(1, BLOCK_BYTES // max(1, row_bytes)))
    if count > 1:
        count = -(-count // cores()) * cores()
    step = max(1, -(-n // max(1, count)))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def cores() -> int:
    """Return how many cores are ours."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def help_out(tasks: SimpleQueue[Any]) -> None:
    """Do one task after the other, for ever; tell each task's queue what went wrong, or None."""
    while True:
        task, done = tasks.get()
        failure = None
        try:
            task()
        except BaseException as error:
            failure = error
        del task  # and the arrays that it knows
        done.put(failure)


@cache
def helpers() -> SimpleQueue[Any]:
    """Return the queue of tasks of the threads that help, one for each core beside the caller's.

    A pool of the standard library would do the same, and take four times as long to wake.
    """
    tasks: SimpleQueue[Any] = SimpleQueue()
    for _ in range(cores() - 1):
        Thread(target=help_out, args=(tasks,), daemon=True).start()
    return tasks


class OpenBLAS(NamedTuple):
    """What NumPy's OpenBLAS does beside what NumPy asks of it."""

    threads: Callable[[], int]
    set_threads: Callable[[int], None]
    axpby: dict[str, Callable[..., None]]  # by the letter of NumPy's type


@cache
def openblas() -> OpenBLAS | None:
    """Return NumPy's OpenBLAS; None where NumPy's products are another library's.

    It comes in a folder beside NumPy or inside it; else, on Linux, it is looked for among what is
    loaded.
    """
    numpy, maps = Path(np.__file__).parent, Path("/proc/self/maps")
    found = [*numpy.parent.glob("numpy.libs/*openblas*"), *numpy.glob(".dylibs/*openblas*")]
    paths = [str(path) for path in found]
    if not paths and maps.exists():
        paths = sorted(set(re.findall(r"/\S*blas\S*\.so\S*", maps.read_text())))
    for path, before, after in product(paths, ("scipy_", ""), ("64_", "")):
        library = ctypes.PyDLL(path)  # keeps the interpreter's lock in what takes no time
        names = (f"{before}openblas_{what}_num_threads{after}" for what in ("get", "set"))
        ask, tell = (getattr(library, name, None) for name in names)
        if ask and tell:
            return OpenBLAS(ask, tell, axpby_of(path, f"{before}cblas_{{}}axpby{after}"))
    return None


def axpby_of(path: str, name: str) -> dict[str, Callable[..., None]]:
    """Return a library's functions for y ← a x + b y, by the letter of NumPy's type."""
    library, functions = ctypes.CDLL(path), {}
    count = ctypes.c_int64 if name.endswith("64_") else ctypes.c_int
    for letter, blas_letter, number in (("f", "s", ctypes.c_float), ("d", "d", ctypes.c_double)):
        function = getattr(library, name.format(blas_letter), None)
        if function:
            vector = ctypes.c_void_p, count  # where it is, and how far its numbers are apart
            function.argtypes = count, number, *vector, number, *vector
            function.restype = None
            functions[letter] = function
    return functions


def axpby(a: float, x: Array, b: float, y: Array) -> None:
    """Put a x + b y into y, of x and y (n,).

    NumPy goes over memory three times for it, OpenBLAS once.
    """
    blas = openblas() if array_module(y) is np else None
    routine = blas.axpby.get(y.dtype.char) if blas else None
    alike = x.dtype == y.dtype and x.shape == y.shape == (y.size,)
    if routine and alike and x.flags.c_contiguous and y.flags.carray:
        routine(y.size, a, x.ctypes.data, 1, b, y.ctypes.data, 1)
    else:
        y *= b
        y += a * x


class OneCoreAProduct:
    """While somebody is inside, the thread that asks for a matrix product makes it alone.

    Whoever comes in first notes how many threads OpenBLAS had, and the last one out gives them
    back.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.threads = Lock(), 0, 0

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            blas = openblas()
            if blas and self.inside == 1:
                self.threads = blas.threads()
                blas.set_threads(1)

    def __exit__(self, *failure: object) -> None:
        with self.lock:
            self.inside -= 1
            blas = openblas()
            if blas and not self.inside:
                blas.set_threads(self.threads)


ONE_CORE_A_PRODUCT = OneCoreAProduct()


def each_block(work: Callable[[Any], None], blocks: Sequence[Any]) -> None:
    """Do the work for every block; each core takes the next one when it is done with its last.

    What goes wrong with a block is raised when no core is at work any more.
    """
    left = deque(blocks)

    def walk() -> None:
        while left:
            try:
                block = left.popleft()
            except IndexError:  # another core was faster
                return
            work(block)

    others = min(cores(), len(blocks)) - 1
    if others < 1:
        return walk()
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    with ONE_CORE_A_PRODUCT:
        for _ in range(others):
            helpers().put((walk, done))
        try:
            walk()
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
    tried = formula(*(a[:1].copy() for a in arrays))  # tells shapes and types
    several = isinstance(tried, tuple)
    kinds = tried if several else (tried,)
    mapped = len(kinds) - sums
    results = [np.empty((n, *kind.shape[1:]), kind.dtype) for kind in kinds[:mapped]]
    results += [np.empty((len(blocks), *kind.shape), kind.dtype) for kind in kinds[mapped:]]

    def fill(block: tuple[int, slice]) -> None:
        number, rows = block
        parts = formula(*(a[rows] for a in arrays))
        where = [rows] * mapped + [number] * sums
        for result, place, part in zip(results, where, parts if several else (parts,), strict=True):
            result[place] = part

    each_block(fill, list(enumerate(blocks)))
    results[mapped:] = [result.sum(0) for result in results[mapped:]]
    return tuple(results) if several else results[0]
