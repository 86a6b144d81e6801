"""GELU: a smooth gate, x times (nearly) the chance that a normal variable is below x.

Why
    Between the two linear maps of a block's second branch, the MLP (multi-layer
    perceptron), there must be something that is not linear, or both would be one
    linear map.  GELU lets large x through, stops very negative x, and has no corner
    in between.

Definition, the tanh form that GPT-2 was trained with
    u = √(2/π) (x + a x³),  a = 0.044715                     (5.1)
    w = ½ (1 + tanh u) = exp(u) / (exp(u) + exp(−u)) = 1 / (1 + exp(−2 u))   (5.2)
    y = x w                                                  (5.3)
    The second form of w follows from tanh u = (exp(u) − exp(−u)) / (exp(u) + exp(−u)),
    the third from dividing above and below by exp(u); it takes the least time.
    (Hendrycks and Gimpel 2016, section 2.)
    The linear map before it may leave the addition of its bias to this op, which
    visits every element anyway: then x = h + b as in (2.1), dh = dx, and db is the sum
    of dx over the rows, (2.4).

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    Write E = exp(−2 u).  Then w = 1 / (1 + E) in (5.2), E / (1 + E) = 1 − w and
    ∂E/∂u = −2 E, so the quotient rule is
    ∂w/∂u = 2 E / (1 + E)² = 2 w (1 − w)                     (5.4)
    The derivative of (5.1), term by term:
    ∂u/∂x = √(2/π) (1 + 3 a x²)                              (5.5)
    The product rule on (5.3), the chain rule with (5.4), and y for x w are
    ∂y/∂x = w + x ∂w/∂u ∂u/∂x = w + 2 y (1 − w) ∂u/∂x        (5.6)
    and as every y has its own x, the chain rule with (5.6) is
    dx = dy ∂y/∂x                                            (5.7)
    Nothing in (5.6) waits for dy.  So this slope is computed in the forward pass,
    where x, w and y are in cache, and it is all that the backward pass needs.

Read it
    Far to the right w = 1, so y = x and dx = dy.  Far to the left w = 0, so
    y = 0 and dx = 0.  For every x, y(x) − y(−x) = x: the two gates add up to one.

Example: at x = 1, u = 0.798 · 1.0447 = 0.834 and w = 1 / (1 + exp(−1.667)) = 0.841
    >>> y, saved = gelu(np.array([[-1.0, 0.0, 1.0]]))
    >>> print(y.round(3))  # (5.3); y(1) − y(−1) = 1
    [[-0.159  0.     0.841]]
    >>> dh, _ = gelu_backward(np.ones((1, 3)), saved)
    >>> print(dh.round(3))  # (5.7): the slope itself
    [[-0.083  0.5    1.083]]

Cost
    7·N·F operations and one exponential forward, 6·N·F more for the slope, N·F
    backward, in place: a pass over memory that is not in cache costs more than the
    arithmetic.  Keeps the slope, and without a backward pass nothing.
"""

from math import pi, sqrt
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import (
    Array,
    Target,
    accumulation_dtype,
    array_module,
    deliver,
    fusible,
)
from minigpt2.parallel import map_rows

ROOT_2_PI = sqrt(2 / pi)
A = 0.044715


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    slope: Array  # (N, F)
    biased: bool


@fusible
def gelu(h: Array, b: Array | None = None, backward: bool = True) -> tuple[Array, Saved | None]:
    """Gate every element of x = h (N, F), or of h + b with b (F,); returns y (N, F).

    If no `backward` pass follows, the slope is not computed, and what is saved is None.
    """
    xp = array_module(h)

    def formula(h: Array) -> Any:
        x = h if b is None else h + b  # (N, F)  (2.1)
        square = x * x  # (N, F)
        minus_2u = square * (-2 * ROOT_2_PI * A)  # (N, F)
        minus_2u -= 2 * ROOT_2_PI
        minus_2u *= x  # (N, F)  (5.1)
        with np.errstate(over="ignore"):  # far to the left, where infinity gives the right w
            w = xp.exp(minus_2u, out=minus_2u)
        w += 1
        w = xp.divide(1, w, out=w)  # (N, F)  (5.2)
        y = x * w  # (N, F)  (5.3)
        return (y, slope_of(square, w, y)) if backward else y

    if not backward:
        return map_rows(formula, h), None
    y, slope = map_rows(formula, h)
    return y, Saved(slope, b is not None)


def slope_of(square: Array, w: Array, y: Array) -> Array:
    """Return ∂y/∂x (N, F) from x², w and y (N, F); it overwrites x²."""
    slope = square  # (N, F), the same memory: (5.6) is built in it, factor by factor
    slope *= 6 * ROOT_2_PI * A
    slope += 2 * ROOT_2_PI  # 2 ∂u/∂x  (5.5)
    slope *= 1 - w
    slope *= y
    slope += w  # (N, F)  (5.6)
    return slope


@fusible
def gelu_backward(
    dy: Array, saved: Saved, *, bias: Target | None = None
) -> tuple[Array, Array | None]:
    """Turn dL/dy (N, F) into dL/dh (N, F) and, where gelu added a bias, dL/db (F,), else None.

    `bias` says where dL/db goes; without it, it is a fresh array.
    """
    multiply = array_module(dy).multiply
    if not saved.biased:
        return map_rows(multiply, dy, saved.slope), None  # (N, F)  (5.7)
    dtype = accumulation_dtype(dy.dtype)

    def formula(dy: Array, slope: Array) -> tuple[Array, Array]:
        dh = multiply(dy, slope)  # (N, F)  (5.7)
        db = dh.sum(0, dtype=dtype)  # (F,)  (2.4)
        return dh, db

    dh, db = map_rows(formula, dy, saved.slope, sums=1)
    return dh, deliver(db, bias)
