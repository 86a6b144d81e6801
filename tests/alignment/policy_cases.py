"""The losses of a policy and of its value function, and the mistakes that a person would make.

Both losses have kinks.  The numbers are drawn away from them, in each of the regions between.
"""

import numpy as np

from minigpt2.alignment.policy_gradient import clipped, clipped_loss, clipped_weights, ratios
from minigpt2.alignment.value import value_gradient, value_loss, within
from tests.gradients import Case

M, CLIP = 19, 0.2
SIZES = {"M": M}
FIXED = np.random.default_rng(11)
SHARES = FIXED.uniform(0.5, 2.0, M) / M
OLD = -FIXED.uniform(0.2, 3.0, M)
# ρ is near 0.6, 1 and 1.6 in turn, with advantages of either sign: all six regions.
MOVED = np.log(np.resize([0.6, 1.0, 1.6], M))
ADVANTAGES = FIXED.uniform(0.5, 2.0, M) * np.where(np.arange(M) % 6 < 3, 1, -1)
POLICY = ADVANTAGES, SHARES, CLIP


def policy_bug(weights):
    """A backward pass with other weights, as a function of ρ and of which tokens are clipped."""

    def broken(dy, arguments):
        rho = ratios(arguments[0], OLD)
        return (-dy * weights(rho, clipped(rho, ADVANTAGES, CLIP)),)

    return broken


def reversed_below(rho, held):
    """The maximum, instead of the minimum, for negative advantages."""
    return np.where(rho > 1 + CLIP, 0, SHARES * ADVANTAGES * rho)


POLICY_LOSS = Case(
    "policy_gradient, clip",
    lambda log_p: clipped_loss(log_p, OLD, *POLICY),
    lambda dy, a: (-dy * clipped_weights(a[0], OLD, *POLICY),),
    {"log_p": lambda rng: OLD + MOVED + 0.03 * rng.standard_normal(M)},
    {
        "the sign": policy_bug(lambda rho, held: -np.where(held, 0, SHARES * ADVANTAGES * rho)),
        "clip ignored": policy_bug(lambda rho, held: SHARES * ADVANTAGES * rho),
        "clip reversed for A < 0": policy_bug(reversed_below),
        "clip outside the range on both sides": policy_bug(
            lambda rho, held: np.where(abs(rho - 1) > CLIP, 0, SHARES * ADVANTAGES * rho)
        ),
        "the ratio forgotten": policy_bug(lambda rho, held: np.where(held, 0, SHARES * ADVANTAGES)),
        "ρ is that of the old policy": policy_bug(
            lambda rho, held: np.where(held, 0, SHARES * ADVANTAGES / rho)
        ),
        "the mean for the sum": policy_bug(
            lambda rho, held: np.where(held, 0, ADVANTAGES * rho / M)
        ),
        "clipped tokens have the gradient of the bound": policy_bug(
            lambda rho, held: SHARES * ADVANTAGES * np.clip(rho, 1 - CLIP, 1 + CLIP)
        ),
    },
)


# The value function.  Its values are inside the range, outside towards R, outside the other way,
# and so far that they passed R.

V_OLD = FIXED.standard_normal(M)
V_MOVED = np.resize([0.1, -0.1, 0.5, -0.5, 1.8], M)
TARGETS = V_OLD + 0.8
VALUE = V_OLD, TARGETS, SHARES, CLIP


def value_bug(gradient):
    """A backward pass with another gradient, as a function of v and of its clipped self."""
    return lambda dy, a: (dy * gradient(a[0], within(a[0], V_OLD, CLIP)),)


VALUE_LOSS = Case(
    "value, loss",
    lambda v: value_loss(v, *VALUE),
    lambda dy, a: (dy * value_gradient(a[0], *VALUE),),
    {"v": lambda rng: V_OLD + V_MOVED + 0.02 * rng.standard_normal(M)},
    {
        "the factor of the square": value_bug(lambda v, c: 2 * value_gradient(v, *VALUE)),
        "the minimum of both squares": value_bug(
            lambda v, c: SHARES * np.where((c - TARGETS) ** 2 < (v - TARGETS) ** 2, 0, v - TARGETS)
        ),
        "clip ignored": value_bug(lambda v, c: SHARES * (v - TARGETS)),
        "zero everywhere outside": value_bug(
            lambda v, c: SHARES * np.where(c == v, v - TARGETS, 0)
        ),
        "clipped values have a gradient": value_bug(lambda v, c: SHARES * (c - TARGETS)),
        "the mean for the sum": value_bug(lambda v, c: value_gradient(v, *VALUE) / SHARES / M),
    },
    linear_in=("v",),  # quadratic, so central differences are exact, too
)


CASES = (POLICY_LOSS, VALUE_LOSS)
