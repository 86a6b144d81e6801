"""Layer normalisation: every token's features get mean 0 and variance 1.

Why
    The residual stream grows as blocks add to it.  Before a branch of a block reads
    the stream it is brought back to one scale, token by token, so no token depends
    on its neighbours and no batch statistics are kept.

Definition, for one token x with C features and learned γ, β
    μ   = (1/C) Σᵢ xᵢ                                        (4.1)
    r   = 1 / √( (1/C) Σᵢ (xᵢ − μ)² + ε )                    (4.2)
    x̂ᵢ  = (xᵢ − μ) r                                         (4.3)
    yᵢ  = γᵢ x̂ᵢ + βᵢ                                         (4.4)
    (Ba, Kiros and Hinton 2016, equations 3 and 4; ε is inside the root.)

Derivation, writing dz for ∂ℒ/∂z
    γ and β are shared by all N tokens, so their gradients add over tokens:
    dγᵢ = Σₙ dyₙᵢ x̂ₙᵢ                                        (4.5)
    dβᵢ = Σₙ dyₙᵢ                                            (4.6)
    and the normalised features receive
    gᵢ  = dx̂ᵢ = γᵢ dyᵢ                                       (4.7)

    An input xᵢ reaches x̂ⱼ by three paths: directly (when i = j), through μ, and
    through r.  Since ∂μ/∂xᵢ = 1/C and Σⱼ (xⱼ − μ) = 0, the chain rule on (4.2) is
    ∂r/∂xᵢ = −½ r³ · (2/C)(xᵢ − μ) = −(1/C) r² x̂ᵢ            (4.8)
    and the product rule on (4.3), with δ for the Kronecker delta, (4.8), and
    (xⱼ − μ) r = x̂ⱼ,
    ∂x̂ⱼ/∂xᵢ = r (δᵢⱼ − 1/C) + (xⱼ − μ) ∂r/∂xᵢ
            = r (δᵢⱼ − 1/C − x̂ᵢ x̂ⱼ / C)                      (4.9)
    Sum (4.9) over every x̂ⱼ that xᵢ feeds:
    dxᵢ = Σⱼ gⱼ ∂x̂ⱼ/∂xᵢ = r ( gᵢ − ⟨g⟩ − x̂ᵢ ⟨g x̂⟩ )          (4.10)
    where ⟨·⟩ is the mean over the C features.

    In a block, x is the residual stream: a sum, which goes on past the normalisation,
    xᵢ  = streamᵢ + aᵢ                                       (4.11)
    so x has other readers, too.  What they send back adds to (4.10), and by (4.11) the
    stream and a both receive the sum,
    dstreamᵢ = daᵢ = passingᵢ + dxᵢ                          (4.12)

Read it
    dx is r times g without its mean and (up to ε) without its component along x̂.
    So dx is at right angles to the constant row and, up to ε, to x itself, which
    is μ + x̂ / r: adding a constant to x leaves the output alone, and so, up to
    ε, does scaling x.  Both are tests.

Cost
    7·N·C additions and multiplications forward, 11·N·C backward; keeps x̂ and r.
"""

from typing import NamedTuple

from minigpt2.backend import Array, array_module, fusible, map_rows, wide


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    x_hat: Array  # (N, C)
    r: Array  # (N, 1)
    gamma: Array  # (C,)


def row_dots(x: Array, y: Array) -> Array:
    """Return the inner product of each row of x (N, C) with that of y, (N, 1)."""
    return (x[:, None] @ y[:, :, None])[:, 0]


@fusible
def layer_norm(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> tuple[Array, Saved]:
    """Normalise each row of x (N, C), then scale by gamma (C,) and shift by beta (C,)."""
    xp, c = array_module(x), x.shape[-1]

    def formula(x: Array) -> tuple[Array, Array, Array]:
        xc = x - x.sum(-1, keepdims=True) / c  # (N, C)  (4.1)
        r = 1 / xp.sqrt(row_dots(xc, xc) / c + eps)  # (N, 1)  (4.2)
        x_hat = xp.multiply(xc, r, out=xc)  # (N, C)  (4.3)
        y = gamma * x_hat  # (N, C)
        y += beta  # (N, C)  (4.4)
        return y, x_hat, r

    y, x_hat, r = map_rows(formula, x)
    return y, Saved(x_hat, r, gamma)


@fusible
def add_layer_norm(
    stream: Array, a: Array, gamma: Array, beta: Array, eps: float = 1e-5
) -> tuple[Array, Array, Saved]:
    """Add a (N, C) to the stream (N, C) and normalise the sum; returns both, (N, C)."""
    x = stream + a  # (N, C)  (4.11)
    return x, *layer_norm(x, gamma, beta, eps)


@fusible
def layer_norm_backward(
    dy: Array, saved: Saved, passing: Array | None = None
) -> tuple[Array, Array, Array]:
    """Turn dL/dy (N, C) into dL/dx (N, C), dL/dgamma (C,), dL/dbeta (C,).

    `passing` (N, C) is what other readers of x sent back; it is added to dL/dx.
    """
    x_hat, r, gamma = saved
    xp, c = array_module(dy), dy.shape[-1]

    def formula(dy: Array, x_hat: Array, r: Array, *passing: Array) -> tuple[Array, Array, Array]:
        each = dy * x_hat  # (N, C)
        dgamma = each.sum(0, dtype=wide(dy.dtype))  # (C,)  (4.5)
        dbeta = dy.sum(0, dtype=wide(dy.dtype))  # (C,)  (4.6)
        g = gamma * dy  # (N, C)  (4.7)
        along = row_dots(g, x_hat) / c  # (N, 1)
        g -= g.sum(-1, keepdims=True) / c
        g -= xp.multiply(x_hat, along, out=each)
        dx = xp.multiply(r, g, out=g)  # (N, C)  (4.10)
        for other in passing:
            dx += other  # (N, C)  (4.12)
        return dx, dgamma, dbeta

    others = () if passing is None else (passing,)
    return map_rows(formula, dy, x_hat, r, *others, sums=2)
