"""KL-regularised objective: the reward is raised while the policy stays close to its reference.

Why
    A reward alone is maximal where all probability is on one answer, and a learnt reward is
    wrong on answers that no person writes: its maximum is nonsense.  So what is maximised is the
    reward minus a price for every step away from the reference, the model that the run starts
    from.  The optimum is then known in closed form, which DPO uses and by which tests judge PPO.

Definition, for one prompt; y is an answer, the tokens up to end-of-text or to the longest length.
π is the policy, the model that is trained; π_ref is the reference, r(y) the reward, and β > 0
    KL(π‖π_ref) = Σ_y π(y) ln( π(y) / π_ref(y) )                   (37.1)
    J(π) = Σ_y π(y) r(y) − β KL(π‖π_ref)                           (37.2)

The optimum
    Reweigh the reference by the reward, and divide by the sum:
    Z     = Σ_y π_ref(y) exp( r(y) / β )                           (37.3)
    π*(y) = π_ref(y) exp( r(y) / β ) / Z                           (37.4)
    Solve (37.4) for the reward, r = β ln(π*/π_ref) + β ln Z, and put that into (37.2):
    J(π) = β ln Z − β KL(π‖π*)                                     (37.5)
    A KL is never negative, and it is 0 only for equal distributions, as k3 will show.  So π* is
    the optimum, and the only one; its value is J* = β ln Z.

Three estimates of the KL, from an answer y drawn from π and its l = ln π(y) − ln π_ref(y)
    k1 = l,  k2 = l² / 2,  k3 = exp(−l) − 1 + l                    (37.6)
    The mean of k1 is (37.1) itself.  The mean of exp(−l) under π is Σ_y π_ref(y) = 1, so k3 has the
    same mean.  It is never negative, for exp(−l) ≥ 1 − l, and 0 only at l = 0.  k2 agrees with k3
    to second order in l, and is biased.  (The names are Schulman's: "Approximating KL divergence",
    2020.)

What each of them does in a loss
    A good estimate of a value need not have a good gradient.  A program that puts an estimate into
    its loss differentiates it at the answers that were drawn, so with respect to ln π:
    ∂k1/∂ln π = 1,  ∂k2/∂ln π = l,  ∂k3/∂ln π = 1 − exp(−l)        (37.7)
    and its mean gradient is Σ_y π(y) (∂k/∂ln π) ∇ln π(y).  Probabilities add up to 1, so
    Σ_y π ∇ln π = Σ_y ∇π = ∇1 = 0                                  (37.8)
    whereas the gradient of (37.1) is, by the product rule and (37.8),
    ∇KL(π‖π_ref) = Σ_y π l ∇ln π + Σ_y π ∇ln π = Σ_y π l ∇ln π     (37.9)
    k1: by (37.8) the mean is 0.  The reference does not even occur: nothing holds the policy.
    k2: the mean is (37.9).  The estimate with the biased value has the right gradient.
    k3: Σ_y (π − π_ref) ∇ln π = −Σ_y π_ref ∇ln π = ∇KL(π_ref‖π): the KL of the other direction.

    Token by token, lₜ = ln π(yₜ) − ln π_ref(yₜ), none of the three is right.  An answer has
    l = Σₜ lₜ and ∇ln π(y) = Σₜ ∇ln π(yₜ); in (37.9) the product of an earlier lₛ with a later
    ∇ln π(yₜ) has mean 0 by (37.8), as lₛ is a constant by then, and the others stay:
    ∇KL(π‖π_ref) = mean over y of Σₜ ( Σ_{s ≥ t} lₛ ) ∇ln π(yₜ)    (37.10)
    k2 of each token has lₜ where (37.10) has the sum over s ≥ t: a token is not charged for the
    tokens to which it leads.  A reward is summed in just this way, from a token on: so the KL
    belongs in the reward, −β lₜ at each token (41.1), and not in the loss.

Adaptive β (Ziegler et al. 2019, section 2.2)
    If the KL per answer should be near a target, β follows it.  After n answers,
    e = clip( KL / target − 1, −0.2, 0.2 )                         (37.11)
    β → β ( 1 + e n / horizon )                                    (37.12)
    so β grows while the KL is above its target, by about a fifth at most in `horizon` answers.

Example: two answers with the rewards 1 and 0, a uniform reference, β = 1
    Z = (e + 1) / 2, the optimum is (e, 1) / (e + 1), and J* = ln((e + 1) / 2):
    >>> reference, rewards = np.log([0.5, 0.5]), np.array([1.0, 0.0])
    >>> log_p, value = optimum(reference, rewards, beta=1.0)
    >>> print(np.exp(log_p).round(4), round(float(value), 4))
    [0.7311 0.2689] 0.6201
    >>> print(round(float(objective(log_p, reference, rewards, beta=1.0)), 4))
    0.6201

    With k3 in the loss the policy comes to rest where Σ_y (π r − π + π_ref) ∇ln π = 0: with p for
    π of the first answer where p (1 − p) = p − ½, at 1/√2 = 0.7071, and not at 0.7311.

    Two answers drawn from a policy that has p = (0.8, 0.2):
    >>> for estimate in estimates(np.log([0.8, 0.2]) - reference):
    ...     print(estimate.round(4), round(float(estimate @ [0.8, 0.2]), 4))
    [ 0.47   -0.9163] 0.1927
    [0.1105 0.4198] 0.1723
    [0.095  0.5837] 0.1927

    20 answers to a prompt had a KL of 9, so e = clip(9/6 − 1) = 0.2, and β grows
    by 0.2 · 20 / 10,000 of itself:
    >>> round(adapted(0.15, kl=9.0, answers=20), 6)
    0.15006

Read it
    β → 0 is the reward alone, β → ∞ the reference alone.  r and r + c have the same optimum.  A
    difference of rewards of β ln 10 makes one answer ten times likelier over another than it was.
"""

