"""Policy gradient: how samples of an answer tell which tokens to make likelier.

Why
    The reward of an answer has no gradient: it is a number that a person, a model or a program
    gave to a text.  But the expected reward has one, through the probabilities of the answers,
    and that gradient is an expectation, too.  So answers that the policy draws estimate it.

Score function, with π for the policy and y for an answer
    J = Σ_y π(y) r(y)                                              (40.1)
    ∇π = π ∇ln π, so the gradient of (40.1) is a mean over answers that the policy draws:
    ∇J = Σ_y π(y) r(y) ∇ln π(y),  ln π(y) = Σₜ ln πₜ               (40.2)
    where πₜ is the probability of token t after the prompt and the tokens before it.  The
    end-of-text is a token like the others: writing it is a choice, which ends the answer.

Baseline
    Let b be any number that is settled before token t is drawn.  Probabilities add up to 1, so
    Σᵥ πₜ(v) b ∇ln πₜ(v) = b ∇ Σᵥ πₜ(v) = b ∇1 = 0                 (40.3)
    Whatever was earned before token t is such a number and can be left out, and an expected reward
    can be subtracted: by (40.3) the mean (40.2) stays, and the samples' gradients scatter less.
    What is left of the reward is the token's advantage Aₜ (chapter 41):
    ∇J = mean over y of Σₜ Aₜ ∇ln πₜ                               (40.4)
    A is a constant in (40.4): it has no gradient, even if it was computed from ln π.

Importance ratio
    Answers that an older policy drew can be used for several steps, if token n counts by how
    much likelier it has become since:
    ρₙ = πₙ / π_old,n = exp( ln πₙ − ln π_old,n )                  (40.5)
    For then Σᵥ π_old(v) ρ(v) A(v) = Σᵥ π(v) A(v).  At π = π_old every ρ is 1, and the gradient is
    (40.4), as ∇ρ = ρ ∇ln π.  Further away it is not: where the tokens before differ in
    probability, too, (40.5) does not say so.  So a step must not go far.

Clip (PPO, Schulman et al. 2017, equation 7)
    mₙ = min( ρₙ Aₙ, clip(ρₙ, 1 − ε, 1 + ε) Aₙ )                   (40.6)
    ℒ  = −Σₙ uₙ mₙ                                                 (40.7)
    with a share uₙ for each token, below.  With the sign of A taken out of the minimum,
    m = A min(ρ, 1 + ε) for A > 0, and m = A max(ρ, 1 − ε) for A < 0.  So token n is clipped,
    m does not depend on ρ, exactly
    where ρ > 1 + ε and A > 0, or ρ < 1 − ε and A < 0              (40.8)
    and wₙ = −∂ℒ/∂ln πₙ, which is the weight of a triple (chapter 35), follows by ∂ρ/∂ln π = ρ:
    wₙ = uₙ Aₙ ρₙ where it is not clipped, 0 where it is           (40.9)
    In the six regions, ∂m/∂ρ, with ε = 0.2:
              ρ < 0.8    between    ρ > 1.2
        A > 0    A          A          0      likelier already: no further
        A < 0    0          A          A      rarer already: no further
    A good token that became rarer, and a bad one that became likelier, are never clipped: the
    step went the wrong way there.  m has a kink at ρ = 1 + ε if A > 0, and at ρ = 1 − ε if A < 0;
    on it a token counts as not clipped.

Shares: what a sum over tokens is divided by.  W is the number of tokens of the step, G that of
its answers, |a| the length of token n's answer and c a constant
    u = 1/W,  1/(G c),  1/(G |a|)  or  1/G                         (40.10)
    1/G, sample: (40.4) as it is, without bias.  Its length grows with that of the answers.
    1/(G c), constant: (40.4) over c, without bias, too.  c is the longest length that is allowed
        (Dr. GRPO, Liu et al. 2025; `dr_grpo` in trl).
    1/W, tokens: near (40.4) over the mean length.  W depends on the answers that were drawn, so a
        little bias is left, which vanishes as G grows (DAPO, Yu et al. 2025; `dapo` in trl).
    1/(G |a|), answer: a token of a long answer counts less than one of a short answer, so a
        long wrong answer is blamed less for each token than a short one, and wrong answers
        grow.  This bias does not vanish (GRPO, Shao et al. 2024; `grpo` in trl).
    The normaliser Z is the divisor without |a|: W, G c, G and G.  It is that of the whole step, so
    the Z of all micro-batches add up first.

Example: three tokens of two answers, one with A = 2, one with A = −1; ε = 0.2
    The first token has become 1.5 times as likely, the last one half as likely.  Both are clipped
    and add 1.2 · 2 and 0.8 · (−1) to Σ m; the second adds 1 · 2.  With u = 1/W = ⅓:
    >>> answers, advantages = np.array([0, 0, 1]), np.array([2.0, 2.0, -1.0])
    >>> old = np.log([0.2, 0.5, 0.4])
    >>> log_p = old + np.log([1.5, 1.0, 0.5])
    >>> shares = token_shares("tokens", answers) / normaliser("tokens", answers)
    >>> print(round(float(clipped_loss(log_p, old, advantages, shares, clip=0.2)), 4))  # −3.6 / 3
    -1.2
    >>> print(clipped_weights(log_p, old, advantages, shares, clip=0.2).round(4))
    [0.     0.6667 0.    ]
    >>> for kind in NORMALISERS:  # c = 4
    ...     print(kind, token_shares(kind, answers) / normaliser(kind, answers, constant=4))
    tokens [0.33333333 0.33333333 0.33333333]
    constant [0.125 0.125 0.125]
    answer [0.25 0.25 0.5 ]
    sample [0.5 0.5 0.5]

Read it
    A token whose advantage is 0 gets no gradient, and neither does one whose probability is 1.
    The first pass over new answers has ρ = 1 everywhere; if it has not, the policy that drew them
    is not the one that is trained: another temperature, top-k, dropout, a token off by one.
"""

