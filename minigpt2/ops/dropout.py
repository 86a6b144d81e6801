"""Dropout: in training, each feature is set to zero with probability ρ.

Why
    A network that cannot rely on any one feature spreads what it knows.  The
    survivors are scaled up so that the expectation of the output is the input,
    and nothing needs to change when the trained model is used.

Definition, with every zₙ_c drawn by itself: 1 / (1 − ρ) with probability 1 − ρ, else 0
    yₙ_c = zₙ_c xₙ_c                                          (7.1)
    (Srivastava et al. 2014, section 4, in the "inverted" form, scaled in training.
    Their p is the chance to be kept, 1 − ρ.)

Derivation, writing dz for ∂ℒ/∂z
    z does not depend on x, so by (7.1)
    dxₙ_c = zₙ_c dyₙ_c                                        (7.2)

Read it
    E[y] = x, since E[z] = (1 − ρ) / (1 − ρ) = 1.  A feature that was dropped receives no gradient.
    With ρ = 0 the op is the identity and draws no random number.

Cost
    N·C random numbers, comparisons, quotients and products forward, N·C products
    backward; keeps z.
"""

from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass; None stands for z = 1."""

    z: Array | None  # (N, C)


def keep_factors(
    shape: tuple[int, ...], rate: float, rng: np.random.Generator, like: Array
) -> Array:
    """Draw z of (7.1) for the rate ρ, in the library of `like` and its real precision."""
    xp = array_module(like)
    keep = xp.asarray(rng.random(shape, np.float32) >= rate)
    return keep.astype(like.real.dtype) / (1 - rate)  # (7.1)


def dropout(x: Array, rate: float, rng: np.random.Generator | None) -> tuple[Array, Saved]:
    """Drop each element of x (N, C) with probability rate, 0 <= rate < 1; returns y (N, C).

    At rate 0 this is x itself, not a copy, and rng may be None.
    """
    if rate == 0:
        return x, Saved(None)
    if rng is None:
        raise ValueError("dropout draws random masks: pass rng")
    z = keep_factors(x.shape, rate, rng, x)  # (N, C)
    y = z * x  # (N, C)  (7.1)
    return y, Saved(z)


def dropout_backward(dy: Array, saved: Saved) -> Array:
    """Turn dL/dy (N, C) into dL/dx (N, C); at rate 0 they are one array."""
    (z,) = saved
    if z is None:
        return dy
    dx = z * dy  # (N, C)  (7.2)
    return dx
