"""Fused attention: attention's kernels in place of its formula, on a device.

There are two sets: attention_mma.cu for tensor cores, attention.cu for all else.  Both need, for
each tile of keys, the largest end of its rows.  That depends on the forest alone, so it is computed
once a step, not once a layer.
"""

from math import sqrt
from types import ModuleType
from typing import Any

from minigpt2.backend import Array, array_module
from minigpt2.device.kernel_specs import HEAD_SIZES, attention_tile
from minigpt2.device.launch import fits, launch
from minigpt2.ops.attention import Saved

MMA_TILE = 32  # STEP of attention_mma.cu


class ForestCache:
    """The last forest that was copied to the device: all layers of a step attend over the same."""

    def __init__(self) -> None:
        self.end: Array = None
        self.on_device: dict[Any, tuple[Array, Array]] = {}  # by library and tile

    def get(self, library: ModuleType, end: Array, tile: int) -> tuple[Array, Array]:
        """Return on the device `end` (N,) and the largest end of each tile of so many keys."""
        if end is not self.end:
            self.end, self.on_device = end, {}
        if (library, tile) not in self.on_device:
            ends = library.asarray(end, library.int32)
            max_end = library.empty(-(-len(end) // tile), library.int32)
            d = next(d for d in HEAD_SIZES if attention_tile(d) == tile)
            launch(library, "attention_max_end", ends, max_end, D=d)
            self.on_device[library, tile] = ends, max_end
        return self.on_device[library, tile]


FORESTS = ForestCache()


def attention_kernels(library: ModuleType, dtype: Any, d: int) -> tuple[str, int]:
    """Return what the kernels' names begin with, and the rows of their tiles of keys.

    Tensor cores need numbers of 16 bits and sm_80 or later.
    """
    tensor_cores = int(library.cuda.Device().compute_capability) >= 80
    if tensor_cores and dtype.itemsize == 2:
        return "attention_mma", MMA_TILE
    return "attention", attention_tile(d)


def attention(
    qkv: Array, end: Array, n_head: int, dropout: float = 0.0, seed: int = 0, block: int = 128
) -> Any:
    """Attend over the forest of `end` (N,), (8.1) to (8.11); returns o (N, C) and what it saves.

    NotImplemented with dropout, and for a head size that no kernel is compiled for.
    """
    xp, n, d = array_module(qkv), len(qkv), qkv.shape[1] // (3 * n_head)
    if dropout or not fits("attention_forward", D=d):
        return NotImplemented
    kernels, tile = attention_kernels(xp, qkv.dtype, d)
    o, lse = xp.empty((n, n_head, d), qkv.dtype), xp.empty((n_head, n), xp.float32)
    ends, max_end = FORESTS.get(xp, end, tile)
    heads = qkv.reshape(n, 3, n_head, d)
    launch(xp, f"{kernels}_forward", heads, ends, max_end, o, lse, scale=1 / sqrt(d))
    o = o.reshape(n, n_head * d)
    return o, Saved(qkv, end, o, lse[..., None], n_head, dropout, seed, block)


def attention_backward(do: Array, saved: Saved) -> Any:
    """Turn dL/do (N, C) into dL/dqkv (N, 3C), (8.12) to (8.20)."""
    xp, h, (n, c) = array_module(do), saved.n_head, do.shape
    d = c // h
    if saved.dropout or not fits("attention_forward", D=d):
        return NotImplemented
    kernels, tile = attention_kernels(xp, do.dtype, d)
    ends, max_end = FORESTS.get(xp, saved.end, tile)
    dqkv, delta = xp.empty((n, 3, h, d), do.dtype), xp.empty((h, n), xp.float32)
    qkv, d_o = saved.qkv.reshape(n, 3, h, d), do.reshape(n, h, d)
    o, lse = saved.o.reshape(n, h, d), saved.lse.reshape(h, n)
    launch(xp, "attention_delta", o, d_o, delta)
    for name in (f"{kernels}_dkv", f"{kernels}_dq"):
        launch(xp, name, qkv, d_o, ends, max_end, lse, delta, dqkv, scale=1 / sqrt(d))
    return dqkv.reshape(n, 3 * c)
