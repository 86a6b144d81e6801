"""Block: attention, then an MLP; each is a branch whose output is added to the residual stream.

Why
    The residual stream x carries a token's features through the network.  A block does
    not replace them.  Each of its two branches reads the stream, normalised, and adds
    its output to it: attention reads other tokens, the MLP (multi-layer perceptron)
    computes with what is in the stream by then.  Going backward, the gradient runs along
    the stream past both branches, and nothing multiplies it on that path.

Forward, with ln (4.5), attention (8.4), drop (7.1) and gelu (5.3)
    h   = ln₁(x)                                                   (15.1)
    qkv = h W₁ + b₁                                                (15.2)
    o   = attention(qkv)                                           (15.3)
    a   = o W₂ + b₂                                                (15.4)
    r   = x + drop(a)                                              (15.5)
    h₂  = ln₂(r)                                                   (15.6)
    u   = h₂ W₃ + b₃                                               (15.7)
    g   = gelu(u)                                                  (15.8)
    m   = g W₄ + b₄                                                (15.9)
    y   = r + drop(m)                                              (15.10)
    W₁ to W₄ and b₁ to b₄ belong to attn.c_attn, attn.c_proj, mlp.c_fc and mlp.c_proj.
    (Radford et al. 2019, section 2.3: the normalisation at the input of each branch.)

Backward, from the last line to the first
    dx stands for ∂ℒ/∂x, and likewise for every other name.  f*(dy) is what the backward
    pass of f makes of the gradient dy of its output: drop* is (7.2), gelu* (5.7), ln*
    (4.20), attention* (8.13) to (8.20), and for a product with W it is (2.2).
    dm   = drop*(dy)                                               (15.11)
    dg   = dm W₄ᵀ                                                  (15.12)
    du   = gelu*(dg)                                               (15.13)
    dh₂  = du W₃ᵀ                                                  (15.14)
    r is read twice: by ln₂ in (15.6), and by the sum (15.10), which passes dy on as it is.
    dr   = dy + ln₂*(dh₂)                                          (15.15)
    da   = drop*(dr)                                               (15.16)
    do   = da W₂ᵀ                                                  (15.17)
    dqkv = attention*(do)                                          (15.18)
    dh   = dqkv W₁ᵀ                                                (15.19)
    x is read twice as well: by ln₁ in (15.1), and by the sum (15.5).
    dx   = dr + ln₁*(dh)                                           (15.20)
    The gradients of every W and b are (2.3) and (2.4), those of γ and β (4.6) and (4.7).

Both passes face to face; read the left one downward, the right one upward:

    x                                  dx = dr + ln₁*(dh)
    ├─→  h   = ln₁(x)                  ↑←─  dh   = dqkv W₁ᵀ
    │    qkv = h W₁ + b₁               │    dqkv = attention*(do)
    │    o   = attention(qkv)          │    do   = da W₂ᵀ
    ↓←─  a   = o W₂ + b₂               ├─→  da   = drop*(dr)
    r = x + drop(a)                    dr = dy + ln₂*(dh₂)
    ├─→  h₂  = ln₂(r)                  ↑←─  dh₂  = du W₃ᵀ
    │    u   = h₂ W₃ + b₃              │    du   = gelu*(dg)
    │    g   = gelu(u)                 │    dg   = dm W₄ᵀ
    ↓←─  m   = g W₄ + b₄               ├─→  dm   = drop*(dy)
    y = r + drop(m)                    dy

Only some rows
    After attention the block works row by row: row n of y needs only row n of x and of o.
    So where later ops read only some rows S of y, as a loss does, (15.4) to (15.10) are
    computed for these R rows alone, from
    x_S and o_S                                                    (15.21)
    Nothing reads the other rows of (15.4) and (15.5), so their gradients are zero:
    doᵢ = 0 and drᵢ = 0 for i not in S                             (15.22)

Read it
    With both output projections at 0 the block is the identity, forward and backward.

Example: every W is 0 but W₂, so no row depends on what attention weighs
    With b₁ alone, every value v is (1, 2), so o is (1, 2); W₂ makes a = (1, 20) of it, and
    b₄ makes m = (100, 200):
    >>> from minigpt2.model.config import GPT2Config
    >>> from minigpt2.model.gradients import gradients_of
    >>> from minigpt2.model.parameters import Parameters
    >>> config = GPT2Config(vocab_size=1, n_positions=2, n_embd=2, n_layer=1, n_head=1)
    >>> parameters = Parameters(config, np.zeros(config.n_parameters))
    >>> p = parameters.block(0)
    >>> p["attn.c_attn.bias"][4:] = 1, 2
    >>> p["attn.c_proj.weight"][...] = [[1, 0], [0, 10]]
    >>> p["mlp.c_proj.bias"][...] = 100, 200
    >>> x, end = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([2, 2])
    >>> y, saved = block(x, end, p, n_head=1)
    >>> print(y.tolist())  # x + a + m
    [[102.0, 222.0], [104.0, 225.0]]

    Both normalisations have γ = 0, so the branches send nothing back, and dx = dr = dy.  W₂
    receives oᵀ da = (1, 2)ᵀ (3, 4), as 3 and 4 are the sums of the columns of dy:
    >>> d = gradients_of(parameters).block(0)
    >>> print(block_backward(np.array([[1.0, 0.0], [2.0, 4.0]]), saved, d).tolist())
    [[1.0, 0.0], [2.0, 4.0]]
    >>> print(d["attn.c_proj.weight"].tolist())
    [[3.0, 4.0], [6.0, 8.0]]

Cost
    24·N·C² operations forward in the four products, twice that backward, and
    attention's.  Keeps 16·N·C + N·H + 2·N numbers; with recomputation (selective
    activation checkpointing) 6·N·C + N·H: x, r, o, and q, k, v.  From these the
    backward pass recomputes the other arrays, which takes two normalisations, one GELU
    and one product, 8·N·C² operations; a and m are not recomputed, for nothing needs
    them.  With u kept as well, 10·N·C + N·H numbers, it takes no product.  Of all that a
    block computes, o and the logarithms save the most time for their memory, and what
    lies between W₃ and W₄ takes the most.  (Korthikanti et al. 2022, section 5, keep and
    leave other parts, for the same reason.)
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minigpt2.backend import Array
from minigpt2.model.gradients import Gradients, through_gelu, through_layer_norm, through_linear
from minigpt2.model.layer import layer
from minigpt2.model.recompute import Checkpoint, Saved, recomputed, recomputed_input
from minigpt2.ops.attention import attention, attention_backward
from minigpt2.ops.dropout import dropout, dropout_backward
from minigpt2.ops.embedding import chosen_rows, scatter_rows
from minigpt2.ops.gelu import gelu
from minigpt2.ops.layer_norm import layer_norm

Attend = Callable[..., tuple[Array, Any]]  # attention, or a function with its signature


def block(
    x: Array,
    end: Array,
    p: dict[str, Array],
    *,
    n_head: int,
    divisor: float | None = None,
    eps: float = 1e-5,
    drop: float = 0.0,
    seed: int = 0,
    attend: Attend = attention,
    recompute: bool = False,
    keep_u: bool = False,
    backward: bool = True,
    rows: Array | None = None,
    lora_scale: float = 0.0,
) -> tuple[Array, Saved | Checkpoint | None]:
    """Run one block on the residual stream x (N, C) over the forest end (N,); returns y (N, C).

    p holds the block's tensors by name, `divisor` is the τ of (8.2), by default √D, `drop` is the
    dropout rate, and `seed` fixes its masks.  `attend` replaces attention in the forward pass;
    block_backward needs attention itself.  With `recompute` a Checkpoint is saved, and
    block_backward recomputes the rest, but for u with `keep_u`; if no `backward` pass follows,
    nothing is saved.  If only the rows `rows` (R,) of y are needed, each named once, only they are
    computed and returned, (R, C).  `lora_scale` is that of the adapters in p (ops/lora).
    """
    rng = np.random.default_rng(seed) if drop else None
    h, ln_1 = layer_norm(x, p["ln_1.weight"], p["ln_1.bias"], eps)  # (N, C)  (15.1)
    qkv, c_attn = layer(h, p, "attn.c_attn", lora_scale)  # (N, 3*C)  (15.2)
    o, attn = attend(qkv, end, n_head, dropout=drop, seed=seed, divisor=divisor)  # (N, C)  (15.3)
    x_s, o_s = chosen_rows(rows, x, o)  # (R, C)  (15.21)
    r, attn_proj, attn_drop = add_branch(
        x_s, o_s, p, "attn.c_proj", drop, rng, lora_scale
    )  # (R, C)  (15.4) (15.5)
    h_2, ln_2 = layer_norm(r, p["ln_2.weight"], p["ln_2.bias"], eps)  # (R, C)  (15.6)
    u, c_fc = layer(h_2, p, "mlp.c_fc", lora_scale, biased=False)  # (R, 4*C)  (15.7), without bias
    g, act = gelu(u, p["mlp.c_fc.bias"], backward and not recompute)  # (R, 4*C)  (15.7) (15.8)
    y, mlp_proj, mlp_drop = add_branch(
        r, g, p, "mlp.c_proj", drop, rng, lora_scale
    )  # (R, C)  (15.9) (15.10)
    if not backward:
        return y, None
    if recompute:
        saved_u = u if keep_u else None
        return y, Checkpoint(x, r, attn, attn_drop, mlp_drop, rows, p, eps, lora_scale, saved_u)
    return y, Saved(
        ln_1, c_attn, attn, attn_proj, attn_drop, ln_2, c_fc, act, mlp_proj, mlp_drop, rows
    )


def add_branch(
    residual: Array,
    x: Array,
    p: dict[str, Array],
    name: str,
    drop: float,
    rng: Any,
    lora_scale: float,
) -> tuple[Array, Any, Any]:
    """Return residual + drop(x w + b) (R, C), and what the layer `name` and dropout save."""
    if not drop:
        y, proj = layer(
            x, p, name, lora_scale, residual=residual
        )  # (R, C)  (15.4) (15.5), (15.9) (15.10)
        return y, proj, dropout(y, drop, rng)[1]
    a, proj = layer(x, p, name, lora_scale)  # (R, C)  (15.4), (15.9)
    a, mask = dropout(a, drop, rng)  # (R, C)  (15.5), (15.10)
    return residual + a, proj, mask  # (R, C)  (15.5), (15.10)


def block_backward(dy: Array, saved: Saved | Checkpoint, d: Gradients) -> Array:
    """Turn dL/dy (R, C) into dL/dx (N, C); the parameters' gradients go to d.

    What a step has used is deleted, so that the largest arrays, (R, 4C), do not live together.
    """
    checkpoint = saved if isinstance(saved, Checkpoint) else None
    saved = recomputed(saved) if isinstance(saved, Checkpoint) else saved
    ln_1, c_attn, attn, attn_proj, attn_drop, ln_2, c_fc, act, mlp_proj, mlp_drop, rows = saved
    del saved
    dm = dropout_backward(dy, mlp_drop)  # (R, C)  (15.11)
    dg = through_linear(dm, mlp_proj, d, "mlp.c_proj")  # (R, 4*C)  (15.12)
    del mlp_proj
    du = through_gelu(dg, act, d, "mlp.c_fc.bias")  # (R, 4*C)  (15.13)
    del dg, act
    dh_2 = through_linear(du, c_fc, d, "mlp.c_fc")  # (R, C)  (15.14)
    del du, c_fc
    dr = through_layer_norm(dh_2, ln_2, d, "ln_2", d_residual=dy)  # (R, C)  (15.15)

    da = dropout_backward(dr, attn_drop)  # (R, C)  (15.16)
    do = through_linear(da, attn_proj, d, "attn.c_proj")  # (R, C)  (15.17)
    do, dr = (scatter_rows(gradient, rows, len(attn.o)) for gradient in (do, dr))  # (N, C)  (15.22)
    dqkv = attention_backward(do, attn)  # (N, 3*C)  (15.18)
    if checkpoint:
        ln_1, c_attn = recomputed_input(checkpoint)
    dh = through_linear(dqkv, c_attn, d, "attn.c_attn")  # (N, C)  (15.19)
    dx = through_layer_norm(dh, ln_1, d, "ln_1", d_residual=dr)  # (N, C)  (15.20)
    return dx
