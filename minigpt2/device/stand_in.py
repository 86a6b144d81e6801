"""Stand-in: a module that behaves as CuPy does, on a machine without a GPU.

Why
    A program that was only ever run on NumPy's arrays fails on CuPy's, where NumPy converts
    without being asked and CuPy does not.  This module holds NumPy's arrays in boxes, and is as
    strict as CuPy, in a few places stricter:

    - a name, a keyword or an array's method that CuPy lacks is not there
      (cupy_api.json says what CuPy has);
    - an array of NumPy's never meets one of the device's, not even as an index, and never becomes
      one unasked;
    - a reduction gives an array of no axes, not a number;
    - numbers come to the host when they are asked for, and every such copy is counted in
      `copies`, by what asked: `get`, `float`, `bool`, ...; so are those that CuPy makes by itself
      where the shape of a result depends on data, as "shape".

    Kernels go to the emulator.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from minigpt2.device.emulator import Machine

API = json.loads((Path(__file__).parent / "cupy_api.json").read_text(encoding="utf-8"))
# Functions that must look at the data to know how large their result is.
SHAPED_BY_DATA = {
    "argwhere",
    "bincount",
    "compress",
    "extract",
    "flatnonzero",
    "intersect1d",
    "nonzero",
    "setdiff1d",
    "setxor1d",
    "union1d",
    "unique",
}
UFUNC_METHODS = ("accumulate", "at", "outer", "reduce", "reduceat")
copies: Counter[str] = Counter()  # from the device to the host, by what asked for them
REFUSED = "Implicit conversion to a NumPy array is not allowed. Please use `.get()`."
SHORT = ("float16", "bfloat16")


def unboxed(x: Any) -> Any:
    """Return what a device's function works on; raises TypeError for an array of NumPy's."""
    if isinstance(x, ndarray):
        return x.host
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, (list, tuple)):
        return type(x)(map(unboxed, x))
    if isinstance(x, dict):
        return {key: unboxed(value) for key, value in x.items()}
    return x


def boxed(x: Any) -> Any:
    """Return a result as the device gives it: arrays, also those of no axes."""
    if isinstance(x, np.ndarray | np.generic):
        return ndarray(np.asarray(x))
    if isinstance(x, (list, tuple)):
        return type(x)(map(boxed, x))
    return x


class ndarray:
    """An array on the device."""

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray):
        self.host = host

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(REFUSED)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **named: Any) -> Any:
        return boxed(getattr(ufunc, method)(*map(unboxed, inputs), **unboxed(named)))

    @property
    def device(self) -> "Device":
        """The device where the array is."""
        return Device()

    @property
    def flags(self) -> SimpleNamespace:
        """How the numbers lie in memory."""
        flags = self.host.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    def copied(self, why: str) -> np.ndarray:
        """Return the numbers on the host, and count the copy."""
        copies[why] += 1
        return self.host

    def get(self) -> np.ndarray:
        """Return the array as NumPy's."""
        return self.copied("get").copy()

    def item(self, *place: int) -> Any:
        """Return a number as Python's."""
        return self.copied("item").item(*place)

    def tolist(self) -> Any:
        """Return the numbers as lists."""
        return self.copied("tolist").tolist()

    def __float__(self) -> float:
        return float(self.copied("float"))

    def __int__(self) -> int:
        return int(self.copied("int"))

    def __bool__(self) -> bool:
        return bool(self.copied("bool"))

    def __index__(self) -> int:
        raise TypeError("only integer scalar arrays can be converted to a scalar index")

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator["ndarray"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"device {self.host!r}"

    def __getitem__(self, key: Any) -> "ndarray":
        indices = unboxed(key)
        parts = indices if isinstance(indices, tuple) else (indices,)
        if any(isinstance(part, np.ndarray) and part.dtype == bool for part in parts):
            copies["shape"] += 1
        return boxed(self.host[indices])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[unboxed(key)] = unboxed(value)

    def __getattr__(self, name: str) -> Any:
        if name not in API["ndarray"]:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        there = getattr(self.host, name)
        if not callable(there):
            return boxed(there)
        if name in SHAPED_BY_DATA:
            copies["shape"] += 1
        return lambda *given, **named: boxed(there(*map(unboxed, given), **unboxed(named)))


def operator(name: str, in_place: bool) -> Callable[..., Any]:
    """Return an operator of the device's arrays."""

    def operate(self: ndarray, *others: Any) -> Any:
        if name in ("__matmul__", "__rmatmul__"):
            pair = (self, *others) if name == "__matmul__" else (*others, self)
            return boxed(product(*map(unboxed, pair)))
        result = getattr(self.host, name)(*map(unboxed, others))
        if in_place:
            return self
        return result if result is NotImplemented else boxed(result)

    return operate


ARITHMETIC = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
COMPARISONS = "lt le gt ge eq ne neg pos abs invert"
for _name in ARITHMETIC.split():
    for _kind in ("", "r", "i"):
        setattr(ndarray, f"__{_kind}{_name}__", operator(f"__{_kind}{_name}__", _kind == "i"))
for _name in COMPARISONS.split():
    setattr(ndarray, f"__{_name}__", operator(f"__{_name}__", False))


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return a matrix product; that of short numbers is summed in float32 and rounded once."""
    if a.dtype.name not in SHORT:
        return np.matmul(a, b, out=out)
    exact = np.matmul(a.astype(np.float32), b.astype(np.float32))
    if out is None:
        return exact.astype(a.dtype)
    out[...] = exact.astype(a.dtype)
    return out


def function(name: str) -> Callable[..., Any]:
    """Return one of NumPy's functions as the device has it."""
    host: Any = product if name == "matmul" else getattr(np, name)
    keywords = API["functions"][name]

    def on_device(*given: Any, **named: Any) -> Any:
        lacking = [] if keywords is None else sorted(set(named) - set(keywords))
        if lacking:
            raise TypeError(f"cupy.{name}() got an unexpected keyword argument {lacking[0]!r}")
        if name in SHAPED_BY_DATA or (name == "where" and len(given) == 1):
            copies["shape"] += 1
        out = named.get("out")
        result = host(*map(unboxed, given), **unboxed(named))
        return out if out is not None else boxed(result)

    for method in UFUNC_METHODS if isinstance(host, np.ufunc) else ():
        setattr(on_device, method, of_ufunc(getattr(host, method)))
    return on_device


def of_ufunc(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ufunc's method as the device has it."""
    return lambda *given, **named: boxed(method(*map(unboxed, given), **unboxed(named)))


def __getattr__(name: str) -> Any:
    if name in API["functions"]:
        return function(name)
    if name in API["constants"]:
        return getattr(np, name)
    raise AttributeError(f"module 'cupy' has no attribute {name!r}")


def asarray(a: Any, dtype: Any = None) -> ndarray:
    """Return an array on the device: a copy of NumPy's, or itself."""
    if isinstance(a, ndarray) and (dtype is None or a.host.dtype == dtype):
        return a
    return array(a, dtype)


def array(a: Any, dtype: Any = None) -> ndarray:
    """Return a fresh array on the device."""
    return ndarray(np.array(a.host if isinstance(a, ndarray) else a, dtype))


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    """Return an array that holds nothing yet: NaN, which is noticed if nothing is put there."""
    return unwritten(np.empty(shape, dtype))


def empty_like(prototype: ndarray, dtype: Any = None, shape: Any = None) -> ndarray:
    """Return an array that holds nothing yet, of another's shape."""
    return unwritten(np.empty_like(unboxed(prototype), dtype, shape=shape))


def unwritten(host: np.ndarray) -> ndarray:
    """Box an array whose every bit is 1: NaN, or -1 in whole numbers."""
    host.reshape(-1).view(np.uint8)[...] = 0xFF
    return ndarray(host)


def ascontiguousarray(a: ndarray) -> ndarray:
    """Return an array whose numbers stand together: itself, or a copy."""
    return ndarray(np.ascontiguousarray(unboxed(a)))


def asnumpy(a: Any) -> np.ndarray:
    """Return an array as NumPy's."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


class Device:
    """The one device that there is."""

    compute_capability = "90"  # what a program asks for to choose its kernels

    def __init__(self, number: int = 0):
        self.id = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        """Wait for all that was launched: here nothing is ever under way."""


cuda = SimpleNamespace(Device=Device, runtime=SimpleNamespace(getDeviceCount=lambda: 1))
machines: list[Machine] = []  # the last one runs the kernels


def machine() -> Machine:
    """Return the emulated GPU that runs the kernels."""
    if not machines:
        machines.append(Machine())
    return machines[-1]


@contextmanager
def using(other: Machine) -> Iterator[Machine]:
    """Run kernels on another machine."""
    machines.append(other)
    try:
        yield other
    finally:
        machines.remove(other)


class RawModule:
    """Kernels, compiled from their text."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()):
        self.module = machine().compile(code, options)

    def get_function(self, name: str) -> "RawKernel":
        """Return a kernel."""
        return RawKernel(self.module.get_function(name))


class RawKernel:
    """A kernel that takes the device's arrays."""

    def __init__(self, kernel: Any):
        self.kernel = kernel

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0
    ) -> None:
        self.kernel(grid, block, tuple(map(unboxed, args)), shared_mem=shared_mem)
