"""Recomputation: what a block saves, and what it recomputes from less.

A block that recomputes saves a Checkpoint.  Its backward pass recomputes the other arrays, each
when it is needed: those of the MLP first, the normalised input last.
"""

from typing import Any, NamedTuple

from minigpt2.backend import Array
from minigpt2.model.layer import layer, layer_input
from minigpt2.ops.embedding import chosen_rows
from minigpt2.ops.gelu import gelu
from minigpt2.ops.layer_norm import layer_norm


class Saved(NamedTuple):
    """What the backward pass needs: what each op saved, in the order of the forward pass."""

    ln_1: Any
    c_attn: Any
    attn: Any
    attn_proj: Any
    attn_drop: Any
    ln_2: Any
    c_fc: Any
    act: Any
    mlp_proj: Any
    mlp_drop: Any
    rows: Array | None  # (R,)


class Checkpoint(NamedTuple):
    """What a block keeps with recomputation, and what recomputing the other arrays takes."""

    x: Array  # (N, C)
    r: Array  # (R, C), R = N where all rows are needed
    attn: Any
    attn_drop: Any
    mlp_drop: Any
    rows: Array | None  # (R,)
    p: dict[str, Array]
    eps: float
    lora_scale: float
    u: Array | None = None  # (R, 4C) without its bias, if it is kept


def recomputed(checkpoint: Checkpoint) -> Saved:
    """Recompute what the backward pass needs, from a checkpoint, but for what comes last."""
    _, r, attn, attn_drop, mlp_drop, rows, p, eps, scale, u = checkpoint
    (o_s,) = chosen_rows(rows, attn.o)  # (R, C)  (15.21)
    attn_proj = layer_input(o_s, p, "attn.c_proj", scale)
    h_2, ln_2 = layer_norm(r, p["ln_2.weight"], p["ln_2.bias"], eps)  # (R, C)  (15.6)
    if u is None:
        u, c_fc = layer(h_2, p, "mlp.c_fc", scale, biased=False)  # (R, 4*C)  (15.7)
    else:
        c_fc = layer_input(h_2, p, "mlp.c_fc", scale, biased=False)
    g, act = gelu(u, p["mlp.c_fc.bias"])  # (R, 4*C)  (15.8)
    mlp_proj = layer_input(g, p, "mlp.c_proj", scale)
    return Saved(None, None, attn, attn_proj, attn_drop, ln_2, c_fc, act, mlp_proj, mlp_drop, rows)


def recomputed_input(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Recompute what the first normalisation and the first product save."""
    p = checkpoint.p
    h, ln_1 = layer_norm(
        checkpoint.x, p["ln_1.weight"], p["ln_1.bias"], checkpoint.eps
    )  # (N, C)  (15.1)
    return ln_1, layer_input(h, p, "attn.c_attn", checkpoint.lora_scale)