import numpy as np

from minigpt2.backend import Array


def kl(log_p: Array, log_q: Array) -> Array:
    """Return KL(p‖q) of two distributions by their logarithms, summed over the last axis.

    All probabilities are above 0, as a softmax gives them.
    """
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)  # (37.1)


def objective(log_policy: Array, log_reference: Array, rewards: Array, beta: float) -> Array:
    """Return J(π) by the log-probability and the reward of every answer there is."""
    return (np.exp(log_policy) * rewards).sum(-1) - beta * kl(log_policy, log_reference)  # (37.2)


def optimum(log_reference: Array, rewards: Array, beta: float) -> tuple[Array, Array]:
    """Return ln π* of every answer there is, and J*."""
    tilted = log_reference + rewards / beta
    log_z = np.logaddexp.reduce(tilted, -1)  # (37.3)
    return tilted - log_z[..., None], beta * log_z  # (37.4) (37.5)


def estimates(log_ratios: Array) -> tuple[Array, Array, Array]:
    """Return k1, k2 and k3 of log-ratios l = ln π − ln π_ref, drawn from π."""
    return log_ratios, log_ratios**2 / 2, np.expm1(-log_ratios) + log_ratios  # (37.6)


def slopes(log_ratios: Array) -> tuple[Array, Array, Array]:
    """Return the derivatives of k1, k2 and k3 with respect to ln π."""
    return np.ones_like(log_ratios), log_ratios, -np.expm1(-log_ratios)  # (37.7)


def adapted(
    beta: float, kl: float, answers: int, target: float = 6.0, horizon: float = 10_000.0
) -> float:
    """Return the next β after `answers` answers with a mean `kl` each (in nats), at fixed target.

    The defaults are those of Ziegler et al. 2019's code.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)  # (37.11)
    return beta * (1 + error * answers / horizon)  # (37.12)
