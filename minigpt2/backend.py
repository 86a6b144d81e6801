"""Backend: which array library computes, and where a device has its own kernel for an op.

Why
    One derivation serves every device.  An op asks `array_module(x)` for the library that x
    belongs to, NumPy or CuPy, and writes its formula once against that.

    For some ops a GPU has a kernel that does the whole op in one launch.  Such an op is
    `fusible`: when its arrays are on a device, the function that was registered for the op is
    called in its place.  The op itself knows nothing of kernels, and where none is registered
    its formula runs on the device's arrays.

    What the data room makes stays on the host: ids, positions, forests, triples.  These arrays
    are small, and an op sends to the device what it needs of them.  Of a step of tuning only
    the losses and the gradient's norm come back, once: each time a host asks a device for a
    number (`to_host`), it waits for all that was launched before.  Alignment, whose weights
    follow from log-probabilities and scores, asks once for each micro-batch.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

Array = Any  # numpy.ndarray, or cupy.ndarray where a GPU computes
Op = TypeVar("Op", bound=Callable[..., Any])
PAGE = 4096  # bytes
LIBRARIES: list[ModuleType] = []  # of devices that are in use
FUSED: dict[Callable[..., Any], Callable[..., Any]] = {}  # what replaces an op on these devices


def import_cupy() -> ModuleType:
    """Return CuPy.  Raises ImportError where it is not installed."""
    import cupy

    return cupy


def register(
    library: ModuleType, fused: Mapping[Callable[..., Any], Callable[..., Any]] | None = None
) -> None:
    """Let a device's library be used, with the fused function of each op that has one."""
    if library not in LIBRARIES:
        LIBRARIES.append(library)
    FUSED.update(fused or {})


def array_module(x: Any) -> ModuleType:
    """Return the array library of x: numpy, or that of the device where x lives.

    x is an array, or an object with its numbers in an array `flat`, such as Parameters.
    """
    for library in LIBRARIES:
        if isinstance(x, library.ndarray) or isinstance(getattr(x, "flat", None), library.ndarray):
            return library
    return np


def flat_zeros(size: int, dtype: Any, xp: ModuleType = np) -> Array:
    """Return zeros (size,); NumPy's begin at a multiple of PAGE, so that a disk can fetch them."""
    if xp is not np:
        return xp.zeros(size, dtype)
    count = size * np.dtype(dtype).itemsize
    memory = np.zeros(count + PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory[start : start + count].view(dtype)


def fusible(op: Op) -> Op:
    """Call the fused function of an op instead of the op when its first array is on a device.

    Where there is none, or it returns NotImplemented, the op itself is called.
    """

    @wraps(op)
    def dispatch(*arguments: Any, **named: Any) -> Any:
        fused = FUSED.get(dispatch) if LIBRARIES else None
        if fused and array_module(arguments[0]) is not np:
            result = fused(*arguments, **named)
            if result is not NotImplemented:
                return result
        return op(*arguments, **named)

    return dispatch  # type: ignore[return-value]


class Target(NamedTuple):
    """Where a backward pass puts a gradient: it is written over the array, or added to it."""

    array: Array
    accumulate: bool = False


def deliver(gradient: Array, target: Target | None) -> Array:
    """Put a gradient where it belongs, and return the array there; without a target, itself."""
    if target is None:
        return gradient
    array = target.array
    if target.accumulate:
        array += gradient
    elif array is not gradient:  # it was not made in place
        array[...] = gradient
    return array


def to_host(*arrays: Array) -> list[Any]:
    """Return arrays of float numbers as NumPy's, each flat; those of a device in one copy."""
    return send_to_host(*arrays)()


def send_to_host(*arrays: Array) -> Callable[[], list[Any]]:
    """Queue the copy of `to_host`, and return the function that waits for it; None stays None.

    The function does not wait for what was launched behind the copy.
    """
    libraries = [array_module(array) for array in arrays]
    flat = [array.ravel() for array, xp in zip(arrays, libraries, strict=True) if xp is not np]
    if not flat:
        return lambda: [array if array is None else np.ravel(array) for array in arrays]
    xp = array_module(flat[0])
    together = xp.concatenate(flat)
    host, arrived = pinned(xp, len(together), together.dtype), xp.cuda.Event()
    together.get(out=host, blocking=False)
    arrived.record()

    def wait() -> list[Any]:
        arrived.synchronize()
        copies = iter(np.split(host, np.cumsum([len(array) for array in flat])[:-1]))
        on_host = [next(copies) if xp is not np else None for xp in libraries]
        pairs = zip(arrays, on_host, strict=True)
        return [a if a is None else np.ravel(a) if copy is None else copy for a, copy in pairs]

    return wait


def pinned(xp: ModuleType, size: int, dtype: Any) -> np.ndarray:
    """Return an array (size,) in memory of the host that a device can copy by itself."""
    memory = xp.cuda.alloc_pinned_memory(max(1, size * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, size)


def host_pieces(array: Array, size: int) -> Iterator[np.ndarray]:
    """Yield a contiguous array as flat NumPy arrays of at most `size` numbers, one after the other.

    Nothing is copied from NumPy's arrays.  From a device each piece comes into the same pinned
    memory, on a stream of its own: so a thread can read what does not change while the device
    computes, and each piece is valid until the next.
    """
    xp, flat = array_module(array), array.reshape(-1)
    starts = range(0, flat.size, size)
    if xp is np:
        yield from (flat[start : start + size] for start in starts)
        return
    count = min(size, flat.size)
    host, stream = pinned(xp, count, flat.dtype), xp.cuda.Stream(non_blocking=True)
    for start in starts:
        piece = flat[start : start + size]
        piece.get(stream=stream, out=host[: piece.size])  # and waits for it
        yield host[: piece.size]


def accumulation_dtype(dtype: Any) -> Any:
    """Return the type that sums are kept in: float32 for numbers of 16 bits, else dtype itself."""
    return np.dtype(np.float32) if np.dtype(dtype).itemsize == 2 else np.dtype(dtype)
