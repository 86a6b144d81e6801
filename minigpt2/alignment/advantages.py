"""Advantages: by how much a token, or an answer, was better than expected.

Why
    One reward is given for a whole answer.  Which of its tokens earned it, and was it more than
    could be expected?  PPO asks a value function (chapter 42) what the reward would be from
    each token on.  GRPO needs none: several answers to one prompt are each other's expectation.

Rewards of tokens, for an answer of T tokens; the last is its end-of-text, if it ended
    The score s of the answer is the reward of its last token: only then is it complete, and ending
    is a choice like any other.  The price of (37.2) for leaving the reference is paid token by
    token, with lₜ = ln πₜ − ln π_ref,t:
    rₜ = −β lₜ + s [t = T]                                         (41.1)
    They add up to s − β ln( π(y) / π_ref(y) ), whose mean is J of (37.2).  A token's advantage is
    what is earned from it on, with a discount γ for later rewards:
    Gₜ = rₜ + γ rₜ₊₁ + γ² rₜ₊₂ + … = rₜ + γ Gₜ₊₁                   (41.2)
    With γ = 1 and Aₜ = Gₜ (40.4) is the gradient of J, without bias: by (41.1) Gₜ has −β times the
    sum in (37.10).

    An answer that was cut at the longest length has no end-of-text.  Either what would follow
    counts by its value (bootstrapping: `after`, below), or the answer counts as ended, with a
    penalty c in its score (`missing_eos_penalty` in trl):
    s → s − c  for an answer that was cut                          (41.3)
    The latter is done here, for the policy should learn to end.  By default c is 1 in PPO, and 0
    in GRPO, where an answer that was cut fails its check (44.1).

Generalised advantage estimation (GAE; Schulman et al. 2016), with vₜ for the value of the state
before token t, which is what the value function expects of Gₜ, and 0 behind the end-of-text
    How much better was token t?  Judged one step later, by the value of what follows it,
    δₜ = rₜ + γ vₜ₊₁ − vₜ                                          (41.4)
    or k steps later, where the values between the first and the last cancel:
    Σᵢ₌₀ᵏ⁻¹ γⁱ δₜ₊ᵢ = Σᵢ₌₀ᵏ⁻¹ γⁱ rₜ₊ᵢ + γᵏ vₜ₊ₖ − vₜ              (41.5)
    Few steps trust the values, which may be wrong; many have the noise of all later tokens.  So
    take a mean of (41.5) over all k, with the weights (1 − λ) λᵏ⁻¹.  In it δₜ₊ᵢ has the weight
    γⁱ (1 − λ) Σ_{k>i} λᵏ⁻¹ = (γλ)ⁱ:
    Aₜ = Σᵢ (γλ)ⁱ δₜ₊ᵢ = δₜ + γλ Aₜ₊₁                              (41.6)
    λ = 0 is one step, Aₜ = δₜ; λ = 1 is all of them, Aₜ = Gₜ − vₜ.  The value function then
    learns towards
    Rₜ = Aₜ + vₜ                                                   (41.7)

Whitening, over the tokens of all answers of a rollout, which have the mean μ and the variance σ²
    A → (A − μ) / √(σ² + 1e-8)                                     (41.8)
    so that one learning rate suits every scale of rewards.  σ² is the mean square of A − μ,
    without Bessel's correction.  Advantages lose their mean.  Rewards keep it, + μ after the
    division: a constant reward for each token would otherwise vanish.

Groups: K answers to one prompt (`num_generations` in trl), with the rewards r₁ … r_K
    Aₖ = rₖ − mean(r)                                              (41.9)
    Aₖ = rₖ − mean of the other K − 1 = ( rₖ − mean(r) ) K / (K − 1)   (41.10)
    The others are drawn without regard to answer k, so what (41.10) subtracts is a baseline:
    by (40.3) it has no bias (leave-one-out, Kool et al. 2019).  (41.9) subtracts a bit of rₖ
    itself, and is (K − 1)/K times as long, in the same direction; AdamW hardly sees the
    difference.  All tokens of an answer have the same advantage: γ = 1, and r includes the KL,
    where β > 0.

    GRPO also divides by the group's standard deviation (`scale_rewards` in trl):
    Aₖ → Aₖ / (σ + 1e-4),  σ² = Σₖ (rₖ − mean(r))² / (K − 1)       (41.11)
    It is an option here, for it has a bias: a prompt that nearly always succeeds, or nearly always
    fails, has a small σ, so it counts more than (40.4) says; and σ is as random as the rewards.
    A group whose rewards are all the same has no advantage, with or without σ; (45.3) makes that
    exact in floating point.

Example: the score 3 for three tokens, half, twice and equally as likely as under the reference
    >>> r = token_rewards(3.0, np.log([0.5, 2.0, 1.0]), beta=1.0)
    >>> print(r.round(3), discounted(r).round(3))  # (41.1) (41.2)
    [ 0.693 -0.693  3.   ] [3.    2.307 3.   ]

    With r = (0, 0, 4) and v = (1, 2, 3), γ = 1: δ = (1, 1, 1).
    >>> r, v = np.array([0.0, 0.0, 4.0]), np.array([1.0, 2.0, 3.0])
    >>> for lam in (0.0, 0.5, 1.0):
    ...     print(gae(r, v, lam=lam))
    [1. 1. 1.]
    [1.75 1.5  1.  ]
    [3. 2. 1.]
    >>> print(gae(r, v, lam=0.0, after=10.0))  # was cut, and 10 more is expected
    [ 1.  1. 11.]

    One prompt with the rewards 1, 0, 0, one with 1, 1, 1:
    >>> rewards = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    >>> for baseline in BASELINES:
    ...     print(baseline, *group_advantages(rewards, baseline).round(3))
    mean [ 0.667 -0.333 -0.333] [0. 0. 0.]
    leave-one-out [ 1.  -0.5 -0.5] [0. 0. 0.]
    >>> x = np.array([1.0, 5.0])  # mean 3, variance 4
    >>> print(whitened(x).round(3), whitened(x, shift_mean=False).round(3))
    [-1.  1.] [2. 4.]
"""

