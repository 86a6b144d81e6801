"""DPO: pairs train the policy, without a reward model and without samples.

Why
    The best policy for a reward is known in closed form (37.4).  Read the other way round, every
    policy is the best one for some reward.  So instead of learning a reward from pairs, and then a
    policy from the reward, let the policy itself explain the pairs: direct preference
    optimisation (Rafailov et al. 2023).

Definition
    Solve (37.4) for the reward of an answer y to the prompt x:
    r(x, y) = β ln( π*(y|x) / π_ref(y|x) ) + β ln Z(x)             (38.1)
    The loss of Bradley and Terry (36.3) knows differences of rewards only, of two answers to one
    prompt, and so the same Z, which nobody could compute: it cancels.  With the policy π in the
    place of π*, what is left of (38.1) is the implicit reward
    r̂(y) = β ( ln π(y|x) − ln π_ref(y|x) )                         (38.2)
    whose ln π, by (35.1), are sums over the answer's tokens, end-of-text included.  The difference
    and the loss of B pairs are those of a reward model:
    h = r̂(y_c) − r̂(y_r)                                            (38.3)
    ℒ = −1/B Σ ln σ(h)                                             (38.4)

    Label smoothing: if a share ε of the pairs is the wrong way round,
    ℒ = −1/B Σ ( (1 − ε) ln σ(h) + ε ln σ(−h) )                    (38.5)
    whose minimum is no longer at h = ∞, but at h = ln((1 − ε)/ε)  (Mitchell 2023).

    Length normalisation: the mean over an answer's tokens in place of their sum,
    r̂(y) = β/|y| ( ln π(y|x) − ln π_ref(y|x) )                     (38.6)
    as an option: it no longer follows from (37.4), and keeps answers from growing.

Derivation
    By (36.5), and as σ(h) + σ(−h) = 1, (38.5) has the derivative
    ∂ℒ/∂h = −g/B,  g = (1 − ε) σ(−h) − ε σ(h) = σ(−h) − ε          (38.7)
    By (38.2), h has the derivative β with respect to ln p of each token of the chosen answer, and
    −β for the rejected one's.  The weights (35.3) are minus the derivatives of ℒ:
    w = +β g / B  on the chosen's tokens,  −β g / B on the rejected's   (38.8)
    divided by |y| with (38.6).  So a step of DPO is one of instruction tuning with signed weights.

    What both answers begin with, they share: there the hidden rows and the targets are equal, and
    the weights +w and −w add up to exactly 0.  Learning begins at the first difference.  With
    (38.6) the sum is β g (1/|y_c| − 1/|y_r|) / B, which is not 0 if the lengths differ.

Reference
    Of π_ref two numbers a pair are needed, ln π_ref of both answers.  They never change, so they
    are computed once, before the first step, by the same weights: there is no second model in
    memory.  At the first step h is 0, and ℒ is ln 2.

Example: β = ½; the chosen answer is 9 times as likely as by the reference, the rejected as it was
    r̂ = (½ ln 9, 0), so h = ln 3, σ(h) = 3/4, ℒ = ln 4/3, g = 1/4, and w = ±½ · ¼:
    >>> log_ratios, lengths = np.log([[9.0, 1.0]]), np.array([[2, 3]])
    >>> dpo = DPO(beta=0.5)
    >>> rewards = dpo.rewards(log_ratios, lengths)
    >>> print(rewards.round(4), dpo.losses(rewards).round(4), np.log(4 / 3).round(4))
    [[1.0986 0.    ]] [0.2877] 0.2877
    >>> print(dpo.weights(rewards, lengths).round(4))  # (38.8)
    [[ 0.125 -0.125]]

    With ε = 0.1, ℒ = 0.9 ln 4/3 + 0.1 ln 4 and g = 0.15.  Per token, r̂ is (½ ln 9 / 2, 0), so
    σ(h) = √3/(1 + √3), and the weights are ½ (1 − σ(h)) over 2 and over 3:
    >>> smooth = DPO(beta=0.5, smoothing=0.1)
    >>> print(smooth.losses(rewards).round(4), smooth.weights(rewards, lengths).round(4))
    [0.3975] [[ 0.075 -0.075]]
    >>> mean = DPO(beta=0.5, per_token=True)
    >>> print(mean.weights(mean.rewards(log_ratios, lengths), lengths).round(4))
    [[ 0.0915 -0.061 ]]

Read it
    The loss only knows the difference of both log-ratios.  It is lowered as well by making the
    chosen answer less likely, if the rejected one falls faster, and this happens: so both are
    logged.  g vanishes for pairs that are right already, and is largest for those that are wrong.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.log_probs import (
    batch_of_answers,
    log_probs,
    policy_gradients,
    sums_by_answer,
)
from minigpt2.alignment.pair_batches import answers_of, by_pair, pairs_in
from minigpt2.alignment.pairs import Pair
from minigpt2.alignment.reward_model import log_sigmoid
from minigpt2.backend import Array
from minigpt2.model.batch import Batch
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options


class DPO(NamedTuple):
    """The constants of the loss.  Arrays of pairs are (B, 2): chosen, rejected."""

    beta: float = 0.1
    smoothing: float = 0.0  # ε, a number or one for each pair (B,)
    per_token: bool = False  # (38.6)

    def rewards(self, log_ratios: Array, lengths: Array) -> Array:
        """Return r̂ (B, 2) of answers by ln π − ln π_ref (B, 2) and their tokens (B, 2)."""
        return self.factors(lengths) * log_ratios  # (B, 2)  (38.2) (38.6)

    def factors(self, lengths: Array) -> Array:
        """Return the derivative of r̂ with respect to ln p of a token (B, 2)."""
        return self.beta / lengths if self.per_token else np.full(lengths.shape, self.beta)

    def losses(self, rewards: Array) -> Array:
        """Return the loss of each pair (B,) by r̂ (B, 2); ℒ is their sum over B."""
        h, e = rewards[:, 0] - rewards[:, 1], self.smoothing  # (B,)  (38.3)
        return -((1 - e) * log_sigmoid(h) + e * log_sigmoid(-h))  # (B,)  (38.4) (38.5)

    def weights(self, rewards: Array, lengths: Array) -> Array:
        """Return B w (B, 2), the weight of each token of the answers."""
        h = rewards[:, 0] - rewards[:, 1]  # (B,)  (38.3)
        g = np.exp(log_sigmoid(-h)) - self.smoothing  # (B,)  (38.7)
        return self.factors(lengths) * np.stack([g, -g], 1)  # (B, 2)  (38.8)

    def numbers(self, log_ratios: Array, lengths: Array) -> dict[str, float]:
        """Return the metrics of pairs: `loss`, and means over the pairs.

        `accuracy` is the share of pairs with h > 0, `margin` the mean of h, both rewards are means
        of r̂, both log-ratios means of ln π − ln π_ref of whole answers.
        """
        rewards = self.rewards(log_ratios, lengths)
        h = rewards[:, 0] - rewards[:, 1]
        chosen_reward, rejected_reward = rewards.mean(0).tolist()
        chosen_log_ratio, rejected_log_ratio = log_ratios.mean(0).tolist()
        return {
            "loss": float(self.losses(rewards).mean()),
            "accuracy": float((h > 0).mean()),
            "margin": float(h.mean()),
            "chosen_reward": chosen_reward,
            "rejected_reward": rejected_reward,
            "chosen_log_ratio": chosen_log_ratio,
            "rejected_log_ratio": rejected_log_ratio,
        }


def pair_log_probs(parameters: Parameters, pairs: Sequence[Pair], micro_batch: int = 16) -> Array:
    """Return ln π (B, 2) of the answers of pairs, in float64; `micro_batch` are computed at once.

    With the weights that a run begins with, these are the numbers of the reference.
    """
    sums = [np.empty(0)]
    for start in range(0, len(pairs), micro_batch):
        batch = batch_of_answers(answers_of(pairs[start : start + micro_batch]))
        sums.append(sums_by_answer(log_probs(parameters, batch), batch))
    return by_pair(np.concatenate(sums))  # (B, 2)


def lengths_in(batch: Batch) -> Array:
    """Return how many tokens the answers of a batch of pairs have (B, 2)."""
    return by_pair(np.bincount(batch.answers))


def log_ratios_of(log_p: Array, batch: Batch) -> Array:
    """Return ln π − ln π_ref (B, 2) by ln p (M,) of a batch with a column "reference"."""
    return by_pair(sums_by_answer(log_p - batch.columns["reference"], batch))


class DPOObjective:
    """The objective of DPO, on batches of pairs with a column "reference"."""

    def __init__(self, dpo: DPO | None = None):
        self.dpo = dpo or DPO()

    def normaliser(self, batches: Sequence[Batch]) -> float:
        """Return the number of pairs."""
        return sum(map(pairs_in, batches))  # (38.4)

    def add_gradients(
        self, parameters: Parameters, batch: Batch, gradients: Gradients, options: Options
    ) -> Array:
        """Add the gradients of S ℒ; return ln p (M,)."""
        lengths = lengths_in(batch)

        def weigh(log_p: Array) -> Array:
            rewards = self.dpo.rewards(log_ratios_of(log_p, batch), lengths)
            weights = self.dpo.weights(rewards, lengths) / options.normaliser  # (38.8)
            return weights.ravel()[batch.answers]  # (M,)

        return policy_gradients(parameters, batch, gradients, weigh, options)

    def metrics(self, batches: Sequence[Batch], results: Sequence[Array | None]) -> dict[str, Any]:
        """Return the loss of a step, the accuracy, the margin, rewards and log-ratios."""
        done = [(log_p, b) for log_p, b in zip(results, batches, strict=True) if log_p is not None]
        log_ratios = np.concatenate([log_ratios_of(log_p, batch) for log_p, batch in done])
        return self.dpo.numbers(log_ratios, np.concatenate([lengths_in(b) for _, b in done]))
