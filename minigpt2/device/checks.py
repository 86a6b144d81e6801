"""Checks: whether the arguments of a launch fit the kernel's signature.

Each function raises TypeError or ValueError with the name of the kernel and of the parameter.
"""

from functools import cache
from operator import attrgetter
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigpt2.device.kernel_specs import KERNELS, STORAGE, Sizes
from minigpt2.device.signatures import Parameter

NUMBERS = {"int": np.int32, "long long": np.int64, "float": np.float32}
MAX_INT = 2**31 - 1
# As `Traits`.  `array.flags` and `array.device` say the same, but make an object at each call.
traits_of = attrgetter("shape", "dtype", "_c_contiguous", "data.device_id")


class Traits(NamedTuple):
    """All that the checks of an array depend on."""

    shape: tuple[int, ...]
    dtype: np.dtype
    contiguous: bool
    device: int


def refuse_others(
    library: ModuleType, name: str, parameters: tuple[Parameter, ...], arrays: tuple[Any, ...]
) -> None:
    """Raise TypeError for an array that is not one of the library's."""
    for p, array in zip(parameters, arrays, strict=False):
        if array is not None and not isinstance(array, library.ndarray):
            raise TypeError(
                f"{name}: {p.name} is a {type(array).__module__} array, not one on the device"
            )


@cache
def name_of(dtype: np.dtype) -> str:
    """Return the name of a dtype, which NumPy puts together at each call."""
    return dtype.name


def storage_of(name: str, pairs: list[tuple[Parameter, Traits | None]]) -> str:
    """Return the common dtype of a launch's arrays of the storage type, by its name.

    Raises TypeError if they have several, or one that the kernel is not compiled for.
    """
    dtypes = {name_of(of.dtype) for p, of in pairs if p.type == "real" and of is not None}
    if len(dtypes) > 1:
        raise TypeError(
            f"{name} got arrays of {' and '.join(sorted(dtypes))}; all must be the same"
        )
    dtype = dtypes.pop() if dtypes else "float32"
    built = [dtype for dtype, storage in STORAGE.items() if storage in KERNELS[name].storage]
    if dtype not in built:
        raise TypeError(f"{name} computes in {', '.join(built)}, not in {dtype}")
    return dtype


def check_array(
    kernel: str, p: Parameter, array: Traits | None, storage: str, device: int, sizes: Sizes
) -> None:
    """Raise unless an array fits its parameter; add the sizes in its shape to `sizes`."""
    what = f"{kernel}: {p.name}"
    if array is None:
        if not p.optional:
            raise TypeError(f"{what} is missing")
        return
    if array.device != device:
        raise ValueError(f"{what} is on device {array.device}, the kernel on device {device}")
    dtype = storage if p.type == "real" else f"{p.type}32"
    if name_of(array.dtype) != dtype:
        raise TypeError(f"{what} holds {name_of(array.dtype)}; it must hold {dtype}")
    if not array.contiguous:
        raise ValueError(f"{what} is a view that is not contiguous; copy it first")
    shape = p.shape or ()
    expected = [
        int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
        for letter, size in zip(shape, array.shape, strict=False)
    ]
    if len(shape) != len(array.shape) or expected != list(array.shape):
        known = ", ".join(f"{letter} = {sizes[letter]}" for letter in shape if letter in sizes)
        raise ValueError(f"{what} has shape {array.shape}, not ({', '.join(shape)}) with {known}")


def number_of(name: str, p: Parameter, value: Any) -> np.generic:
    """Return a number as the kernel reads it.  Raises ValueError for one of more than 32 bits."""
    if not -MAX_INT - 1 <= value <= MAX_INT:
        raise ValueError(f"{name}: {p.name} = {value} does not fit into 32 bits")
    return np.int32(value)
