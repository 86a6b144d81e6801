"""Fused linear map: its products with bias and residual inside, its gradients made in place.

A row alone, as in the decoding of one sequence, is bound by reading the weights, and has a kernel
for that (kernels/linear_row.cu).
"""

from typing import Any

from minigpt2.backend import Array, Target, array_module
from minigpt2.device.fused_columns import bias_gradient
from minigpt2.device.kernel_specs import STORAGE
from minigpt2.device.launch import fits, launch
from minigpt2.device.products import matmul
from minigpt2.device.side_stream import on_side_stream
from minigpt2.ops.linear import Saved


def affine(x: Array, w: Array, b: Array | None, residual: Array | None) -> Array:
    """Return residual + x w + b (N, K), (2.1) and (2.5), in one launch."""
    c, k = w.shape
    if len(x) == 1 and x.dtype.name in STORAGE and fits("linear_row", x.dtype, C=c, K=k):
        xp = array_module(x)
        y = xp.empty((1, k), x.dtype)
        launch(xp, "linear_row", x, w, b, residual, y)
        return y
    return matmul(x, w, bias=b, residual=residual)


def linear_backward(
    dy: Array,
    saved: Saved,
    *,
    weight: Target | None = None,
    bias: Target | None = None,
    trains: bool = True,
) -> Any:
    """Return dx (N, C), dw (C, K) and db (K,) for dy (N, K), (2.2) to (2.4).

    dw is summed in float32, and added to a gradient without an array between them.  It is computed
    next to what follows, in float32 next to dx, too.
    """
    x, w, biased = saved
    dx = matmul(dy, w, transpose_w=True) if not trains or dy.itemsize == 2 else None
    if not trains:
        return dx, None, None
    xp, db = array_module(dy), None
    out, accumulate = weight or (xp.empty(w.shape, xp.float32), False)
    with on_side_stream(xp, x, dy, out):
        dw = matmul(x, dy, transpose_x=True, out=out, accumulate=accumulate)
        if biased:
            db = bias_gradient(dy, bias)
    return (matmul(dy, w, transpose_w=True) if dx is None else dx), dw, db
