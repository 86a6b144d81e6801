"""BLAS: the two things that NumPy's OpenBLAS can do and NumPy does not offer.

`axpby` is a x + b y in one pass over memory where NumPy needs three.

`single_threaded_blas` lets each matrix product run on the thread that asks for it.  By default
OpenBLAS splits a product among all cores, and the caller waits until the last of its threads is
done.  That does not do where every core works on its own blocks (`parallel`), nor where another
program has one of the cores: then the thread that OpenBLAS waits for must first get a turn.

NumPy's wheels bring OpenBLAS in a folder next to NumPy or inside it.  Where NumPy's products are
another library's, axpby falls back to NumPy and the switch does nothing.
"""

import ctypes
import re
from collections.abc import Callable
from contextlib import ContextDecorator
from functools import cache
from itertools import product
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module


class OpenBLAS(NamedTuple):
    """The functions of NumPy's OpenBLAS that are used here."""

    get_threads: Callable[[], int]
    set_threads: Callable[[int], None]
    axpby: dict[str, Callable[..., None]]  # by the letter of NumPy's type


@cache
def openblas() -> OpenBLAS | None:
    """Return NumPy's OpenBLAS; None where NumPy's products are another library's.

    Without a wheel's copy, on Linux, it is looked for among the loaded libraries.
    """
    numpy, maps = Path(np.__file__).parent, Path("/proc/self/maps")
    wheels = [*numpy.parent.glob("numpy.libs/*openblas*"), *numpy.glob(".dylibs/*openblas*")]
    paths = [str(path) for path in wheels]
    if not paths and maps.exists():
        paths = sorted(set(re.findall(r"/\S*blas\S*\.so\S*", maps.read_text())))
    for path, prefix, suffix in product(paths, ("scipy_", ""), ("64_", "")):
        library = ctypes.PyDLL(path)  # these two calls are too short to release Python's lock
        get_threads = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
        set_threads = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
        if get_threads and set_threads:
            axpby = axpby_functions(path, f"{prefix}cblas_{{}}axpby{suffix}")
            return OpenBLAS(get_threads, set_threads, axpby)
    return None


def axpby_functions(path: str, name: str) -> dict[str, Callable[..., None]]:
    """Return a library's functions for y ← a x + b y, by the letter of NumPy's type."""
    library, functions = ctypes.CDLL(path), {}
    count = ctypes.c_int64 if name.endswith("64_") else ctypes.c_int
    for letter, blas_letter, number in (("f", "s", ctypes.c_float), ("d", "d", ctypes.c_double)):
        function = getattr(library, name.format(blas_letter), None)
        if function:
            vector = ctypes.c_void_p, count  # its address, and the stride of its elements
            function.argtypes = count, number, *vector, number, *vector
            function.restype = None
            functions[letter] = function
    return functions


def axpby(a: float, x: Array, b: float, y: Array) -> None:
    """Put a x + b y into y, of x and y (n,)."""
    blas = openblas() if array_module(y) is np else None
    routine = blas.axpby.get(y.dtype.char) if blas else None
    same_layout = x.dtype == y.dtype and x.shape == y.shape == (y.size,)
    if routine and same_layout and x.flags.c_contiguous and y.flags.carray:
        routine(y.size, a, address(x), 1, b, address(y), 1)
    else:
        y *= b
        y += a * x


def address(x: Array) -> int:
    """Return where an array begins in memory.  `x.ctypes` makes objects that outlive the call."""
    return x.__array_interface__["data"][0]


class SingleThreadedBLAS(ContextDecorator):
    """A context, or decorator, in which OpenBLAS runs each product on the thread that asks for it.

    Contexts may overlap, in one thread or in several: the first one in notes how many threads
    OpenBLAS had, and the last one out restores them.  Entering one returns that number, which is
    0 where NumPy's products are another library's.
    """

    def __init__(self) -> None:
        self.lock, self.entered, self.threads = Lock(), 0, 0

    def __enter__(self) -> int:
        with self.lock:
            self.entered += 1
            blas = openblas()
            if blas and self.entered == 1:
                self.threads = blas.get_threads()
                blas.set_threads(1)
            return self.threads

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.entered -= 1
            blas = openblas()
            if blas and not self.entered:
                blas.set_threads(self.threads)


single_threaded_blas = SingleThreadedBLAS()