import numpy as np

from minigpt2.backend import Array
from minigpt2.errors import require_one_of

NORMALISERS = ("tokens", "constant", "answer", "sample")


def token_shares(kind: str, answers: Array) -> Array:
    """Return (M,) what each token counts before the division by Z; `answers` (M,) names its answer.

    `kind` is one of NORMALISERS; raises ValueError for another.
    """
    require_one_of(NORMALISERS, kind, "normaliser")
    if kind != "answer":
        return np.ones(len(answers))  # (M,)  (40.10)
    _, places, lengths = np.unique(answers, return_inverse=True, return_counts=True)
    return 1 / lengths[places]  # (M,)  (40.10)


def normaliser(kind: str, answers: Array, constant: float = 1.0) -> float:
    """Return the part of Z that the tokens of some whole answers add; `constant` is c.

    `kind` is one of NORMALISERS; raises ValueError for another.
    """
    require_one_of(NORMALISERS, kind, "normaliser")
    if kind == "tokens":
        return float(len(answers))  # W  (40.10)
    count = float(len(np.unique(answers)))  # G
    return count * constant if kind == "constant" else count  # (40.10)


def ratios(log_p: Array, old: Array) -> Array:
    """Return ρ (M,) of log-probabilities now and when the tokens were drawn."""
    return np.exp(log_p - old)  # (M,)  (40.5)


def clipped(rho: Array, advantages: Array, clip: float) -> Array:
    """Return (M,) whether each token is clipped; clip is ε."""
    rho, advantages = rho.real, advantages.real
    above, below = rho > 1 + clip, rho < 1 - clip
    return (above & (advantages > 0)) | (below & (advantages < 0))  # (M,)  (40.8)


def clipped_loss(
    log_p: Array, old: Array, advantages: Array, shares: Array, clip: float = 0.2
) -> Array:
    """Return ℒ of log-probabilities now and when drawn, advantages and shares u, all (M,)."""
    rho = ratios(log_p, old)  # (M,)
    bound = np.where(advantages.real > 0, 1 + clip, 1 - clip)  # (M,)
    m = advantages * np.where(clipped(rho, advantages, clip), bound, rho)  # (M,)  (40.6)
    return -(shares * m).sum()  # (40.7)


def clipped_weights(
    log_p: Array, old: Array, advantages: Array, shares: Array, clip: float = 0.2
) -> Array:
    """Return w = −∂ℒ/∂ln π (M,) of the same arguments."""
    rho = ratios(log_p, old)  # (M,)
    return np.where(clipped(rho, advantages, clip), 0.0, shares * advantages * rho)  # (M,)  (40.9)
