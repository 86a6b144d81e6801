"""Kernels under test: a device to run them on, and comparisons with exact results.

The device is emulated, or with `pytest --device cuda` the GPU of this machine; the tests are the
same.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.device import fake_cupy
from minigpt2.device.compile import compiler
from minigpt2.device.devices import open_device
from minigpt2.device.emulator import Machine
from minigpt2.device.fused import FUSED
from tests.device_option import device_under_test

DEVICE = device_under_test()
ON_GPU = DEVICE == "cuda"
needs_compiler = pytest.mark.skipif(not compiler(), reason="no C++ compiler to run kernels with")
needs_device = pytest.mark.skipif(
    not ON_GPU and not compiler(), reason="no C++ compiler to run kernels with"
)
emulated_only = pytest.mark.skipif(ON_GPU, reason="only an emulated device counts and checks")
SHORT = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
BITS = {"float16": 11, "bfloat16": 8}  # of a number's fraction
SINGLE = 2e-6  # largest error of a kernel in float32, relative to the largest number of the result
MACHINES = {}  # one for each way of running, so that a kernel is loaded once


GPU = SimpleNamespace(findings=[])  # a GPU has no order and reports no findings


def machine(**options):
    """A machine with these options, shared by all tests that ask for the same; or the GPU."""
    key = tuple(sorted(options.items()))
    return GPU if ON_GPU else MACHINES.setdefault(key, Machine(**options))


@contextmanager
def device(on):
    """CuPy in use, or the fake CuPy with its kernels on this machine."""
    libraries, fused = list(backend.LIBRARIES), dict(backend.FUSED)
    try:
        if on is GPU:
            cupy = open_device("cuda")
            with cupy.cuda.using_allocator(unwritten(cupy)):
                yield cupy
        else:
            backend.register(fake_cupy, FUSED)
            fake_cupy.copies.clear()
            with fake_cupy.using(on):
                yield fake_cupy
    finally:
        backend.LIBRARIES[:] = libraries
        backend.FUSED.clear()
        backend.FUSED.update(fused)


def unwritten(cupy):
    """An allocator of memory whose every bit is 1, like that of the fake CuPy: NaN, or -1."""
    pool = cupy.get_default_memory_pool()

    def allocate(size):
        memory = pool.malloc(size)
        if size:
            memory.memset_async(0xFF, size)  # into the stream that the kernels are in
        return memory

    return allocate


def single(*shape, seed=0, scale=1.0):
    """Random numbers that float32 holds."""
    rng = np.random.default_rng([seed, *shape])
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def exactly(array):
    """An array in float64: what a reference computes with."""
    return np.asarray(array, np.float64)


def run_on(on, job, dtype=None):
    """The results of a job on a machine, as NumPy's arrays; its inputs are rounded to a dtype."""
    with device(on) as xp:
        return [xp.asnumpy(r) for r in job(lambda array: xp.asarray(array, dtype))]


def error_of(result, exact):
    """The largest difference, relative to the largest number of the exact result."""
    exact = exactly(exact)
    difference = abs(exactly(result).reshape(exact.shape) - exact).max(initial=0)
    return difference / max(abs(exact).max(initial=0), 1e-30)


def assert_close(results, exact, bound=SINGLE):
    """Every result is finite and as exact as it must be."""
    for result, reference in zip(results, exact, strict=True):
        assert np.isfinite(result).all()
        assert error_of(result, reference) <= bound
