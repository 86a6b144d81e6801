"""Fused layer normalisation: its kernels in place of its formula, on a device.

It saves x and two numbers a row, from which the backward pass computes x̂ again.
"""

from typing import Any, NamedTuple

from minigpt2.backend import Array, Target, array_module
from minigpt2.device.fused_columns import column_totals, multiprocessors
from minigpt2.device.kernel_specs import parts_of, sets_of
from minigpt2.device.launch import fits, launch

THREADS = 768  # of the backward pass on a multiprocessor


class LayerNormSaved(NamedTuple):
    """What layer normalisation saves here: x and two numbers a row, not x̂."""

    x: Array  # (N, C)
    mean: Array  # (N,)
    rstd: Array  # (N,) r of (4.3)
    gamma: Array  # (C,)


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> Any:
    """Normalise each row of x (N, C), (4.1) to (4.5); returns y (N, C)."""
    if not fits("layer_norm_forward", C=x.shape[1]):
        return NotImplemented
    xp, n = array_module(x), len(x)
    y, mean, rstd = xp.empty(x.shape, x.dtype), xp.empty(n, xp.float32), xp.empty(n, xp.float32)
    launch(xp, "layer_norm_forward", x, gamma, beta, y, mean, rstd, eps=eps)
    return y, LayerNormSaved(x, mean, rstd, gamma)


def layer_norm_backward(
    dy: Array,
    saved: Any,
    d_residual: Array | None = None,
    *,
    weight: Target | None = None,
    bias: Target | None = None,
) -> Any:
    """Return dx (N, C), dgamma (C,) and dbeta (C,) for dy (N, C), (4.6) to (4.21)."""
    if not isinstance(saved, LayerNormSaved):
        return NotImplemented
    xp, (n, c) = array_module(dy), dy.shape
    x, mean, rstd, gamma = saved
    dx = xp.empty(dy.shape, dy.dtype)
    parts = parts_of(c, dy.dtype.itemsize)
    blocks = max(1, THREADS // (32 * parts * sets_of(parts))) * multiprocessors(xp)
    partial = xp.empty((max(1, min(-(-n // sets_of(parts)), blocks)), 2, c), xp.float32)
    launch(xp, "layer_norm_backward", dy, x, gamma, mean, rstd, d_residual, dx, partial)
    return dx, *column_totals(partial.reshape(len(partial), 2 * c), weight, bias)
