"""GELU: a smooth gate, x times (nearly) the chance that a normal variable is below x.

Why
    Between the two linear maps of a block's second branch, the MLP (multi-layer
    perceptron), something must bend, or both would be one linear map.  GELU lets
    large x through, stops very negative x, and has no corner in between.

Definition, the tanh form that GPT-2 was trained with
    u = √(2/π) (x + a x³),  a = 0.044715                     (5.1)
    w = ½ (1 + tanh u) = 1 / (1 + exp(−2 u))                 (5.2)
    y = x w                                                  (5.3)
    (Hendrycks and Gimpel 2016, section 2.)  Of the two forms of w, which are equal by
    tanh u = (exp(u) − exp(−u)) / (exp(u) + exp(−u)), the second costs less time.
    The linear map before it may leave the addition of its bias to this op, which has
    every element at hand: then x = h + b, and dh = dx.

Derivation, writing dz for ∂ℒ/∂z
    By the quotient rule on (5.2), and since exp(−2 u) / (1 + exp(−2 u)) = 1 − w,
    ∂w/∂u = 2 exp(−2 u) / (1 + exp(−2 u))² = 2 w (1 − w)     (5.4)
    The derivative of (5.1), term by term:
    ∂u/∂x = √(2/π) (1 + 3 a x²)                              (5.5)
    and the product rule on (5.3), then the chain rule with (5.4), and x w = y again
    ∂y/∂x = w + x ∂w/∂u ∂u/∂x = w + 2 y (1 − w) ∂u/∂x        (5.6)
    dx = dy ∂y/∂x                                            (5.7)
    Nothing in (5.6) waits for dy.  So this slope is made in the forward pass, while
    x, w and y are at hand, and it is all that the backward pass needs.

Read it
    Far to the right w = 1, so y = x and dx = dy.  Far to the left w = 0, so
    y = 0 and dx = 0.  For every x, y(x) − y(−x) = x: the two gates add up to one.

Cost
    7·N·F operations and one exponential forward, 6·N·F more for the slope, N·F
    backward, in place: a pass over memory that is not in cache costs more than the
    arithmetic.  Keeps the slope, and without a backward pass nothing.
"""

from math import pi, sqrt
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module, fusible, map_rows

ROOT_2_PI = sqrt(2 / pi)
A = 0.044715


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    slope: Array  # (N, F)


@fusible
def gelu(h: Array, b: Array | None = None, backward: bool = True) -> tuple[Array, Saved | None]:
    """Gate every element of x = h (N, F), or h + b with b (F,); returns y (N, F).

    Without a `backward` pass to follow nothing is saved.
    """
    xp = array_module(h)

    def formula(h: Array) -> Any:
        x = h if b is None else h + b  # (N, F)
        square = x * x  # (N, F)
        e = square * (-2 * ROOT_2_PI * A)  # (N, F)
        e -= 2 * ROOT_2_PI
        e *= x  # (5.1), times -2
        with np.errstate(over="ignore"):  # far to the left, where infinity gives the right w
            xp.exp(e, out=e)
        e += 1
        w = xp.divide(1, e, out=e)  # (N, F)  (5.2)
        y = x * w  # (N, F)  (5.3)
        return (y, slope_of(square, w, y)) if backward else y

    if not backward:
        return map_rows(formula, h), None
    y, slope = map_rows(formula, h)
    return y, Saved(slope)


def slope_of(square: Array, w: Array, y: Array) -> Array:
    """Return ∂y/∂x (N, F) from x², w and y (N, F), in the memory of x²."""
    slope = square  # the same memory, from here on the slope
    slope *= 6 * ROOT_2_PI * A
    slope += 2 * ROOT_2_PI  # (5.5), twice
    slope *= 1 - w
    slope *= y
    slope += w  # (N, F)  (5.6)
    return slope


@fusible
def gelu_backward(dy: Array, saved: Saved) -> Array:
    """Turn dL/dy (N, F) into dL/dx (N, F)."""
    return map_rows(array_module(dy).multiply, dy, saved.slope)  # (N, F)  (5.7)
