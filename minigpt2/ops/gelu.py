"""GELU: a smooth gate, x times (nearly) the chance that a normal variable is below x.

Why
    Between the two linear maps of a block's second branch, the MLP (multi-layer
    perceptron), something must bend, or both would be one linear map.  GELU lets
    large x through, stops very negative x, and has no corner in between.

Definition, the tanh form that GPT-2 was trained with
    u = √(2/π) (x + a x³),  a = 0.044715                     (5.1)
    t = tanh u                                               (5.2)
    y = ½ x (1 + t)                                          (5.3)
    (Hendrycks and Gimpel 2016, section 2.)
    The linear map before it may leave the addition of its bias to this op, which has
    every element at hand: then x = h + b, and dh = dx.

Derivation, writing dz for ∂ℒ/∂z
    The derivative of (5.1), term by term:
    ∂u/∂x = √(2/π) (1 + 3 a x²)                              (5.4)
    Since tanh′ u = 1 − tanh² u, the chain rule on (5.2) with (5.4) is
    ∂t/∂x = (1 − t²) ∂u/∂x                                   (5.5)
    and the product rule on (5.3) with (5.5)
    dx = dy ( ½ (1 + t) + ½ x ∂t/∂x )                        (5.6)

Read it
    Far to the right t = 1, so y = x and dx = dy.  Far to the left t = −1, so
    y = 0 and dx = 0.  For every x, y(x) − y(−x) = x: the two gates add up to one.

Cost
    8·N·F additions and multiplications and one tanh forward, 12·N·F backward, in
    place: a pass over memory that is not in cache costs more than the arithmetic.
    Keeps x and t.
"""

from math import pi, sqrt
from typing import NamedTuple

from minigpt2.backend import Array, array_module, fusible, map_rows

ROOT_2_PI = sqrt(2 / pi)
A = 0.044715


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    h: Array  # (N, F)
    t: Array  # (N, F)
    b: Array | None  # (F,)


@fusible
def gelu(h: Array, b: Array | None = None) -> tuple[Array, Saved]:
    """Gate every element of x = h (N, F), or h + b with b (F,); returns y (N, F)."""
    xp = array_module(h)

    def formula(h: Array) -> tuple[Array, Array]:
        x = h if b is None else h + b  # (N, F)
        u = x * x  # (N, F)
        u *= A
        u += 1
        u *= x
        u *= ROOT_2_PI  # (N, F)  (5.1)
        t = xp.tanh(u, out=u)  # (N, F)  (5.2)
        y = t + 1  # (N, F)
        y *= x
        y *= 0.5  # (N, F)  (5.3)
        return y, t

    y, t = map_rows(formula, h)
    return y, Saved(h, t, b)


@fusible
def gelu_backward(dy: Array, saved: Saved) -> Array:
    """Turn dL/dy (N, F) into dL/dx (N, F)."""
    h, t, b = saved

    def formula(dy: Array, h: Array, t: Array) -> Array:
        x = h if b is None else h + b  # (N, F)
        du_dx = x * x  # (N, F)
        du_dx *= 3 * A
        du_dx += 1
        du_dx *= ROOT_2_PI  # (N, F)  (5.4)
        dt_dx = t * t  # (N, F)
        dt_dx -= 1
        dt_dx *= du_dx  # (N, F)  (5.5), its negative
        dt_dx *= x
        dx = t - dt_dx  # (N, F)
        dx += 1
        dx *= 0.5
        dx *= dy  # (N, F)  (5.6)
        return dx

    return map_rows(formula, dy, h, t)
