"""Launch: a kernel gets its arguments, or an error that says what is wrong with them.

Why
    CuPy passes a kernel whatever it gets: an array of another precision, a view with gaps between
    its rows, a Python float as eight bytes where the kernel reads four.  The kernel then reads
    memory that it should not, without an error.  So `launch` checks every argument against the
    kernel's signature before anything runs, which takes a few microseconds.

    A kernel is compiled at its first launch, for the storage type and head size of its arguments,
    and the result is cached.
"""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from minigpt2.backend import Array
from minigpt2.device.includes import text_of
from minigpt2.device.kernel_specs import (
    ACCESS,
    BYTES,
    HEAD_SIZES,
    KERNELS,
    STORAGE,
    KernelSpec,
    Sizes,
    options_of,
    threads_of,
)
from minigpt2.device.signatures import Parameter, parameters_in

NUMBERS = {"int": np.int32, "long long": np.int64, "float": np.float32}
MAX_INT = 2**31 - 1


@cache
def parameters_of(name: str) -> tuple[Parameter, ...]:
    """Return the parameters of a kernel; its file is read at the first call."""
    return parameters_in(text_of(KERNELS[name].file), name)


def launch(library: ModuleType, name: str, *arrays: Array | None, **numbers: float) -> None:
    """Run a kernel on arrays of a library, in the order of its parameters.

    Sizes come from the shapes of the arrays; the caller names all other numbers, and D where no
    array has it in its shape.  Raises TypeError or ValueError, before anything runs, for an
    argument that does not fit the kernel's signature.
    """
    kernel, parameters = KERNELS[name], parameters_of(name)
    array_parameters = [p for p in parameters if p.shape is not None]
    if len(arrays) != len(array_parameters):
        raise TypeError(f"{name} takes {len(array_parameters)} arrays, not {len(arrays)}")
    sizes: Sizes = {"D": int(numbers.pop("D"))} if kernel.per_head_size and "D" in numbers else {}
    storage = storage_of(name, array_parameters, arrays)
    for p, array in zip(array_parameters, arrays, strict=True):
        check_array(library, name, p, array, storage, sizes)
    if why := misfit(kernel, STORAGE[storage], sizes):
        raise ValueError(f"{name}: {why}")
    remaining = iter(arrays)
    arguments = [
        next(remaining) if p.shape is not None else number_of(name, p, sizes, numbers)
        for p in parameters
    ]
    if numbers:
        raise TypeError(f"{name} has no number called {', '.join(numbers)}")
    grid = kernel.grid(sizes)
    if all(grid):  # CuPy would make one block out of none
        options = options_of(kernel, STORAGE[storage], sizes)
        shared = kernel.shared(sizes, BYTES[STORAGE[storage]]) if kernel.shared else 0
        function = compiled(library, machine_of(library), name, options, shared)
        block = (threads_of(kernel, options),)
        function(grid, block, tuple(arguments), shared_mem=shared)


def storage_of(name: str, parameters: list[Parameter], arrays: tuple[Array | None, ...]) -> str:
    """Return the common dtype of a launch's arrays of the storage type, by its name.

    Raises TypeError if they have several, or one that the kernel is not compiled for.
    """
    dtypes = {
        array.dtype.name
        for p, array in zip(parameters, arrays, strict=True)
        if p.type == "real" and array is not None
    }
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
    library: ModuleType, kernel: str, p: Parameter, array: Array, storage: str, sizes: Sizes
) -> None:
    """Raise unless an array fits its parameter; add the sizes in its shape to `sizes`."""
    what = f"{kernel}: {p.name}"
    if array is None:
        if not p.optional:
            raise TypeError(f"{what} is missing")
        return
    if not isinstance(array, library.ndarray):
        raise TypeError(f"{what} is a {type(array).__module__} array, not one on the device")
    if array.device != library.cuda.Device():
        raise ValueError(f"{what} is on {array.device}, the kernel on {library.cuda.Device()}")
    dtype = storage if p.type == "real" else f"{p.type}32"
    if array.dtype.name != dtype:
        raise TypeError(f"{what} holds {array.dtype.name}; it must hold {dtype}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{what} is a view that is not contiguous; copy it first")
    shape = p.shape or ()
    expected = [
        int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
        for letter, size in zip(shape, array.shape, strict=False)
    ]
    if len(shape) != array.ndim or expected != list(array.shape):
        known = ", ".join(f"{letter} = {sizes[letter]}" for letter in shape if letter in sizes)
        raise ValueError(f"{what} has shape {array.shape}, not ({', '.join(shape)}) with {known}")


def fits(name: str, dtype: Any = np.float32, **sizes: int) -> bool:
    """Return whether a kernel can run with these sizes on arrays of a dtype."""
    return not misfit(KERNELS[name], STORAGE.get(np.dtype(dtype).name, "float"), sizes)


def misfit(kernel: KernelSpec, storage: str, sizes: Sizes) -> str:
    """Return which of the sizes a kernel cannot run with, and why; empty if it can."""
    whole = [(letter, ACCESS // BYTES[storage]) for letter in kernel.whole]
    for letter, step in (*kernel.multiples, *whole):
        if sizes[letter] % step:
            return f"{letter} = {sizes[letter]} must be a multiple of {step}"
    for letter, limit in kernel.limits:
        if sizes[letter] > limit:
            return f"{letter} = {sizes[letter]} is more than {limit}"
    if kernel.per_head_size and sizes["D"] not in HEAD_SIZES:
        return f"heads of {sizes['D']} features; {HEAD_SIZES} are built"
    return ""


def number_of(name: str, p: Parameter, sizes: Sizes, numbers: dict[str, Any]) -> np.generic:
    """Return a number as the kernel reads it: one of the sizes, or one that the caller named.

    A number that the caller named is taken out of `numbers`.
    """
    if p.name not in sizes and p.name not in numbers:
        raise TypeError(f"{name} needs the number {p.name}")
    value = numbers.pop(p.name) if p.name in numbers else sizes[p.name]
    if p.type == "int" and not -MAX_INT - 1 <= value <= MAX_INT:
        raise ValueError(f"{name}: {p.name} = {value} does not fit into 32 bits")
    return NUMBERS[p.type](value)


def machine_of(library: ModuleType) -> Any:
    """Return the emulated machine that runs a library's kernels; None for a real GPU."""
    return library.machine() if hasattr(library, "machine") else None


@cache
def compiled(
    library: ModuleType, machine: Any, name: str, options: tuple[str, ...], shared: int
) -> Any:
    """Return a kernel, compiled with some options, for launches with so much dynamic memory."""
    function = compiled_file(library, machine, KERNELS[name].file, options).get_function(name)
    if shared > function.max_dynamic_shared_size_bytes:
        function.max_dynamic_shared_size_bytes = shared
    return function


@cache
def compiled_file(library: ModuleType, machine: Any, file: str, options: tuple[str, ...]) -> Any:
    """Return all kernels of a file, compiled."""
    return library.RawModule(code=text_of(file), options=options)
