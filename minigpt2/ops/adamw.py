"""AdamW: a step against the gradient, divided for each parameter by the gradient's usual size.

Why
    Gradients of different parameters differ by orders of magnitude.  Dividing
    each by the running root mean square of its past values makes one learning
    rate serve them all.  Stepping along a running mean of the gradient averages out
    what differs from batch to batch.

Definition, for parameter θ with gradient g in step s = 1, 2, …
    ‖g‖ = √( Σ g² ), summed over all parameters                    (10.1)
    g ← (κ / S) g,   κ = min(1, clip / (‖g‖ / S))                  (10.2)
    m ← β₁ m + (1 − β₁) g                                          (10.3)
    v ← β₂ v + (1 − β₂) g²                                         (10.4)
    m̂ = m / (1 − β₁ˢ),  v̂ = v / (1 − β₂ˢ)                          (10.5)
    θ ← θ − η ( m̂ / (√v̂ + ε) + λ θ )                               (10.6)
    S is the loss scale of 16-bit training (18.1), else 1: the gradient arrives S times
    too large, is divided by S, and only then compared with clip, the largest norm that
    is not scaled down (0 for no limit).  m and v start at 0; they are running means of
    g and of g², and β₁ and β₂ say how much of the past stays in them.  η is the
    learning rate, λ the weight decay (0 for parameters with one axis), and ε keeps the
    division finite.  (Adam: Kingma and Ba 2015, algorithm 1.  Decay apart from g:
    Loshchilov and Hutter 2019, algorithm 2; η multiplies the decay too, as in PyTorch,
    where theirs is multiplied by the schedule alone.  κ: Pascanu et al. 2013,
    algorithm 1.)

Derivation of the bias correction
    Write gⱼ for the gradient of step j.  (10.3), put into itself until m = 0, is
    m = (1 − β₁) Σⱼ β₁^(s−j) gⱼ,  summed over j = 1 … s            (10.7)
    so m is a weighted sum of the gradients so far.  The weights are a geometric series,
    (1 − β₁) Σⱼ β₁^(s−j) = (1 − β₁) (1 + β₁ + … + β₁^(s−1)) = 1 − β₁ˢ   (10.8)
    which is less than 1: m is too small by this factor, most of all in the first steps.
    (10.5) divides (10.7) by (10.8), so m̂ is the weighted mean of the gradients:
        s = 1:  m = (1 − β₁) g₁                  m̂ = g₁
        s = 2:  m = (1 − β₁) (β₁ g₁ + g₂)        m̂ = (β₁ g₁ + g₂) / (1 + β₁)
    The same holds for v, with g² and β₂.

    The two corrections need no pass over the arrays.  With c = √(1 − β₂ˢ), (10.5) says
    √v̂ = √v / c, and the step of (10.6) is
    η m̂ / (√v̂ + ε) = ( η / (1 − β₁ˢ) ) m / (√v / c + ε)            (10.9)
    Multiply (10.9) above and below by c:
    η m̂ / (√v̂ + ε) = ( η c / (1 − β₁ˢ) ) m / (√v + c ε)            (10.10)
    NumPy computes (10.10), in which nothing divides v.  The CUDA kernel computes (10.5)
    and (10.6) as they are, since arithmetic costs it nothing.  The two differ by
    rounding alone.

Read it
    The first step moves every parameter by η against the sign of its gradient,
    however large or small that is (up to ε, and decay aside), unless it is 0.  Scaling the loss
    changes nothing (up to ε and the clip).  The decay is not in g, so it is not divided by √v̂.

Example: two steps of one parameter, without clip and decay, β₁ = 0.9 and β₂ = 0.999
    g = 2, then −1.  s = 1: m̂ = 2 and √v̂ = 2, so θ moves by η = 0.1.  s = 2:
    m̂ = (0.9 · 2 − 1) / 1.9 = 0.421, v̂ = (0.999 · 4 + 1) / 1.999 = 2.499, and θ moves by
    0.1 · 0.421 / 1.581 = 0.0266.
    >>> theta, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> plain = AdamW(beta1=0.9, beta2=0.999, weight_decay=0, clip=0)
    >>> for step, g in ((1, 2.0), (2, -1.0)):
    ...     update = Update(step, learning_rate=0.1, n_decayed=1, constants=plain)
    ...     _ = adamw_flat(theta, np.array([g]), m, v, update)
    ...     print(step, theta.round(4), m.round(4), v.round(6))
    1 [0.9] [0.2] [0.004]
    2 [0.8734] [0.08] [0.004996]

Cost
    One pass over the flat arrays: θ, g, m, v are read, θ, m, v are written, 28·P
    bytes in float32, in pieces that stay in cache, in threads.  Before it, the norm
    reads g once more, 4·P bytes.
"""

