"""Softmax: scores become probabilities.

Why
    Attention weighs values, and the model weighs words, by numbers that are
    positive and add up to one.  The exponential turns differences of scores
    into ratios of probabilities.

Definition, for one row of scores s
    m  = maxⱼ sⱼ                                             (6.1)
    eᵢ = exp(sᵢ − m)                                         (6.2)
    pᵢ = eᵢ / Σⱼ eⱼ                                          (6.3)
    In exact arithmetic m cancels: numerator and denominator both carry the
    factor exp(−m).  It is there so that no exponential overflows.

Derivation, writing dz for ∂ℒ/∂z
    m cancels, so it may be held fixed, and ∂eᵢ/∂sₖ = δᵢₖ eᵢ with the Kronecker
    delta.  The quotient rule on (6.3):
    ∂pᵢ/∂sₖ = δᵢₖ eᵢ / Σⱼeⱼ − eᵢ eₖ / (Σⱼeⱼ)² = pᵢ (δᵢₖ − pₖ)   (6.4)
    Sum (6.4) over every pᵢ that sₖ feeds:
    dsₖ = Σᵢ dpᵢ pᵢ (δᵢₖ − pₖ) = pₖ ( dpₖ − Σᵢ dpᵢ pᵢ )        (6.5)

Read it
    The Jacobian diag(p) − p pᵀ is never formed: one inner product a row stands
    for it.  The ds of a row add up to 0, because adding a constant to all
    scores changes nothing.  A probability of 0 passes no gradient.

Cost
    3 operations and one exponential an element forward, 4 an element backward;
    keeps p.
"""

from typing import NamedTuple

from minigpt2.backend import Array, array_module


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    p: Array  # (N, V)


def softmax(s: Array) -> tuple[Array, Saved]:
    """Turn each row of scores s (N, V) into probabilities p (N, V)."""
    xp = array_module(s)
    m = s.max(-1, keepdims=True)  # (N, 1)  (6.1)
    e = xp.exp(s - m)  # (N, V)  (6.2)
    p = e / e.sum(-1, keepdims=True)  # (N, V)  (6.3)
    return p, Saved(p)


def softmax_backward(dp: Array, saved: Saved) -> Array:
    """Turn dL/dp (N, V) into dL/ds (N, V)."""
    (p,) = saved
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))  # (N, V)  (6.5)
    return ds
