"""Launch: a kernel gets its arguments, or an error that says what is wrong with them.

Why
    CuPy hands a kernel whatever it is given: an array of another precision, a view whose rows do
    not stand together, a Python float as eight bytes where the kernel reads four.  The kernel
    then reads other memory than was meant, and nobody is told.  So everything is checked here,
    against the kernel's signature, before anything runs: that is a few microseconds.

    A kernel is compiled when it is first launched, for the storage type and head size that its
    arguments have, and kept.
"""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from minigpt2.backend import Array
from minigpt2.device.signatures import Parameter, parameters_in
from minigpt2.device.source import text_of
from minigpt2.device.table import (
    HEAD_SIZES,
    KERNELS,
    STORAGE,
    Kernel,
    Sizes,
    options_of,
    threads_of,
)

NUMBERS = {"int": np.int32, "long long": np.int64, "float": np.float32}
MOST_INT = 2**31 - 1


@cache
def parameters_of(name: str) -> tuple[Parameter, ...]:
    """Return the parameters of a kernel, which its file is read for once."""
    return parameters_in(text_of(KERNELS[name].file), name)


def launch(library: ModuleType, name: str, *arrays: Array | None, **numbers: float) -> None:
    """Run a kernel on arrays of a library, in the order of its parameters.

    Numbers that no shape tells are named, as is D where no array shows it.  Raises TypeError or
    ValueError, before anything runs, for an argument that does not fit the kernel's signature.
    """
    kernel, given = KERNELS[name], iter(arrays)
    parameters = parameters_of(name)
    expected = sum(p.shape is not None for p in parameters)
    if len(arrays) != expected:
        raise TypeError(f"{name} takes {expected} arrays, not {len(arrays)}")
    sizes: Sizes = {"D": int(numbers.pop("D"))} if kernel.heads and "D" in numbers else {}
    found = {p.name: next(given) for p in parameters if p.shape is not None}
    storage = storage_of(name, parameters, found)
    for p in parameters:
        if p.shape is not None:
            check_array(library, name, p, found[p.name], storage, sizes)
    if why := misfit(kernel, sizes):
        raise ValueError(f"{name}: {why}")
    arguments = [
        found[p.name] if p.shape is not None else number_of(name, p, sizes, numbers)
        for p in parameters
    ]
    if numbers:
        raise TypeError(f"{name} has no number called {', '.join(numbers)}")
    grid = kernel.grid(sizes)
    if all(grid):  # CuPy would make one block out of none
        function = compiled(library, machine_of(library), name, storage, sizes.get("D", 0))
        function(grid, (threads_of(kernel, sizes.get("D", 0)),), tuple(arguments))


def storage_of(name: str, parameters: tuple[Parameter, ...], found: dict[str, Array]) -> str:
    """Return the storage type that the arrays of a launch have in common."""
    kinds = {found[p.name].dtype.name for p in parameters if p.type == "real" and stands(found, p)}
    if len(kinds) > 1:
        raise TypeError(f"{name} got arrays of {' and '.join(sorted(kinds))}; it wants one of them")
    kind = kinds.pop() if kinds else "float32"
    built = [kind for kind, storage in STORAGE.items() if storage in KERNELS[name].storage]
    if kind not in built:
        raise TypeError(f"{name} computes in {', '.join(built)}, not in {kind}")
    return kind


def stands(found: dict[str, Array], p: Parameter) -> bool:
    """Whether a parameter is an array that was given."""
    return found.get(p.name) is not None


def check_array(
    library: ModuleType, kernel: str, p: Parameter, array: Array, storage: str, sizes: Sizes
) -> None:
    """Raise unless an array is what its parameter says; learn the sizes from its shape."""
    what = f"{kernel}: {p.name}"
    if array is None:
        if not p.optional:
            raise TypeError(f"{what} is missing")
        return
    if not isinstance(array, library.ndarray):
        raise TypeError(f"{what} is a {type(array).__module__} array, not one on the device")
    if array.device != library.cuda.Device():
        raise ValueError(f"{what} is on {array.device}, the kernel on {library.cuda.Device()}")
    wanted = storage if p.type == "real" else f"{p.type}32"
    if array.dtype.name != wanted:
        raise TypeError(f"{what} holds {array.dtype.name}; it must hold {wanted}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{what} is a view whose numbers do not stand together; copy it first")
    shape = p.shape or ()
    expected = [
        int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
        for letter, size in zip(shape, array.shape, strict=False)
    ]
    if len(shape) != array.ndim or expected != list(array.shape):
        known = ", ".join(f"{letter} = {sizes[letter]}" for letter in shape if letter in sizes)
        raise ValueError(f"{what} has shape {array.shape}, not ({', '.join(shape)}) with {known}")


def fits(name: str, **sizes: int) -> bool:
    """Whether a kernel can do some sizes."""
    return not misfit(KERNELS[name], sizes)


def misfit(kernel: Kernel, sizes: Sizes) -> str:
    """Return which of some sizes a kernel cannot do, and why; empty if there is none."""
    for letter, step in kernel.multiples:
        if sizes[letter] % step:
            return f"{letter} = {sizes[letter]} must be a multiple of {step}"
    for letter, most in kernel.limits:
        if sizes[letter] > most:
            return f"{letter} = {sizes[letter]} is more than {most}"
    if kernel.heads and sizes["D"] not in HEAD_SIZES:
        return f"heads of {sizes['D']} features; {HEAD_SIZES} are built"
    return ""


def number_of(name: str, p: Parameter, sizes: Sizes, numbers: dict[str, Any]) -> np.generic:
    """Return a number with the bytes that the kernel reads: a size, or what the caller named."""
    if p.name not in sizes and p.name not in numbers:
        raise TypeError(f"{name} wants the number {p.name}")
    value = numbers.pop(p.name) if p.name in numbers else sizes[p.name]
    if p.type == "int" and not -MOST_INT - 1 <= value <= MOST_INT:
        raise ValueError(f"{name}: {p.name} = {value} does not fit into 32 bits")
    return NUMBERS[p.type](value)


def machine_of(library: ModuleType) -> Any:
    """Return what runs a library's kernels, if it can be exchanged: an emulated machine."""
    return library.machine() if hasattr(library, "machine") else None


@cache
def compiled(library: ModuleType, machine: Any, name: str, storage: str, d: int) -> Any:
    """Return a kernel, compiled for a storage type and a head size (0 for none)."""
    return module(library, machine, KERNELS[name].file, storage, d).get_function(name)


@cache
def module(library: ModuleType, machine: Any, file: str, storage: str, d: int) -> Any:
    """Return a file's kernels, compiled."""
    return library.RawModule(code=text_of(file), options=options_of(STORAGE[storage], d))
