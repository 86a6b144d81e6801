"""GELU: a smooth gate, x times (nearly) the chance that a normal variable is below x.

Why
    Between the two linear maps of a block's second branch, the MLP (multi-layer
    perceptron), something must bend, or both would be one linear map.  GELU lets
    large x through, stops very negative x, and has no corner in between.

Definition, the tanh form that GPT-2 was trained with
    u = √(2/π) (x + a x³),  a = 0.044715                     (5.1)
    w = ½ (1 + tanh u)                                       (5.2)
    y = x w                                                  (5.3)
    (Hendrycks and Gimpel 2016, section 2.)
    The linear map before it may leave the addition of its bias to this op, which has
    every element at hand: then x = h + b, and dh = dx.

Derivation, writing dz for ∂ℒ/∂z
    By (5.2) tanh u = 2 w − 1, and tanh′ u = 1 − tanh² u, so
    ∂w/∂u = ½ (1 − (2 w − 1)²) = 2 w (1 − w)                 (5.4)
    Differentiate (5.1) term by term, times x; (5.1) itself takes the cube away:
    x ∂u/∂x = √(2/π) (x + 3 a x³) = 3 u − 2 √(2/π) x         (5.5)
    and the product rule on (5.3), then the chain rule with (5.4) and (5.5)
    ∂y/∂x = w + x ∂w/∂u ∂u/∂x
          = w ( 1 + 2 (1 − w) (3 u − 2 √(2/π) x) )           (5.6)
    dx = dy ∂y/∂x                                            (5.7)
    Nothing in (5.6) waits for dy.  So this slope is made in the forward pass, while
    x, u and w are at hand, and it is all that the backward pass needs.

Read it
    Far to the right w = 1, so y = x and dx = dy.  Far to the left w = 0, so
    y = 0 and dx = 0.  For every x, y(x) − y(−x) = x: the two gates add up to one.

Cost
    7·N·F additions and multiplications and one tanh forward, 7·N·F more for the
    slope, N·F backward, in place: a pass over memory that is not in cache costs more
    than the arithmetic.  Keeps the slope, and without a backward pass nothing.
"""

from math import pi, sqrt
from typing import Any, NamedTuple

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
        u = x * x  # (N, F)
        u *= A * ROOT_2_PI
        u += ROOT_2_PI
        u *= x  # (N, F)  (5.1)
        w = xp.tanh(u)  # (N, F)
        w += 1
        w *= 0.5  # (N, F)  (5.2)
        y = x * w  # (N, F)  (5.3)
        return (y, slope_of(x, u, w)) if backward else y

    if not backward:
        return map_rows(formula, h), None
    y, slope = map_rows(formula, h)
    return y, Saved(slope)


def slope_of(x: Array, u: Array, w: Array) -> Array:
    """Return ∂y/∂x (N, F) from x, u and w (N, F), in the memory of u."""
    slope = u  # (N, F) the same memory, from here on the slope
    slope *= 6
    slope -= x * (4 * ROOT_2_PI)  # (N, F)  (5.5), twice
    slope *= 1 - w
    slope += 1
    slope *= w  # (N, F)  (5.6)
    return slope


@fusible
def gelu_backward(dy: Array, saved: Saved) -> Array:
    """Turn dL/dy (N, F) into dL/dx (N, F)."""
    return map_rows(array_module(dy).multiply, dy, saved.slope)  # (N, F)  (5.7)
