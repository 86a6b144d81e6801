"""LoRA: a linear map stays as it is, and two narrow matrices learn what is added to it.

Why
    Tuning a model changes all of its weights a little.  The change of one W (C, K) can be kept to
    a matrix of low rank, A B with A (C, r) and B (r, K), and r far below C and K.  Then W itself
    stays: it has no gradient and no moments, and many tasks share it, each with its own small A and
    B.  (Low-rank adaptation; Hu et al. 2021.)

Definition, for a linear map of x (N, C) by W, with the rank r and the scale s
    h = s x A                                                (11.1)
    y = x W + b + h B                                        (11.2)
    A starts with random numbers and B with 0, so y starts as that of W alone.  The scale is made of
    a constant α, so that another rank does not ask for another learning rate:
    s = α / r                                                (11.3)
    s = α / √r   with rank stabilisation                     (11.4)
    (11.3) is Hu et al.'s, (11.4) Kalajdzievski's (2023).  Which of them keeps steps alike depends
    on the optimiser.  A plain step, −η dB, lowers ℒ by η Σ dB², and by (11.5) that grows as s² r:
    with (11.4) it is the same for every rank.  The first step of AdamW moves each number of B by η,
    so it lowers ℒ by η Σ|dB|, which grows as s·r: with (11.3) it is the same for every rank, and
    with (11.4) it is √r times as much, and asks for a lower η.

Derivation, where dx stands for ∂ℒ/∂x, and likewise for every other name
    W and b are constants.  (11.2) is a linear map of h by B, and (11.1) one of x by s A.  So (2.3)
    and (2.2) with h in place of x and B in place of W are
    dB = hᵀ dy                                               (11.5)
    dh = dy Bᵀ                                               (11.6)
    and once more, with x and s A; the factor s goes to what is small, dh:
    dA = xᵀ (s dh)                                           (11.7)
    x reaches ℒ through W and through A:
    dx = dy Wᵀ + (s dh) Aᵀ                                   (11.8)
    The product xᵀ dy of (2.3), a third of a linear map's operations in training, is not made.

    Both paths of x can become one again.  With (11.1) in (11.2), y = x W′ + b for
    W′ = W + s A B                                           (11.9)
    which costs nothing when the model is used.

Read it
    As B starts with 0, dh is 0 in the first step, and so is dA: the first step moves B alone.  The
    gradients are those of W′ by the product rule on (11.9), dA = s dW′ Bᵀ and dB = s Aᵀ dW′, which
    is a test.  s A B has the rank r at most.

Example: one row, r = 1 and s = 2, so h = 2 (1·1 + 2·0) = 2, and y has (2·3, 2·4) more
    >>> import numpy as np
    >>> x, y = np.array([[1.0, 2.0]]), np.array([[7.0, 10.0]])
    >>> a, b = np.array([[1.0], [0.0]]), np.array([[3.0, 4.0]])
    >>> y, saved = lora(x, y, a, b, scale=2.0)
    >>> print(y)  # (11.2)
    [[13. 18.]]

    With dy = (1, −1): dB = h dy, dh = 3 − 4, dA = xᵀ (2 · −1), and dx has (−2·1, −2·0) more:
    >>> dx, da, db = lora_backward(np.array([[1.0, -1.0]]), saved, dx=np.zeros((1, 2)))
    >>> print(dx.ravel(), da.ravel(), db.ravel())  # (11.8) (11.7) (11.5)
    [-2.  0.] [-2. -4.] [ 2. -2.]

Cost
    2·N·r·(C + K) operations forward, twice that backward, and not the 2·N·C·K of (2.3).  Keeps x,
    as the linear map does, and h (N, r).
"""

from typing import NamedTuple

from minigpt2.backend import Array, Target, deliver, fusible
from minigpt2.parallel import matmul


class Saved(NamedTuple):
    """What the backward pass needs from the forward pass."""

    x: Array  # (N, C)
    h: Array  # (N, r)
    a: Array  # (C, r)
    b: Array  # (r, K)
    scale: float


@fusible
def lora(x: Array, y: Array, a: Array, b: Array, scale: float) -> tuple[Array, Saved]:
    """Add s x A B to y (N, K), what the frozen map makes of x (N, C); a is (C, r), b (r, K).

    y is changed where it is, and returned.
    """
    saved = lora_input(x, a, b, scale)
    y += matmul(saved.h, b)  # (N, K)  (11.2)
    return y, saved


@fusible
def lora_input(x: Array, a: Array, b: Array, scale: float) -> Saved:
    """Return what the backward pass needs, where y is not."""
    h = matmul(x, a)  # (N, r)
    h *= scale  # (N, r)  (11.1)
    return Saved(x, h, a, b, scale)


@fusible
def lora_backward(
    dy: Array, saved: Saved, dx: Array, *, a: Target | None = None, b: Target | None = None
) -> tuple[Array, Array, Array]:
    """Turn dL/dy (N, K) into dL/dx (N, C), dL/da (C, r) and dL/db (r, K).

    dx is dy Wᵀ at first; it is changed where it is, and returned.  `a` and `b` say where the other
    two go; without them they are fresh arrays.
    """
    db = matmul(saved.h.T, dy)  # (r, K)  (11.5)
    dh = matmul(dy, saved.b.T)  # (N, r)  (11.6)
    dh *= saved.scale  # (N, r)
    da = matmul(saved.x.T, dh)  # (C, r)  (11.7)
    dx += matmul(dh, saved.a.T)  # (N, C)  (11.8)
    return dx, deliver(da, a), deliver(db, b)


def scale_of(alpha: float, rank: int, stabilised: bool = False) -> float:
    """Return the scale s of adapters with α and r.

    >>> scale_of(16, 4), scale_of(16, 4, stabilised=True)
    (4.0, 8.0)
    """
    return alpha / rank**0.5 if stabilised else alpha / rank  # (11.4), (11.3)


def merged(w: Array, a: Array, b: Array, scale: float) -> Array:
    """Return W′ (C, K): the map of w and its adapter as one."""
    change = matmul(a, b)
    change *= scale
    change += w  # (11.9)
    return change
