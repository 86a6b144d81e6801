"""Dropout: in training, each feature is set to zero with probability ρ.

Why
    A network that cannot rely on any one feature spreads what it knows.  The
    features that are left are scaled up so that the expectation of the output is the
    input, and nothing needs to change when the trained model is used.

Definition, with a keep factor zₙᵢ for every feature i of every row n
    Each zₙᵢ is drawn independently: 1 / (1 − ρ) with probability 1 − ρ, else 0.
    yₙᵢ = zₙᵢ xₙᵢ                                            (7.1)
    (Srivastava et al. 2014, section 4, in the "inverted" form, which scales in
    training.  Their p is the probability to keep a feature, 1 − ρ.)

Derivation, where dx stands for ∂ℒ/∂x, and dy for ∂ℒ/∂y
    z does not depend on x, so (7.1) is linear in x, and
    dxₙᵢ = zₙᵢ dyₙᵢ                                          (7.2)

Read it
    E[y] = x, since E[z] = (1 − ρ) · 1 / (1 − ρ) = 1.  A feature that was dropped
    receives no gradient.  With ρ = 0 the op is the identity and draws no random number.

Example: with ρ = ¼ a 3 becomes 3 · 4/3 = 4 or 0, and 3 on average
    >>> y, saved = dropout(np.full((100, 1000), 3.0), 0.25, np.random.default_rng(0))
    >>> print(np.unique(y.round(6)), y.mean().round(1))  # (7.1)
    [0. 4.] 3.0
    >>> dx = dropout_backward(np.ones_like(y), saved)
    >>> print(np.unique(dx.round(3)), (dx[y == 0] == 0).all())  # (7.2)
    [0.    1.333] True

Cost
    N·C random numbers, comparisons, quotients and products forward, N·C products
    backward; keeps z.
"""

from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, accumulation_dtype, array_module


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass; z is None at rate 0."""

    z: Array | None  # (N, C)


def keep_factors(
    shape: tuple[int, ...], rate: float, rng: np.random.Generator, like: Array
) -> Array:
    """Draw z of (7.1) for the rate ρ, an array of `shape`.

    It belongs to the library of the array `like` and has its precision (real if that is complex),
    but float32 where that has 16 bits: bfloat16 would round 1 / (1 - 0.1) by 0.2 %, always down.
    """
    xp = array_module(like)
    keep = xp.asarray(rng.random(shape, np.float32) >= rate)
    return keep.astype(accumulation_dtype(like.real.dtype)) / (1 - rate)  # (7.1)


def scaled(x: Array, z: Array, out: Array | None = None) -> Array:
    """Return z x, rounded once to the precision of x, in the array `out` if that has its type."""
    if x.real.dtype != z.dtype:
        return (z * x).astype(x.dtype)
    fits = out is not None and out.dtype == x.dtype
    return array_module(x).multiply(z, x, out=out if fits else None)


def dropout(x: Array, rate: float, rng: np.random.Generator | None) -> tuple[Array, Saved]:
    """Drop each element of x (N, C) with probability rate, 0 <= rate < 1; returns y (N, C).

    At rate 0, y is x itself, not a copy, and rng may be None.  At any other rate, rng=None
    raises ValueError.
    """
    if rate == 0:
        return x, Saved(None)
    if rng is None:
        raise ValueError("dropout draws random masks: pass rng")
    z = keep_factors(x.shape, rate, rng, x)  # (N, C)
    y = scaled(x, z)  # (N, C)  (7.1)
    return y, Saved(z)


def dropout_backward(dy: Array, saved: Saved) -> Array:
    """Turn dL/dy (N, C) into dL/dx (N, C); at rate 0 it returns dL/dy itself, not a copy."""
    (z,) = saved
    if z is None:
        return dy
    dx = scaled(dy, z)  # (N, C)  (7.2)
    return dx
