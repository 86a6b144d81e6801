"""Losses: two ways to average over answers, both always told.

Definition, over the answers a, each with its tokens Aₐ
    token-level loss    = Σₐ Σₙ nllₙ / Σₐ |Aₐ|,  n in Aₐ           (19.1)
    example-level loss  = mean over a of ( Σₙ nllₙ / |Aₐ| )        (19.2)
    perplexity          = exp( loss )                              (19.3)
Prompt tokens are in neither, whatever their weight in training.

Read it
    The two are equal if all answers have the same length.  In the first an answer counts by its
    length, so a few long ones decide; in the second each counts the same.
"""

from math import exp, nan
from typing import Any

import numpy as np

from minigpt2.backend import Array
from minigpt2.model.batch import Batch


class Losses:
    """Sums from which both losses follow, batch after batch."""

    def __init__(self) -> None:
        self.nll = 0.0
        self.tokens = 0
        self.means = 0.0
        self.examples = 0

    def add(self, batch: Batch, nll: Array) -> None:
        """Count the answers of a batch whose triples have these nll (M,)."""
        in_answer = batch.answers >= 0
        answers = batch.answers[in_answer]
        sizes = np.bincount(answers)
        sums = np.bincount(answers, np.asarray(nll.tolist())[in_answer])
        there = sizes > 0
        self.nll += float(sums.sum())
        self.tokens += len(answers)
        self.means += float((sums[there] / sizes[there]).sum())
        self.examples += int(there.sum())

    @property
    def token_level(self) -> float:
        """The loss per answer token; NaN without one."""
        return self.nll / self.tokens if self.tokens else nan  # (19.1)

    @property
    def example_level(self) -> float:
        """The mean over examples of the loss per answer token; NaN without one."""
        return self.means / self.examples if self.examples else nan  # (19.2)

    def numbers(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {
            "token_loss": self.token_level,
            "example_loss": self.example_level,
            "token_perplexity": perplexity(self.token_level),
            "example_perplexity": perplexity(self.example_level),
            "answer_tokens": self.tokens,
            "answers": self.examples,
        }


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where that is too large for a float."""
    return exp(loss) if not loss > 700 else float("inf")  # (19.3)
