"""Layer normalisation: every token's features get mean 0 and variance 1.

Why
    The residual stream grows as blocks add to it.  Before a branch of a block reads
    the stream, each token's features are brought back to one scale.  A token is
    normalised by itself: it does not depend on its neighbours, and no statistics of
    a batch are kept.

Definition, for one token x with C features and learned γ, β
    μ   = (1/C) Σᵢ xᵢ                                        (4.1)
    v   = (1/C) Σᵢ (xᵢ − μ)²                                 (4.2)
    r   = 1 / √(v + ε)                                       (4.3)
    x̂ᵢ  = (xᵢ − μ) r                                         (4.4)
    yᵢ  = γᵢ x̂ᵢ + βᵢ                                         (4.5)
    v is the variance, r the reciprocal standard deviation, `rstd` in the code.
    (Ba, Kiros and Hinton 2016, equations 3 and 4; ε is inside the root.)

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    γ and β are shared by all N tokens.  Number the tokens n: by (4.5)
    ∂yₙᵢ/∂γᵢ = x̂ₙᵢ and ∂yₙᵢ/∂βᵢ = 1, and the gradients add over the tokens,
    dγᵢ = Σₙ dyₙᵢ x̂ₙᵢ                                        (4.6)
    dβᵢ = Σₙ dyₙᵢ                                            (4.7)
    From here on there is one token again.  x̂ᵢ reaches ℒ through yᵢ alone, and
    ∂yᵢ/∂x̂ᵢ = γᵢ.  Its gradient gets the short name g:
    gᵢ  = dx̂ᵢ = γᵢ dyᵢ                                       (4.8)

    An input xᵢ reaches x̂ⱼ by three paths: directly (when i = j), through μ, and
    through r.  First μ, from (4.1):
    ∂μ/∂xᵢ = 1/C                                             (4.9)
    Then v.  Write δᵢⱼ for the Kronecker delta, 1 when i = j and 0 otherwise.  The
    chain rule on the square in (4.2), with ∂xⱼ/∂xᵢ = δᵢⱼ and (4.9), is
    ∂v/∂xᵢ = (1/C) Σⱼ 2 (xⱼ − μ) (δᵢⱼ − 1/C)                 (4.10)
    δᵢⱼ picks the term j = i of the sum.  What 1/C multiplies adds up to nothing,
    Σⱼ (xⱼ − μ) = Σⱼ xⱼ − C μ = C μ − C μ = 0                (4.11)
    so moving the mean does not move the variance, and (4.10) with (4.11) is
    ∂v/∂xᵢ = (2/C) (xᵢ − μ) − (2/C²) Σⱼ (xⱼ − μ) = (2/C) (xᵢ − μ)   (4.12)
    Then r, which (4.3) writes as (v + ε)^(−½).  By the power rule
    ∂r/∂v = −½ (v + ε)^(−3/2) = −½ r³                        (4.13)
    and the chain rule multiplies (4.13) by (4.12), where (xᵢ − μ) r = x̂ᵢ by (4.4):
    ∂r/∂xᵢ = −½ r³ (2/C) (xᵢ − μ) = −(1/C) r² x̂ᵢ             (4.14)
    The three paths meet in the product rule on (4.4), with (4.9):
    ∂x̂ⱼ/∂xᵢ = r (δᵢⱼ − 1/C) + (xⱼ − μ) ∂r/∂xᵢ                (4.15)
    Put (4.14) into (4.15); one r of r² makes (xⱼ − μ) r = x̂ⱼ, the other one stays:
    ∂x̂ⱼ/∂xᵢ = r (δᵢⱼ − 1/C − x̂ᵢ x̂ⱼ / C)                      (4.16)
    xᵢ feeds every x̂ⱼ.  Sum gⱼ times (4.16) over j, and take out of each sum what
    does not depend on j:
    dxᵢ = Σⱼ gⱼ ∂x̂ⱼ/∂xᵢ = r ( Σⱼ gⱼ δᵢⱼ − (1/C) Σⱼ gⱼ − x̂ᵢ (1/C) Σⱼ gⱼ x̂ⱼ )   (4.17)
    The first of the three sums is gᵢ.  The other two are means over the features:
    ⟨g⟩ = (1/C) Σⱼ gⱼ                                        (4.18)
    ⟨g x̂⟩ = (1/C) Σⱼ gⱼ x̂ⱼ                                   (4.19)
    With these names, (4.17) is what the code computes:
    dxᵢ = r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )                          (4.20)

    In a block, x is the residual stream and has two readers: the normalisation, and the
    stream that leads on to later layers.  Write d_residual for the gradient that comes
    back along the stream.  Both gradients add:
    dxᵢ = d_residualᵢ + r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )            (4.21)

Read it
    dx is r times g without its mean and (up to ε) without its component along x̂.
    So dx is at right angles to the constant row and, up to ε, to x itself, which
    is μ + x̂ / r: adding a constant to x leaves the output alone, and so, up to
    ε, does scaling x.  Both are tests.

Example: x = (1, 2, 6) has the mean 3 and the variance (4 + 1 + 9) / 3 = 14/3
    >>> import numpy as np
    >>> x, gamma, beta = np.array([[1.0, 2.0, 6.0]]), np.ones(3), np.zeros(3)
    >>> y, saved = layer_norm(x, gamma, beta, eps=0)
    >>> print(saved.rstd.round(3), np.sqrt(3 / 14).round(3))  # (4.3)
    [[0.463]] 0.463
    >>> print(y.round(3))  # (4.5): mean 0 and variance 1
    [[-0.926 -0.463  1.389]]

    Going backward, let ℒ be the first feature of y, so dy = (1, 0, 0).  The steps of (4.20):
    g                  1.000   0.000   0.000
    − ⟨g⟩             −0.333  −0.333  −0.333      ⟨g⟩ = 1/3
    − x̂ ⟨g x̂⟩         −0.286  −0.143   0.429      ⟨g x̂⟩ = −0.926 / 3 = −0.309
    the sum            0.381  −0.476   0.095      at right angles to (1, 1, 1) and to x̂
    times r            0.176  −0.220   0.044
    >>> dx, _, _ = layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), saved)
    >>> print(dx.round(3))  # (4.20)
    [[ 0.176 -0.22   0.044]]
    >>> print(abs(dx.sum()) < 1e-12, abs((dx * x).sum()) < 1e-12)
    True True

Cost
    7·N·C additions and multiplications forward, 11·N·C backward; keeps x̂ and r.
"""

