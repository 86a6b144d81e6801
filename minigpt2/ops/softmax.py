"""Softmax: scores become probabilities.

Why
    Attention weighs values, and the model weighs words, by numbers that are
    positive and add up to one.  The exponential turns differences of scores
    into ratios of probabilities.

Definition, for one row of scores s
    m  = maxⱼ sⱼ                                             (6.1)
    eᵢ = exp(sᵢ − m)                                         (6.2)
    pᵢ = eᵢ / Σⱼ eⱼ                                          (6.3)
    In exact arithmetic m cancels: numerator and denominator both have the factor
    exp(−m).  It is there so that no exponential overflows.

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    As m cancels, any constant in its place gives the same p, so m may be held fixed.
    Then eᵢ depends on sᵢ alone.  With δᵢₖ for the Kronecker delta, (6.2) gives
    ∂eᵢ/∂sₖ = δᵢₖ eᵢ                                         (6.4)
    and by (6.4) the sum Σⱼ eⱼ has the derivative eₖ.  The quotient rule on (6.3):
    ∂pᵢ/∂sₖ = δᵢₖ eᵢ / Σⱼ eⱼ − eᵢ eₖ / (Σⱼ eⱼ)² = pᵢ (δᵢₖ − pₖ)   (6.5)
    Sum (6.5) over every pᵢ that sₖ feeds; δᵢₖ picks the term i = k:
    dsₖ = Σᵢ dpᵢ pᵢ (δᵢₖ − pₖ) = dpₖ pₖ − pₖ Σᵢ dpᵢ pᵢ = pₖ ( dpₖ − Σᵢ dpᵢ pᵢ )   (6.6)

Read it
    The Jacobian diag(p) − p pᵀ is never formed: one inner product a row replaces
    it.  The ds of a row add up to 0, because adding a constant to all scores
    changes nothing.  A probability of 0 passes no gradient.

Example: three scores whose exponentials are 1, 2 and 5, so p = (1, 2, 5) / 8
    >>> import numpy as np
    >>> p, saved = softmax(np.log([[1.0, 2.0, 5.0]]))
    >>> print(p.round(6))
    [[0.125 0.25  0.625]]

    With dp = (8, 0, 0), Σᵢ dpᵢ pᵢ = 1 and ds = (7, −2, −5) / 8, which adds up to 0:
    >>> print(softmax_backward(np.array([[8.0, 0.0, 0.0]]), saved).round(6))
    [[ 0.875 -0.25  -0.625]]

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
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))  # (N, V)  (6.6)
    return ds
