"""Fused cross-entropy: its kernels in place of its formula, on a device.

One of them stages a row of 16-bit logits in shared memory, and so reads it once; it runs where a
row fits there.
"""

from types import ModuleType

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.device.fused_columns import gpu_has
from minigpt2.device.indices import index_on, weights_on
from minigpt2.device.launch import fits, launch

OF_THE_BLOCK = 256  # bytes of shared memory for what its warps exchange, and a few more
ASYNCHRONOUS = 80  # sm_80: the first with copies that do not wait


def nll_from_logits(logits: Array, targets: Array) -> Array:
    """Return the nll (B,) of logits (B, V) and targets (B,), (9.2) and (9.3)."""
    unused = array_module(logits).zeros(len(logits), np.float32)
    return cross_entropy(logits, targets, unused, gradient=False)


def nll_and_dlogits(logits: Array, targets: Array, weights: Array) -> Array:
    """Return the nll (B,) and overwrite the logits (B, V) by their gradient, (9.2) to (9.7)."""
    return cross_entropy(logits, targets, weights, gradient=True)


def cross_entropy(logits: Array, targets: Array, weights: Array, *, gradient: bool) -> Array:
    """Return the nll (B,); with `gradient`, overwrite the logits (B, V) by theirs."""
    xp = array_module(logits)
    nll = xp.empty(len(logits), xp.float32)
    arrays = logits, index_on(xp, targets), weights_on(xp, weights), nll
    launch_cross_entropy(*arrays, v=logits.shape[1], gradient=gradient)
    return nll


def launch_cross_entropy(
    logits: Array, targets: Array, weights: Array, nll: Array, *, v: int, gradient: bool
) -> None:
    """Put the nll (B,) of logits (B, W), of which V count in a row, into an array.

    With `gradient`, overwrite the logits by theirs.  All arrays are on the device.
    """
    xp = array_module(logits)
    kernel = "cross_entropy_staged" if staged_there(xp, logits) else "cross_entropy"
    launch(xp, kernel, logits, targets, weights, nll, V=v, gradient=gradient)


def staged_there(library: ModuleType, logits: Array) -> bool:
    """Return whether shared memory of this GPU has room for a row of these logits (B, W)."""
    size, width = logits.dtype.itemsize, logits.shape[1]
    if size > 2 or not fits("cross_entropy_staged", logits.dtype, W=width):
        return False
    if int(library.cuda.Device().compute_capability) < ASYNCHRONOUS:
        return False
    return size * width + OF_THE_BLOCK <= gpu_has(library, "MaxSharedMemoryPerBlockOptin")