from typing import NamedTuple

from minigpt2.backend import (
    Array,
    Target,
    accumulation_dtype,
    array_module,
    deliver,
    fusible,
)
from minigpt2.parallel import map_rows


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    x_hat: Array  # (N, C)
    rstd: Array  # (N, 1)
    gamma: Array  # (C,)


def rowwise_dot(x: Array, y: Array) -> Array:
    """Return the inner product of each row of x (N, C) with that row of y (N, C), as (N, 1)."""
    return (x[:, None] @ y[:, :, None])[:, 0]


@fusible
def layer_norm(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> tuple[Array, Saved]:
    """Normalise each row of x (N, C), scale it by gamma (C,) and shift it by beta (C,).

    Returns y (N, C).
    """
    xp, c = array_module(x), x.shape[-1]

    def formula(x: Array) -> tuple[Array, Array, Array]:
        dtype, x = x.dtype, x.astype(accumulation_dtype(x.dtype), copy=False)
        mu = x.sum(-1, keepdims=True) / c  # (N, 1)  (4.1)
        centred = x - mu  # (N, C)
        v = rowwise_dot(centred, centred) / c  # (N, 1)  (4.2)
        rstd = 1 / xp.sqrt(v + eps)  # (N, 1)  (4.3)
        x_hat = xp.multiply(centred, rstd, out=centred)  # (N, C)  (4.4)
        y = gamma * x_hat  # (N, C)  (4.5)
        y += beta  # (N, C)  (4.5)
        return y.astype(dtype, copy=False), x_hat.astype(dtype, copy=False), rstd

    y, x_hat, rstd = map_rows(formula, x)
    return y, Saved(x_hat, rstd, gamma)


@fusible
def layer_norm_backward(
    dy: Array,
    saved: Saved,
    d_residual: Array | None = None,
    *,
    weight: Target | None = None,
    bias: Target | None = None,
) -> tuple[Array, Array, Array]:
    """Turn dL/dy (N, C) into dL/dx (N, C), dL/dgamma (C,), dL/dbeta (C,).

    `d_residual` (N, C) is the gradient from the other readers of x.  It is added to dL/dx.
    `weight` and `bias` say where the last two go; without them they are fresh arrays.
    """
    x_hat, rstd, gamma = saved
    xp, c = array_module(dy), dy.shape[-1]

    def formula(
        dy: Array, x_hat: Array, rstd: Array, *d_residual: Array
    ) -> tuple[Array, Array, Array]:
        dtype, wide = dy.dtype, accumulation_dtype(dy.dtype)
        dy, x_hat = dy.astype(wide, copy=False), x_hat.astype(wide, copy=False)
        product = dy * x_hat  # (N, C)
        dgamma = product.sum(0)  # (C,)  (4.6)
        dbeta = dy.sum(0)  # (C,)  (4.7)
        g = gamma * dy  # (N, C)  (4.8)
        mean_g = g.sum(-1, keepdims=True) / c  # (N, 1)  (4.18)
        mean_g_x_hat = rowwise_dot(g, x_hat) / c  # (N, 1)  (4.19)
        dx = g  # (N, C), the same memory: (4.20) is built in it, term by term
        dx -= mean_g
        dx -= xp.multiply(x_hat, mean_g_x_hat, out=product)
        dx *= rstd  # (N, C)  (4.20)
        for gradient in d_residual:
            dx += gradient  # (N, C)  (4.21)
        return dx.astype(dtype, copy=False), dgamma, dbeta

    others = () if d_residual is None else (d_residual,)
    dx, dgamma, dbeta = map_rows(formula, dy, x_hat, rstd, *others, sums=2)
    return dx, deliver(dgamma, weight), deliver(dbeta, bias)
