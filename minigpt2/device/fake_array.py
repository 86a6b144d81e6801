"""Fake array: a NumPy array that behaves as one of CuPy's, and counts its copies to the host."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np

from minigpt2.device.fake_stream import Stream, computed, record, refuse

API = json.loads((Path(__file__).parent / "cupy_api.json").read_text(encoding="utf-8"))
# Functions that must look at the data to know how large their result is.
SHAPED_BY_DATA = {
    *("argwhere", "bincount", "compress", "extract", "flatnonzero", "intersect1d", "nonzero"),
    *("setdiff1d", "setxor1d", "union1d", "unique"),
}
copies: Counter[str] = Counter()  # from the device to the host, by cause
REFUSED = "Implicit conversion to a NumPy array is not allowed. Please use `.get()`."
SHORT = ("float16", "bfloat16")


def unboxed(x: Any) -> Any:
    """Return the NumPy array inside a device array.  Raises TypeError for a NumPy array.

    Lists, tuples and dicts are unwrapped item by item; all else is returned as it is.
    """
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
    """Return a result as the device has it: arrays, also in place of numbers."""
    if isinstance(x, np.ndarray | np.generic):
        return ndarray(np.asarray(x))
    if isinstance(x, (list, tuple)):
        return type(x)(map(boxed, x))
    return x


class Device:
    """The only device, by whose traits a program chooses its kernels: an H200's, with less room."""

    compute_capability = "90"
    attributes = MappingProxyType(
        {
            "MultiProcessorCount": 132,
            "MaxSharedMemoryPerBlockOptin": 99 << 10,
            "MemoryClockRate": 3_201_000,  # kHz
            "GlobalMemoryBusWidth": 6144,  # bits
        }
    )

    def __init__(self, number: int = 0):
        self.id = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        """Wait for all launches; here a launch has ended when it returns."""


class ndarray:
    """An array on the device."""

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray):
        self.host = host

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(REFUSED)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        refuse(ufunc.__name__)
        return boxed(getattr(ufunc, method)(*map(unboxed, inputs), **unboxed(keywords)))

    @property
    def device(self) -> "Device":
        """The device where the array is."""
        return Device()

    @property
    def flags(self) -> SimpleNamespace:
        """How the numbers lie in memory."""
        flags = self.host.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    @property
    def _c_contiguous(self) -> bool:
        """Whether the numbers lie in one piece, row by row: as `flags`, and faster in CuPy."""
        return self.host.flags.c_contiguous

    @property
    def data(self) -> SimpleNamespace:
        """Where the memory is."""
        return SimpleNamespace(ptr=self.host.ctypes.data, device_id=0)

    def copied(self, cause: str) -> np.ndarray:
        """Return the array on the host, and count the copy."""
        refuse(f"a copy to the host, by {cause}")
        copies[cause] += 1
        return self.host

    def get(
        self, stream: Any = None, out: np.ndarray | None = None, blocking: bool = True
    ) -> np.ndarray:
        """Return the array as a NumPy array, or in `out`; unless blocking, without waiting.

        A copy on a stream of its own is not refused while another one captures.
        """
        if stream is None or stream is Stream.capturing:
            host = self.copied("get")
        else:
            copies["get"] += 1
            host = self.host
        out = np.empty_like(host) if out is None else out
        queue = (stream or Stream.current).copies
        queue.send(host, out)
        if blocking:
            queue.wait_for(queue.sent)
        return out

    def set(self, host: np.ndarray) -> None:
        """Copy a NumPy array of the same shape and type into the array."""
        refuse("a copy from the host")
        if not isinstance(host, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if host.dtype != self.host.dtype or host.shape != self.host.shape:
            mine = f"{self.host.dtype} {self.host.shape}"
            raise ValueError(f"{host.dtype} {host.shape} cannot be set to {mine}")
        self.host[...] = host

    def fill(self, value: Any) -> None:
        """Put one number everywhere."""
        record(np.ndarray.fill, self.host, value)

    def item(self, *index: int) -> Any:
        """Return an element as a Python number."""
        return self.copied("item").item(*index)

    def tolist(self) -> Any:
        """Return the array as nested lists."""
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
        return boxed(computed("view", self.host.__getitem__, (self.host,), (indices,), {}))

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse("an assignment to elements")
        self.host[unboxed(key)] = unboxed(value)

    def __getattr__(self, name: str) -> Any:
        if name not in API["ndarray"]:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        attribute = getattr(self.host, name)
        if not callable(attribute):
            return boxed(attribute)
        if name in SHAPED_BY_DATA:
            copies["shape"] += 1
        return method_on_device(attribute, name, self.host)


def operator(name: str, in_place: bool) -> Callable[..., Any]:
    """Return an operator of the device's arrays."""

    def operate(self: ndarray, *others: Any) -> Any:
        refuse(name)
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
    """Return a matrix product; one of 16-bit numbers is summed in float32 and rounded once."""
    if a.dtype.name not in SHORT:
        return np.matmul(a, b, out=out)
    exact = np.matmul(a.astype(np.float32), b.astype(np.float32))
    if out is None:
        return exact.astype(a.dtype)
    out[...] = exact.astype(a.dtype)
    return out


def method_on_device(
    method: Callable[..., Any], name: str = "", *arrays: np.ndarray
) -> Callable[..., Any]:
    """Return a method of a NumPy array or ufunc for device arrays."""

    def on_device(*args: Any, **kwargs: Any) -> Any:
        hosts, named = tuple(map(unboxed, args)), unboxed(kwargs)
        return boxed(computed(name, method, (*arrays, hosts, named), hosts, named))

    return on_device
