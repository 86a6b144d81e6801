"""Value function: what reward can be expected of an answer that has only begun.

Why
    The score of an answer comes at its end.  If it was expected all along, no token deserves
    praise for it; a value function knows what is expected after each token, so that what
    remains, the advantage, has less noise.

Definition
    A head of the model (model/heads) turns the hidden row that predicts token n into a number, vₙ:
    what can be expected before token n is chosen.  Values and tokens are shifted against each
    other as logits and tokens are.  Nothing follows the end-of-text: the value there is 0, and no
    row is needed for it.

Loss, with the targets R of (41.7), v_old for the values when the answers were drawn, shares u as
in (40.7), and ε for the change beyond which a value gets no further push
    vᶜₙ = vₙ clipped to the range from v_old,n − ε to v_old,n + ε  (42.1)
    ℒ   = ½ Σₙ uₙ max( (vₙ − Rₙ)², (vᶜₙ − Rₙ)² )                   (42.2)
    The larger square counts, so clipping can only make the loss larger (PPO's code in Dhariwal
    et al. 2017, and lm-human-preferences).

Derivation, where dx stands for ∂ℒ/∂x
    Within the range vᶜ = v, the squares are equal, and the derivative is that of (v − R)².
    Outside, vᶜ is a constant.  If its square is the larger one, v is nearer to R than the end of
    the range is: it went as far towards R as it may, and its gradient is zero.  If it is the
    smaller one, v went away from R, or far beyond it, and the gradient leads it back:
    dvₙ = uₙ (vₙ − Rₙ), but 0 where (vᶜₙ − Rₙ)² > (vₙ − Rₙ)²       (42.3)
    From dv on, the head and the blocks below it have their own backward passes.

Example: v_old = 0 and ε = 0.2 for three tokens, all with the target 1
    The first moved by 0.1: its gradient is v − R.  The second moved to 0.5, too far at once: vᶜ is
    0.2, and 0.8² is above 0.5².  The third went to −0.5, the wrong way.  ½ (0.9² + 0.8² + 1.5²):
    >>> v, old, target, shares = np.array([0.1, 0.5, -0.5]), np.zeros(3), np.ones(3), np.ones(3)
    >>> print(round(float(value_loss(v, old, target, shares, clip=0.2)), 4))  # (42.2)
    1.85
    >>> print(value_gradient(v, old, target, shares, clip=0.2))
    [-0.9  0.  -1.5]

Read it
    ε → ∞ is the squared error.  ℒ has two kinks, if R is outside the range: at the end of the
    range that is nearer to R, and as far beyond R.  On both the gradient is that of (v − R)².
"""

import numpy as np

from minigpt2.backend import Array


def within(v: Array, old: Array, clip: float) -> Array:
    """Return the values (M,), clipped to within `clip` of the old ones."""
    too_low, too_high = v.real < old.real - clip, v.real > old.real + clip
    return np.where(too_low, old - clip, np.where(too_high, old + clip, v))  # (M,)  (42.1)


def value_loss(v: Array, old: Array, targets: Array, shares: Array, clip: float = 0.2) -> Array:
    """Return ℒ of values now and when the answers were drawn, targets R and shares u, all (M,)."""
    squares, bounded = (v - targets) ** 2, (within(v, old, clip) - targets) ** 2  # (M,)
    larger = np.where(bounded.real > squares.real, bounded, squares)  # (M,)
    return (shares * larger).sum() / 2  # (42.2)


def value_gradient(v: Array, old: Array, targets: Array, shares: Array, clip: float = 0.2) -> Array:
    """Return dv (M,) of the same arguments."""
    dv = shares * (v - targets)  # (M,)
    held = (within(v, old, clip) - targets) ** 2 > (v - targets) ** 2  # (M,)
    return np.where(held, 0.0, dv)  # (M,)  (42.3)