import numpy as np

from minigpt2.backend import Array
from minigpt2.errors import require_one_of

BASELINES = ("mean", "leave-one-out")


def final_score(score: float, ended: bool, penalty: float = 1.0) -> float:
    """Return the score of an answer, less the penalty c if it was cut."""
    return score if ended else score - penalty  # (41.3)


def token_rewards(score: float, log_ratios: Array, beta: float) -> Array:
    """Return r (T,) of an answer by its score and the log-ratios ln π − ln π_ref of its tokens."""
    rewards = -beta * log_ratios  # (T,)
    rewards[-1] += score
    return rewards  # (T,)  (41.1)


def discounted(x: Array, factor: float = 1.0, after: float = 0.0) -> Array:
    """Return y (T,) with yₜ = xₜ + factor · yₜ₊₁, where `after` is the y behind the last."""
    y = np.empty(len(x), np.result_type(x, np.float32))  # (T,)
    for t in reversed(range(len(x))):
        after = y[t] = x[t] + factor * after  # (41.2) (41.6)
    return y


def gae(
    rewards: Array, values: Array, gamma: float = 1.0, lam: float = 0.95, after: float = 0.0
) -> Array:
    """Return A (T,) of an answer by the rewards of its tokens and the values before them, (T,).

    `after` is the value of the state behind the last token: 0, unless the answer was cut and is to
    be continued in thought.
    """
    following = np.append(values[1:], after)  # (T,)
    delta = rewards + gamma * following - values  # (T,)  (41.4)
    return discounted(delta, gamma * lam)  # (T,)  (41.6)


def returns(advantages: Array, values: Array) -> Array:
    """Return R (T,), towards which the value function learns; before any whitening."""
    return advantages + values  # (T,)  (41.7)


def whitened(x: Array, shift_mean: bool = True) -> Array:
    """Return the numbers of all tokens (M,) with variance 1, and with mean 0 if `shift_mean`."""
    mean, variance = x.mean(), x.var()
    y = (x - mean) / np.sqrt(variance + 1e-8)  # (M,)  (41.8)
    return y if shift_mean else y + mean  # (M,)


def group_advantages(
    rewards: Array, baseline: str = "mean", divide_by_sigma: bool = False
) -> Array:
    """Return A (Q, K) of the rewards of K answers to each of Q prompts; K is at least 2.

    `baseline` is one of BASELINES; raises ValueError for another.
    """
    require_one_of(BASELINES, baseline, "baseline")
    k = rewards.shape[1]
    advantages = rewards - rewards.mean(1, keepdims=True)  # (Q, K)  (41.9)
    variance = (advantages**2).sum(1, keepdims=True) / (k - 1)  # (Q, 1)
    if baseline == "leave-one-out":
        advantages = advantages * (k / (k - 1))  # (Q, K)  (41.10)
    if divide_by_sigma:
        advantages = advantages / (np.sqrt(variance) + 1e-4)  # (Q, K)  (41.11)
    return advantages
