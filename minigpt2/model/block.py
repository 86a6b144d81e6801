"""Block: a branch that looks at other tokens, a branch that thinks, both added to the stream.

Why
    The residual stream x carries a token's features through the network.  A block never
    replaces them: it reads the stream, normalised, and adds what it found.  So
    the gradient, too, has a way back on which nothing multiplies it.

Definition, with ln (4.5), drop (7.1), attention (8.4) and gelu (5.3)
    r = x + drop( attention( ln₁(x) W₁ + b₁ ) W₂ + b₂ )            (14.1)
    y = r + drop( gelu( ln₂(r) W₃ + b₃ ) W₄ + b₄ )                 (14.2)
    W₁ to W₄ are the weights of attn.c_attn, attn.c_proj, mlp.c_fc and mlp.c_proj.
    In the code h is what ln gives, o what attention gives, u and g stand before
    and after gelu, and a and m are what the two branches add.
    (Radford et al. 2019, section 2.3: the normalisation at the input of each
    branch.)

Derivation, writing dz for ∂ℒ/∂z
    In (14.2) r stands twice, in the sum and under ln₂, so its gradients add:
    dr = dy + [the MLP's branch of (14.2), backward]( dy )         (14.3)
    and in (14.1) so does x:
    dx = dr + [attention's branch of (14.1), backward]( dr )       (14.4)
    Within a branch each op's backward takes what the op after it returned:
    the forward pass, read upward.

    Behind attention a row of (14.1) and (14.2) needs the same row of x and of attention's output
    alone.  So where later ops read only some rows S of y, as those of a loss do, both are made
    for these rows only, from
    x_S, attention( … )_S                                          (14.5)
    and since nothing reads the others, the gradients that they send back are zero:
    d attention( … )ᵢ = 0 and, of (14.4)'s sum, drᵢ = 0 for i not in S   (14.6)

Read it
    With both projections at 0 the block is the identity, forward and backward.

Cost
    24·N·C² operations forward in the four products, twice that backward, and
    attention's.  Keeps 16·N·C + N·H + 2·N numbers; with recomputation (selective
    activation checkpointing) 6·N·C + N·H: x, r, o, and q, k, v.  From these the
    backward pass makes the rest again, which takes two normalisations, one GELU
    and one product, 8·N·C² operations; m is never made again, for nothing needs
    it.  Of all that a block makes, o and the logarithms save the most time for their
    memory, and what lies between W₃ and W₄ holds the most.  (Korthikanti et al. 2022,
    section 5, keep and leave other parts, for the same reason.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.model.gradients import Gradients
from minigpt2.ops.attention import attention, attention_backward
from minigpt2.ops.dropout import dropout, dropout_backward
from minigpt2.ops.embedding import scatter_add
from minigpt2.ops.gelu import gelu, gelu_backward
from minigpt2.ops.layer_norm import add_layer_norm, layer_norm, layer_norm_backward
from minigpt2.ops.linear import Saved as Linear
from minigpt2.ops.linear import linear, linear_backward

Attend = Callable[..., tuple[Array, Any]]  # attention, or what stands in for it


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
    read: Array | None  # (R,)


class Kept(NamedTuple):
    """What a block keeps with recomputation, and what it takes to make the rest again."""

    x: Array  # (N, C)
    r: Array  # (R, C), R = N where all rows are read
    attn: Any
    attn_drop: Any
    mlp_drop: Any
    read: Array | None  # (R,)
    p: dict[str, Array]
    eps: float


def block(
    x: Array,
    end: Array,
    p: dict[str, Array],
    n_head: int,
    eps: float = 1e-5,
    drop: float = 0.0,
    seed: int = 0,
    attend: Attend = attention,
    recompute: bool = False,
    backward: bool = True,
    read: Array | None = None,
) -> tuple[Array, Any]:
    """Run one block on the stream x (N, C) over the forest end (N,); returns y (N, C).

    p holds the block's tensors by name; `drop` is the dropout rate and `seed` fixes its masks.
    Another `attend` than attention itself takes its place and its arguments; going backward
    needs attention.  With `recompute` it keeps little, and block_backward makes the rest again;
    where no `backward` pass follows it keeps nothing.  Where only the rows `read` (R,) of y matter,
    each named once, it returns these, (R, C).
    """
    rng = np.random.default_rng(seed) if drop else None
    h, ln_1 = layer_norm(x, p["ln_1.weight"], p["ln_1.bias"], eps)  # (N, C)  (14.1)
    qkv, c_attn = linear(h, p["attn.c_attn.weight"], p["attn.c_attn.bias"])  # (N, 3*C)  (14.1)
    o, attn = attend(qkv, end, n_head, drop, seed)  # (N, C)  (14.1)
    x_s, o_s = of_rows(read, x, o)  # (R, C)  (14.5)
    a, attn_proj = linear(o_s, p["attn.c_proj.weight"], p["attn.c_proj.bias"])  # (R, C)  (14.1)
    a, attn_drop = dropout(a, drop, rng)  # (R, C)  (14.1)
    r, h, ln_2 = add_layer_norm(x_s, a, p["ln_2.weight"], p["ln_2.bias"], eps)  # (14.1) (14.2)
    g, c_fc, act = gated(h, p, backward and not recompute)  # (R, 4*C)  (14.2)
    m, mlp_proj = linear(g, p["mlp.c_proj.weight"], p["mlp.c_proj.bias"])  # (R, C)  (14.2)
    m, mlp_drop = dropout(m, drop, rng)  # (R, C)  (14.2)
    y = r + m  # (R, C)  (14.2)
    if not backward:
        return y, None
    if recompute:
        return y, Kept(x, r, attn, attn_drop, mlp_drop, read, p, eps)
    saved = Saved(
        ln_1, c_attn, attn, attn_proj, attn_drop, ln_2, c_fc, act, mlp_proj, mlp_drop, read
    )
    return y, saved


def of_rows(read: Array | None, *arrays: Array) -> tuple[Array, ...]:
    """Return the rows `read` (R,) of arrays (N, C), or all of them."""
    if read is None:
        return arrays
    chosen = array_module(arrays[0]).asarray(read)
    return tuple(array[chosen] for array in arrays)


def among_all(read: Array | None, n: int, rows: Array) -> Array:
    """Return an array (N, C) with the rows (R, C) where `read` (R,) says, and 0 elsewhere."""
    if read is None:
        return rows
    return scatter_add(rows, read, n).astype(rows.dtype, copy=False)  # (N, C)  (14.6)


def gated(h: Array, p: dict[str, Array], backward: bool = True) -> tuple[Array, Any, Any]:
    """Return g (R, 4C) of the normalised h (R, C), and what the two ops up to it saved."""
    u, c_fc = linear(h, p["mlp.c_fc.weight"], None)  # (R, 4*C)  (14.2)
    g, act = gelu(u, p["mlp.c_fc.bias"], backward)  # (R, 4*C)  (14.2)
    return g, c_fc, act


def made_again(kept: Kept) -> Saved:
    """Return all that the backward pass needs, from what was kept."""
    x, r, attn, attn_drop, mlp_drop, read, p, eps = kept
    h, ln_1 = layer_norm(x, p["ln_1.weight"], p["ln_1.bias"], eps)  # (N, C)  (14.1)
    c_attn = Linear(h, p["attn.c_attn.weight"])
    (o_s,) = of_rows(read, attn.o)  # (R, C)  (14.5)
    attn_proj = Linear(o_s, p["attn.c_proj.weight"])
    h, ln_2 = layer_norm(r, p["ln_2.weight"], p["ln_2.bias"], eps)  # (R, C)  (14.2)
    g, c_fc, act = gated(h, p)  # (R, 4*C)  (14.2)
    mlp_proj = Linear(g, p["mlp.c_proj.weight"])
    return Saved(
        ln_1, c_attn, attn, attn_proj, attn_drop, ln_2, c_fc, act, mlp_proj, mlp_drop, read
    )


def block_backward(dy: Array, saved: Saved | Kept, d: Gradients) -> Array:
    """Turn dL/dy (R, C) into dL/dx (N, C); the parameters' gradients go to d."""
    saved = made_again(saved) if isinstance(saved, Kept) else saved
    dm = dropout_backward(dy, saved.mlp_drop)  # (R, C)  (14.3)
    dg = through_linear(dm, saved.mlp_proj, d, "mlp.c_proj")  # (R, 4*C)  (14.3)
    du = gelu_backward(dg, saved.act)  # (R, 4*C)  (14.3)
    dh = through_linear(du, saved.c_fc, d, "mlp.c_fc")  # (R, C)  (14.3)
    dr = through_layer_norm(dh, saved.ln_2, d, "ln_2", d_residual=dy)  # (R, C)  (14.3)

    da = dropout_backward(dr, saved.attn_drop)  # (R, C)  (14.4)
    do = through_linear(da, saved.attn_proj, d, "attn.c_proj")  # (R, C)  (14.4)
    n = len(saved.c_attn.x)
    do, dr = (among_all(saved.read, n, rows) for rows in (do, dr))  # (N, C)  (14.6)
    dqkv = attention_backward(do, saved.attn)  # (N, 3*C)  (14.4)
    dh = through_linear(dqkv, saved.c_attn, d, "attn.c_attn")  # (N, C)  (14.4)
    dx = through_layer_norm(dh, saved.ln_1, d, "ln_1", d_residual=dr)  # (N, C)  (14.4)
    return dx


def through_linear(dy: Array, saved: Any, d: Gradients, name: str) -> Array:
    """Return dL/dx of a linear layer; its dL/dw and dL/db go to d."""
    weight, bias = f"{name}.weight", f"{name}.bias"
    out, trains = d.buffer(weight, dy.dtype), d.trains(weight) or d.trains(bias)
    dx, dw, db = linear_backward(dy, saved, out=out, trains=trains)
    d.add(weight, dw)
    d.add(bias, db)
    return dx


def through_layer_norm(
    dy: Array, saved: Any, d: Gradients, name: str, *, d_residual: Array | None = None
) -> Array:
    """Return dL/dx of a layer normalisation; its dL/dgamma and dL/dbeta go to d."""
    dx, dgamma, dbeta = layer_norm_backward(dy, saved, d_residual=d_residual)
    d.add(f"{name}.weight", dgamma)
    d.add(f"{name}.bias", dbeta)
    return dx