from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module, fusible
from minigpt2.blas import axpby
from minigpt2.parallel import each_block, row_blocks


@dataclass(frozen=True)
class AdamW:
    """The constants of the optimiser."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0


class Update(NamedTuple):
    """The numbers of one step, the same for all parameters."""

    step: int  # s of (10.5), counted from 1
    learning_rate: float  # η
    n_decayed: int  # the first so many parameters decay
    constants: AdamW
    loss_scale: float = 1.0  # S


@fusible
def adamw_flat(
    theta: Array, g: Array, m: Array, v: Array, update: Update, *, copy: Array | None = None
) -> float:
    """Update theta, m and v (P,) in place and return the norm of g (P,), before it is unscaled.

    If the norm is not finite, nothing is changed: the caller looks at it, and counts the step or
    not.  On a device the norm is an array (1,), which nobody has waited for yet.  `copy` (P,) gets
    the new theta, rounded to its own dtype.
    """
    norm = norm_of(g)  # (10.1)
    if not np.isfinite(norm):
        return norm
    constants, unscale = update.constants, 1 / update.loss_scale
    length = norm * unscale
    kappa = min(1.0, constants.clip / length) if constants.clip and length else 1.0  # (10.2)
    kappa *= unscale

    def update_piece(decay: float, piece: slice) -> None:
        adamw_update(theta[piece], g[piece], m[piece], v[piece], update, kappa=kappa, decay=decay)

    decayed = 0, update.n_decayed, constants.weight_decay
    others = update.n_decayed, len(theta), 0.0
    for start, stop, decay in (decayed, others):
        blocks = row_blocks(stop - start, theta.itemsize)
        pieces = [slice(start + b.start, start + b.stop) for b in blocks]
        each_block(partial(update_piece, decay), pieces)
    if copy is not None:
        copy[...] = theta
    return norm


def norm_of(g: Array) -> float:
    """Return the length of g (P,): a sum of the squares of its pieces, in their order."""
    pieces = row_blocks(len(g), g.itemsize)
    squares = np.empty(len(pieces))

    def add_up(numbered: tuple[int, slice]) -> None:
        number, piece = numbered
        squares[number] = np.vdot(g[piece], g[piece])  # unlike `@`, it lets other threads run

    each_block(add_up, list(enumerate(pieces)))
    return sqrt(squares.sum())  # (10.1)


def adamw_update(
    theta: Array, g: Array, m: Array, v: Array, update: Update, *, kappa: float, decay: float
) -> None:
    """Update one piece of theta, m and v (each of the same length) in place.

    `kappa` is κ / S of (10.2), `decay` the λ of this piece.
    """
    beta1, beta2, eta = update.constants.beta1, update.constants.beta2, update.learning_rate
    axpby((1 - beta1) * kappa, g, beta1, m)  # (10.2) (10.3)
    square = g * g
    axpby((1 - beta2) * kappa**2, square, beta2, v)  # (10.2) (10.4)
    c = sqrt(1 - beta2**update.step)  # (10.10)
    root = array_module(theta).sqrt(v, out=square)
    root += c * update.constants.eps
    change = array_module(theta).divide(m, root, out=root)
    axpby(-eta * c / (1 - beta1**update.step), change, 1 - eta * decay, theta)  # (10.6) (10.10)
