"""Dropout: in training, each feature is set to zero with probability ρ.

Why
    A network that cannot rely on any one feature spreads what it knows.  The
    survivors are scaled up so that the expectation of the output is the input,
    and nothing needs to change when the trained model is used.

Definition, with independent zₙ_c = 1 with probability 1 − ρ and 0 otherwise
    yₙ_c = kₙ_c xₙ_c,   k = z / (1 − ρ)                       (7.1)
    (Srivastava et al. 2014, section 4, in its "inverted" form: the scale is in
    the training pass.)

Derivation, writing dz for ∂L/∂z
    k does not depend on x, so by (7.1)
    dxₙ_c = kₙ_c dyₙ_c                                        (7.2)

Read it
    E[y] = x, since E[k] = 1.  A feature that was dropped receives no gradient.
    With ρ = 0 the op is the identity and draws no random number.

Cost
    N·C random numbers and N·C products forward, N·C products backward; keeps k.
"""

from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass; None stands for k = 1."""

    k: Array | None  # (N, C)


def keep_factors(shape: tuple[int, ...], p: float, rng: np.random.Generator, like: Array) -> Array:
    """Draw k of (7.1) for probability p, in the library of `like` and its real precision."""
    xp = array_module(like)
    keep = xp.asarray(rng.random(shape, np.float32) >= p)
    return keep.astype(like.real.dtype) / (1 - p)


def dropout(x: Array, p: float, rng: np.random.Generator) -> tuple[Array, Saved]:
    """Drop each element of x (N, C) with probability p, 0 <= p < 1; returns y (N, C)."""
    if p == 0:
        return x, Saved(None)
    k = keep_factors(x.shape, p, rng, x)  # (N, C)
    y = k * x  # (N, C)  (7.1)
    return y, Saved(k)


def dropout_backward(dy: Array, saved: Saved) -> Array:
    """Turn dL/dy (N, C) into dL/dx (N, C)."""
    (k,) = saved
    if k is None:
        return dy
    dx = k * dy  # (N, C)  (7.2)
    return dx
