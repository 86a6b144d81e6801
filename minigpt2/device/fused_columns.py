"""Fused column sums: how many blocks share the rows of a matrix, and what adds up their results.

Each block writes the sums over its rows; column_total adds those of all blocks, in order.
"""

from functools import cache
from types import ModuleType

import numpy as np

from minigpt2.backend import Array, Target, array_module, deliver
from minigpt2.device.kernel_specs import ACCESS
from minigpt2.device.launch import launch
from minigpt2.device.side_stream import on_side_stream

ROWS = 32  # that a block adds up, at least: eight warps with four each
BLOCKS = 4  # of 256 threads, on a multiprocessor


def column_sums(dy: Array) -> Array:
    """Return the sums over the rows of dy (N, K), (K,), in float32, (2.4)."""
    return bias_gradient(dy, None)


def bias_gradient(dy: Array, target: Target | None) -> Array:
    """Put the sums over the rows of dy (N, K), (2.4), where they belong, and return them there."""
    partial = partial_sums(dy)
    launch(array_module(dy), "column_sums", dy, partial)
    return column_totals(partial, target)[0]


def partial_sums(x: Array) -> Array:
    """Return memory for the sums over runs of the rows of x (N, K), (R, K): not written yet."""
    xp, (n, k) = array_module(x), x.shape
    parts = -(-k * x.dtype.itemsize // (32 * ACCESS))
    blocks = min(-(-n // ROWS), BLOCKS * multiprocessors(xp) // parts)
    return xp.empty((max(1, blocks), k), xp.float32)


def column_totals(partial: Array, *targets: Target | None) -> list[Array]:
    """Put the sums over partial (R, K) where they belong, in one or two equal parts.

    Returns the array of each part; without a target, a fresh one.
    """
    xp, k = array_module(partial), partial.shape[1] // len(targets)
    here = [target if target and fits_here(target.array) else None for target in targets]
    arrays = [target.array if target else xp.empty(k, xp.float32) for target in here]
    add = [bool(target and target.accumulate) for target in here]
    second = arrays[1] if len(arrays) > 1 else None
    with on_side_stream(xp, partial, *arrays, small=True):
        launch(xp, "column_total", partial, arrays[0], second, add_first=add[0], add_second=add[-1])
    rest = zip(arrays, targets, here, strict=True)
    return [array if own else deliver(array, target) for array, target, own in rest]


def fits_here(array: Array) -> bool:
    """Return whether the kernel may write its sums into an array itself."""
    return bool(array.dtype == np.float32 and array.flags.c_contiguous)


def multiprocessors(library: ModuleType) -> int:
    """Return the number of multiprocessors of the GPU in use."""
    return gpu_has(library, "MultiProcessorCount")


def memory_rate(library: ModuleType) -> float:
    """Return the bytes a second of the memory of the GPU in use, by its data sheet.

    The clock is in kHz, the bus in bits, and memory is read twice in a clock.
    """
    return 250.0 * gpu_has(library, "MemoryClockRate") * gpu_has(library, "GlobalMemoryBusWidth")


def gpu_has(library: ModuleType, attribute: str) -> int:
    """Return an attribute of the GPU in use, by CUDA's name for it."""
    return attribute_of(library, library.cuda.runtime.getDevice(), attribute)


@cache
def attribute_of(library: ModuleType, device: int, attribute: str) -> int:
    """Return an attribute of a GPU."""
    return int(library.cuda.Device(device).attributes[attribute])
