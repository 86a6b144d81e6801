"""Fused LoRA: its products made in place, and its gradients summed in float32.

The products are narrow, so what counts is how many launches there are, and what they read: x, dy
and the two sums, once each.
"""

from minigpt2.backend import Array, Target, array_module
from minigpt2.device.products import matmul
from minigpt2.device.side_stream import on_side_stream
from minigpt2.ops.lora import Saved


def lora(x: Array, y: Array, a: Array, b: Array, scale: float) -> tuple[Array, Saved]:
    """Add s x A B to y (N, K), (11.1) and (11.2)."""
    saved = lora_input(x, a, b, scale)
    matmul(saved.h, b, out=y, accumulate=True)
    return y, saved


def lora_input(x: Array, a: Array, b: Array, scale: float) -> Saved:
    """Return what the backward pass needs."""
    return Saved(x, matmul(x, a, scale=scale), a, b, scale)


def lora_backward(
    dy: Array, saved: Saved, dx: Array, *, a: Target | None = None, b: Target | None = None
) -> tuple[Array, Array, Array]:
    """Return dx (N, C), which is changed where it is, da (C, r) and db (r, K), (11.5) to (11.8).

    da and db are summed in float32; they are computed next to what follows.
    """
    xp = array_module(dy)
    da, add_a = a or (xp.empty(saved.a.shape, xp.float32), False)
    db, add_b = b or (xp.empty(saved.b.shape, xp.float32), False)
    dh = matmul(dy, saved.b, transpose_w=True, scale=saved.scale)
    with on_side_stream(xp, saved.x, saved.h, dh, dy, da, db):
        matmul(saved.h, dy, transpose_x=True, out=db, accumulate=add_b)
        matmul(saved.x, dh, transpose_x=True, out=da, accumulate=add_a)
    matmul(dh, saved.a, transpose_w=True, out=dx, accumulate=True)
    return dx, da, db
