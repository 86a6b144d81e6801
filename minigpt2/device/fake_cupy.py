"""Fake CuPy: a module that behaves as CuPy does, on a machine without a GPU.

Why
    A program that has only run on NumPy arrays fails on CuPy arrays wherever NumPy converts
    implicitly and CuPy does not.  This module wraps NumPy arrays and is as strict as CuPy, in a few
    places stricter:

    - it lacks each name, keyword and array method that CuPy lacks (cupy_api.json lists CuPy's);
    - it never mixes NumPy arrays with its own, not even as an index, and never converts one to
      the other implicitly;
    - a reduction returns an array of no axes, not a number;
    - it counts every copy to the host in `copies`, by its cause: `get`, `float`, `bool`, ..., and
      "shape" where CuPy itself copies because the shape of a result depends on data;
    - a stream that captures refuses all that a graph cannot repeat (device/fake_stream).

    Kernels run on the emulator.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from minigpt2.device.emulator import Machine
from minigpt2.device.fake_array import (
    API,
    SHAPED_BY_DATA,
    Device,
    boxed,
    copies,
    method_on_device,
    ndarray,
    product,
    unboxed,
)
from minigpt2.device.fake_copies import set_bits
from minigpt2.device.fake_pool import MemoryPool, memory_for, using_allocator
from minigpt2.device.fake_stream import Event, Stream, computed, record, refuse

UFUNC_METHODS = ("accumulate", "at", "outer", "reduce", "reduceat")


def function(name: str) -> Callable[..., Any]:
    """Return one of NumPy's functions for device arrays."""
    host: Any = product if name == "matmul" else getattr(np, name)
    keywords = API["functions"][name]

    def on_device(*args: Any, **kwargs: Any) -> Any:
        lacking = [] if keywords is None else sorted(set(kwargs) - set(keywords))
        if lacking:
            raise TypeError(f"cupy.{name}() got an unexpected keyword argument {lacking[0]!r}")
        if name in SHAPED_BY_DATA or (name == "where" and len(args) == 1):
            copies["shape"] += 1
        out = kwargs.get("out")
        hosts, named = tuple(map(unboxed, args)), unboxed(kwargs)
        result = computed(name, host, (hosts, named), hosts, named)
        return out if out is not None else boxed(result)

    for method in UFUNC_METHODS if isinstance(host, np.ufunc) else ():
        setattr(on_device, method, method_on_device(getattr(host, method), f"{name}.{method}"))
    return on_device


def __getattr__(name: str) -> Any:
    if name in API["functions"]:
        return function(name)
    if name in API["constants"]:
        return getattr(np, name)
    raise AttributeError(f"module 'cupy' has no attribute {name!r}")


def asarray(a: Any, dtype: Any = None) -> ndarray:
    """Return an array on the device: itself, or a copy of a NumPy array."""
    if isinstance(a, ndarray) and (dtype is None or a.host.dtype == dtype):
        return a
    return array(a, dtype)


def array(a: Any, dtype: Any = None) -> ndarray:
    """Return a fresh array on the device."""
    refuse("a copy from the host")
    return ndarray(np.array(a.host if isinstance(a, ndarray) else a, dtype))


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    """Return an array filled with NaN, so that a test notices what is never written."""
    return unwritten(memory_for(shape, dtype))


def empty_like(prototype: ndarray, dtype: Any = None, shape: Any = None) -> ndarray:
    """Return an array of the same shape and order, filled like that of `empty`."""
    like = unboxed(prototype)
    dtype, flags = dtype or like.dtype, like.flags
    if shape is None and flags.f_contiguous and not flags.c_contiguous:
        return unwritten(memory_for(like.shape[::-1], dtype)).T
    return unwritten(memory_for(like.shape if shape is None else shape, dtype))


def zeros(shape: Any, dtype: Any = np.float64) -> ndarray:
    """Return an array of zeros."""
    array = ndarray(memory_for(shape, dtype))
    array.fill(0)
    return array


def zeros_like(prototype: ndarray, dtype: Any = None, shape: Any = None) -> ndarray:
    """Return an array of zeros of the same shape."""
    like = unboxed(prototype)
    return zeros(like.shape if shape is None else shape, dtype or like.dtype)


def unwritten(host: np.ndarray) -> ndarray:
    """Set every bit of an array, which makes NaN, or -1 of integers; return it on the device."""
    record(set_bits, host)
    return ndarray(host)


def ascontiguousarray(a: ndarray) -> ndarray:
    """Return a contiguous array: itself, or a copy."""
    host = unboxed(a)
    return ndarray(computed("ascontiguousarray", np.ascontiguousarray, (host,), (host,), {}))


def asnumpy(a: Any) -> np.ndarray:
    """Return an array as a NumPy array."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


cuda = SimpleNamespace(
    Device=Device,
    Event=Event,
    Stream=Stream,
    get_current_stream=lambda: Stream.current,
    MemoryPool=MemoryPool,
    using_allocator=using_allocator,
    alloc_pinned_memory=bytearray,
)
cuda.runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: cuda.Device().id)


def product_into(
    out: ndarray,
    x: ndarray,
    w: ndarray,
    transpose_x: bool,
    transpose_w: bool,
    bias: ndarray | None,
    start: ndarray | None,
    *,
    scale: float = 1.0,
) -> None:
    """Put start + scale x w + bias into `out`, as device/products does it on a GPU.

    Numbers of 16 bits are summed in float32 and rounded once.
    """
    left = x.host.T if transpose_x else x.host
    right = w.host.T if transpose_w else w.host
    terms = [None if term is None else term.host for term in (bias, start)]
    record(sum_of_product, out.host, left, right, *terms, scale)


def sum_of_product(
    out: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    bias: np.ndarray | None,
    start: np.ndarray | None,
    scale: float,
) -> None:
    """Put start + scale left right + bias into `out`; numbers of 16 bits are summed in float32."""
    short = 2 in (out.dtype.itemsize, left.dtype.itemsize)
    dtype = np.dtype(np.float32) if short else left.dtype
    result = dtype.type(scale) * (left.astype(dtype) @ right.astype(dtype))
    for term in (bias, start):
        if term is not None:
            result = result + term.astype(dtype)
    out[...] = result.astype(out.dtype)


machines: list[Machine] = []  # the last of them runs the kernels


def machine() -> Machine:
    """Return the emulated GPU that runs the kernels."""
    if not machines:
        machines.append(Machine())
    return machines[-1]


@contextmanager
def using(machine: Machine) -> Iterator[Machine]:
    """Run kernels on this machine within the context."""
    machines.append(machine)
    try:
        yield machine
    finally:
        machines.remove(machine)


class RawModule:
    """Kernels, compiled from their source text."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()):
        self.module = machine().compile(code, options)

    def get_function(self, name: str) -> "RawKernel":
        """Return a kernel."""
        return RawKernel(self.module.get_function(name))


class RawKernel:
    """A kernel that takes device arrays."""

    def __init__(self, kernel: Any):
        self.kernel = kernel

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """The largest dynamic shared memory that a launch may ask for."""
        return int(self.kernel.max_dynamic_shared_size_bytes)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        self.kernel.max_dynamic_shared_size_bytes = size

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0
    ) -> None:
        hosts = tuple(map(unboxed, args))
        record(self.kernel, tuple(grid), tuple(block), hosts, shared_mem=shared_mem)
