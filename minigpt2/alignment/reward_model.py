"""Reward model: a GPT-2 that learns from pairs how good an answer is.

Why
    An answer's reward should be a number, but people only say which of two answers is better.
    The model by Bradley and Terry (1952) links both: the further two numbers are apart, the surer
    is the preference.  So a model whose numbers explain the preferences has learnt a reward.

Definition
    The reward model is a GPT-2 with a head (model/heads) in the place of the projection.  It reads
    one row of an answer, that of its last token, which is its end-of-text unless it was cut:
    s = h · w + b                                                  (36.1)
    No later row sees more of the answer.  The row is known by its place in the forest, and not by
    the value of its token: there is no padding that it could be taken for.

    A pair of the answers c and r to one prompt has the difference
    d = s_c − s_r                                                  (36.2)
    and c is preferred with probability σ(d) = 1 / (1 + e⁻ᵈ).  So the loss of B pairs is
    ℒ = −1/B Σ ln σ(d)                                             (36.3)
    Only differences matter: scores that all grow by a constant, or by a number for each prompt,
    have the same loss.  To keep them near 0, one may add
    ℒ + γ/B Σ (s_c + s_r)²                                         (36.4)
    (Eisenstein et al. 2023; `center_rewards_coefficient` in trl.)

Derivation, where dx stands for ∂ℒ/∂x
    ln σ(d) = −ln(1 + e⁻ᵈ), so its derivative is e⁻ᵈ / (1 + e⁻ᵈ):
    ∂ ln σ(d)/∂d = 1 − σ(d) = σ(−d)                                (36.5)
    By (36.2) d has the derivative 1 with respect to s_c and −1 with respect to s_r:
    ds_c = ( −σ(−d) + 2γ (s_c + s_r) ) / B                         (36.6)
    ds_r = ( +σ(−d) + 2γ (s_c + s_r) ) / B                         (36.7)
    From there on the head has its own backward pass: dh = ds w in the last row of each answer,
    and 0 in all others.  No logits are computed.  b cancels in d, so it is not trained: it stays 0
    until the scores are normalised, below.  (With γ > 0 it would have a gradient; the bias of the
    last layer normalisation can do what b would.)

Start of the head
    With w = 0 all scores are 0: the first loss is ln 2, and the first step changes w alone.  Or w
    is drawn from a normal distribution with the standard deviation
    1/√(C + 1)                                                     (36.8)
    so that scores of rows whose C features are of size 1 are of size 1 (Stiennon et al. 2020).

Normalisation
    A policy's KL is weighed against the reward, so the reward needs a unit.  With the mean μ and
    the standard deviation σₛ of the scores of some answers, for example the reference's,
    w → w / σₛ,  b → (b − μ) / σₛ                                  (36.9)
    gives these answers the mean 0 and the variance 1; no order of two answers changes.

Example: two pairs with the scores (ln 3, 0) and (0, ln 3)
    σ(ln 3) = 3/4: the first pair is right, its loss is ln 4/3; that of the second is ln 4.  A wrong
    pair is pushed three times as hard as a right one:
    >>> scores = np.log([[3.0, 1.0], [1.0, 3.0]])
    >>> print(bradley_terry(scores).round(4), np.log([4 / 3, 4]).round(4))  # (36.3)
    [0.2877 1.3863] [0.2877 1.3863]
    >>> print(bradley_terry_gradient(scores) / 2)  # (36.6) (36.7), B = 2
    [[-0.125  0.125]
     [-0.375  0.375]]

    Scores of 3 and 7 have the mean 5 and the deviation 2, so w is halved, and b becomes −2.5:
    >>> w = np.array([[4.0, 2.0]])
    >>> normalise(w, 0.0, np.array([3.0, 7.0])), w  # (36.9)
    (-2.5, array([[2., 1.]]))

Read it
    What the pairs do not compare, the scores do not know: a model that only saw answers that are
    too long may love one that is empty.  So accuracies are counted by kind of pair.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.log_probs import Answer, batch_of_answers
from minigpt2.alignment.pair_batches import answers_of, by_pair, pairs_in
from minigpt2.alignment.pairs import Pair
from minigpt2.backend import Array
from minigpt2.errors import UserError
from minigpt2.model.batch import Batch
from minigpt2.model.gradients import Gradients
from minigpt2.model.heads import SCORE, head_gradients, head_values
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options

NO_TARGET = 0  # behind an answer: the row that would predict it is the row of the last token


def log_sigmoid(d: Array) -> Array:
    """Return ln σ(d); no exponential overflows."""
    negative = np.where(d.real < 0, d, 0)
    return negative - np.log1p(np.exp(2 * negative - d))  # e to minus the size of d


def bradley_terry(scores: Array, centre: float = 0.0) -> Array:
    """Return the loss of each pair (B,) by its scores (B, 2), chosen and rejected; γ is `centre`.

    ℒ is their sum over B.
    """
    d = scores[:, 0] - scores[:, 1]  # (B,)  (36.2)
    return -log_sigmoid(d) + centre * scores.sum(1) ** 2  # (B,)  (36.3) (36.4)


def bradley_terry_gradient(scores: Array, centre: float = 0.0) -> Array:
    """Return B ds (B, 2) of scores (B, 2)."""
    d = scores[:, 0] - scores[:, 1]  # (B,)  (36.2)
    pull = np.exp(log_sigmoid(-d))  # (B,)  (36.5)
    both = 2 * centre * scores.sum(1)  # (B,)
    return np.stack([both - pull, both + pull], 1)  # (B, 2)  (36.6) (36.7)


def batch_of_last_rows(answers: Sequence[Answer]) -> Batch:
    """Lay answers out as a forest in which each has one triple: its row is that of the last token.

    The triple's target has no meaning.
    """
    batch = batch_of_answers([Answer(prompt, [*ids, NO_TARGET]) for prompt, ids in answers])
    last = np.cumsum(np.bincount(batch.answers)) - 1  # (A,)  (36.1)
    columns = {
        name: getattr(batch, name)[last] for name in ("rows", "targets", "weights", "answers")
    }
    return batch._replace(**columns)


def score_answers(
    parameters: Parameters, answers: Sequence[Answer], bias: float = 0.0, micro_batch: int = 32
) -> Array:
    """Return the score (A,) of each answer, in float64; `micro_batch` are computed at once."""
    starts = range(0, len(answers), micro_batch)
    batches = [batch_of_last_rows(answers[start : start + micro_batch]) for start in starts]
    scores = [head_values(parameters, batch, SCORE) for batch in batches]
    return np.concatenate([np.empty(0), *scores]) + bias  # (36.1)


def score_pairs(
    parameters: Parameters, pairs: Sequence[Pair], bias: float = 0.0, micro_batch: int = 16
) -> Array:
    """Return the scores (B, 2) of the answers of pairs, `micro_batch` pairs at once."""
    return by_pair(score_answers(parameters, answers_of(pairs), bias, 2 * micro_batch))


class Preferences(NamedTuple):
    """How well scores explain pairs; a pair whose scores are equal is not right."""

    loss: float
    accuracy: float  # share of pairs whose chosen answer has the higher score
    margin: float  # mean of d

    @classmethod
    def of(cls, scores: Array, centre: float = 0.0) -> "Preferences":
        """Return the numbers of scores (B, 2)."""
        d = scores[:, 0] - scores[:, 1]
        loss = float(bradley_terry(scores, centre).mean())
        return cls(loss, float((d > 0).mean()), float(d.mean()))


def accuracy_by_kind(scores: Array, kinds: Sequence[str]) -> dict[str, float]:
    """Return the share of pairs of each kind whose chosen answer has the higher score.

    Pairs without a kind are left out.

    >>> accuracy_by_kind(np.array([[1, 0], [0, 1], [2, 0.0]]), ["cut", "cut", "long"])
    {'cut': 0.5, 'long': 1.0}
    """
    right = scores[:, 0] > scores[:, 1]
    named = np.array(kinds)
    return {k: float(right[named == k].mean()) for k in dict.fromkeys(kinds) if k}


def start_of_head(n_embd: int, rng: np.random.Generator | None = None) -> Array:
    """Return score.weight (1, C) to begin with: 0, or drawn from the generator."""
    if rng is None:
        return np.zeros((1, n_embd), np.float32)
    return (rng.standard_normal((1, n_embd)) / sqrt(n_embd + 1)).astype(np.float32)  # (36.8)


def normalise(weight: Array, bias: float, scores: Array) -> float:
    """Divide score.weight (1, C), so that `scores` have variance 1; return the b of mean 0.

    `scores` are those with this weight and bias.  Raises UserError if all are equal.
    """
    if scores.max() == scores.min():
        raise UserError("the reward model gives all answers one score: it cannot be normalised")
    mean, deviation = float(scores.mean()), float(scores.std())
    weight /= deviation  # (36.9)
    return (bias - mean) / deviation  # (36.9)


class BradleyTerry:
    """The objective of a reward model, on batches of `batch_of_last_rows`, pair by pair."""

    def __init__(self, centre: float = 0.0):
        self.centre = centre

    def normaliser(self, batches: Sequence[Batch]) -> float:
        """Return the number of pairs."""
        return sum(map(pairs_in, batches))  # (36.3)

    def add_gradients(
        self, parameters: Parameters, batch: Batch, gradients: Gradients, options: Options
    ) -> Array:
        """Add the gradients of S ℒ; return the scores (2 B,) in turn."""

        def derivative(scores: Array) -> Array:
            ds = bradley_terry_gradient(by_pair(scores), self.centre).ravel()  # (2 B,)
            return options.loss_scale * ds / options.normaliser  # (36.6) (36.7)

        return head_gradients(
            parameters,
            batch,
            gradients,
            derivative,
            SCORE,
            drop=options.drop,
            rng=options.rng,
            recompute=options.recompute,
        )

    def metrics(self, batches: Sequence[Batch], results: Sequence[Array | None]) -> dict[str, Any]:
        """Return the loss, the accuracy and the margin of a step."""
        scores = [by_pair(result) for result in results if result is not None]
        return Preferences.of(np.concatenate(scores), self.centre)._asdict()
