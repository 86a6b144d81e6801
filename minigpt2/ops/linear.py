"""Linear map: every row of x through the same matrix.

Why
    All the learned mixing of features in GPT-2 is this one op: queries, keys
    and values, the projections back to the residual stream, both layers of the MLP.
    The official weights are stored [in, out], so that y = x W without a
    transpose.

Definition, for row n, input feature i of C, output feature k of K
    yₙₖ = Σᵢ xₙᵢ Wᵢₖ + bₖ                                    (2.1)

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    xₙᵢ reaches ℒ through every output feature of its own row, and by (2.1)
    ∂yₙₖ/∂xₙᵢ = Wᵢₖ.  Sum over the outputs that it feeds:
    dxₙᵢ = Σₖ dyₙₖ Wᵢₖ,        that is  dx = dy Wᵀ            (2.2)
    Wᵢₖ reaches ℒ through output k of every row, with ∂yₙₖ/∂Wᵢₖ = xₙᵢ:
    dWᵢₖ = Σₙ xₙᵢ dyₙₖ,        that is  dW = xᵀ dy            (2.3)
    bₖ is added to output k of every row, so ∂yₙₖ/∂bₖ = 1:
    dbₖ  = Σₙ dyₙₖ                                           (2.4)

    In a block, what the map makes is a branch that is added to the residual stream:
    yₙₖ = residualₙₖ + Σᵢ xₙᵢ Wᵢₖ + bₖ                        (2.5)
    The residual enters (2.5) with the factor 1, so its gradient is dy as it is, and
    (2.2) to (2.4) do not change.

Read it
    y, dx and dW are matrix products with the same number of operations.  dx sums over
    the outputs, so W is transposed; dW sums over the rows, so x is.  In y and dx the
    rows never mix.

Example: one row of two features, two outputs
    >>> import numpy as np
    >>> x, w, b = np.array([[1, 2]]), np.array([[1, 2], [3, 4]]), np.array([10, 20])
    >>> y, saved = linear(x, w, b)
    >>> print(y)  # (2.1): 1·1 + 2·3 + 10 and 1·2 + 2·4 + 20
    [[17 30]]

    With dy = (1, −1): dx = (1·1 − 1·2, 1·3 − 1·4), and row i of dW is xᵢ dy:
    >>> dx, dw, db = linear_backward(np.array([[1, -1]]), saved)
    >>> print(dx.tolist(), dw.tolist(), db.tolist())  # (2.2) (2.3) (2.4)
    [[-1, -1]] [[1, -1], [2, -2]] [1, -1]

Cost
    With K output features: 2·N·C·K operations forward, 4·N·C·K backward.
    Keeps x.
"""

from typing import NamedTuple

from minigpt2.backend import (
    Array,
    Target,
    accumulation_dtype,
    deliver,
    fusible,
)
from minigpt2.parallel import map_rows, matmul


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass; K counts the output features."""

    x: Array  # (N, C)
    w: Array  # (C, K)
    biased: bool = True


def linear(
    x: Array, w: Array, b: Array | None, residual: Array | None = None
) -> tuple[Array, Saved]:
    """Map each row of x (N, C) by w (C, K), shift it by b (K,), add the residual (N, K).

    Returns y (N, K).  If b is None, the op that follows adds the bias.
    """
    return affine(x, w, b, residual), Saved(x, w, b is not None)


@fusible
def affine(x: Array, w: Array, b: Array | None, residual: Array | None) -> Array:
    """Return residual + x w + b (N, K), without the terms that are None."""
    y = matmul(x, w)  # (N, K)  (2.1)
    if b is not None:
        y += b  # (N, K)  (2.1)
    if residual is not None:
        y += residual  # (N, K)  (2.5)
    return y


@fusible
def linear_backward(
    dy: Array,
    saved: Saved,
    *,
    weight: Target | None = None,
    bias: Target | None = None,
    trains: bool = True,
) -> tuple[Array, Array | None, Array | None]:
    """Turn dL/dy (N, K) into dL/dx (N, C), dL/dw (C, K), dL/db (K,).

    `weight` and `bias` say where the last two go; without them they are fresh arrays.  dL/db is
    None where the map added no bias.  Where the layer is frozen (`trains` is False), neither is
    computed: both are None.
    """
    x, w, biased = saved
    dx = matmul(dy, w.T)  # (N, C)  (2.2)
    if not trains:
        return dx, None, None
    free = weight and not weight.accumulate and weight.array.dtype == dy.dtype
    out = weight.array if weight and free else None  # memory that the product may be made in
    dw = matmul(x.T, dy, out)  # (C, K)  (2.3)
    db = deliver(column_sums(dy), bias) if biased else None  # (K,)  (2.4)
    return dx, deliver(dw, weight), db


@fusible
def column_sums(dy: Array) -> Array:
    """Return the sums over the rows of dy (N, K), (K,); of 16-bit numbers in float32."""
    dtype = accumulation_dtype(dy.dtype)
    return map_rows(lambda dy: dy.sum(0, dtype=dtype), dy, sums=1)  # (K,)  (2.4)
