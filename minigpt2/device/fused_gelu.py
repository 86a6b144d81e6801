"""Fused GELU: its kernels in place of its formula, with the bias before it and that one's gradient.

It saves its input, from which the backward pass computes the slope again.
"""

from typing import Any, NamedTuple

from minigpt2.backend import Array, Target, array_module
from minigpt2.device.fused_columns import column_totals, partial_sums
from minigpt2.device.launch import launch


class GeluSaved(NamedTuple):
    """What GELU saves here: its input, not the slope."""

    h: Array  # (N, F)
    b: Array | None  # (F,)


def gelu(h: Array, b: Array | None = None, backward: bool = True) -> Any:
    """Gate every element of h (N, F), or of h + b with b (F,), (5.1) to (5.3); returns y (N, F)."""
    y = array_module(h).empty(h.shape, h.dtype)
    launch(array_module(h), "gelu_forward", h, b, y)
    return y, GeluSaved(h, b)


def gelu_backward(dy: Array, saved: Any, *, bias: Target | None = None) -> Any:
    """Turn dL/dy (N, F) into dL/dh (N, F) and dL/db (F,), (5.5) to (5.7) and (2.4)."""
    if not isinstance(saved, GeluSaved):
        return NotImplemented
    dh, partial = array_module(dy).empty(dy.shape, dy.dtype), partial_sums(dy)
    launch(array_module(dy), "gelu_backward", dy, saved.h, saved.b, dh, partial)
    return dh, None if saved.b is None else column_totals(partial, bias)[0]
