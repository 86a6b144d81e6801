"""Losses: two averages over the tokens of answers, by tokens and by examples.

Definition, over the examples a, each with the tokens Aₐ of its answer, or of all its answers
    token-level loss    = Σₐ Σₙ nllₙ / Σₐ |Aₐ|,  n in Aₐ           (20.1)
    example-level loss  = mean over a of ( Σₙ nllₙ / |Aₐ| )        (20.2)
    perplexity          = exp( loss )                              (20.3)
Neither counts prompt tokens, whatever weight they have in training.

Read it
    The two are equal if all Aₐ have the same length.  In the first, an example counts by its
    length, so a few long ones dominate; in the second, each example counts the same.

Example: one answer of two tokens with nll 1 and 3, one answer of one token with nll 8
    >>> import numpy as np
    >>> batch = Batch(*[np.empty(0)] * 6, answers=np.array([0, 0, 1]))
    >>> losses = Losses()
    >>> losses.add(batch, np.array([1.0, 3, 8]))
    >>> losses.token_level, losses.example_level  # 12 / 3, and the mean of 2 and 8
    (4.0, 5.0)
"""

from math import exp, inf, nan
from typing import Any

import numpy as np

from minigpt2.backend import Array, to_host
from minigpt2.model.batch import Batch


class Losses:
    """The sums that both averages need, added up batch by batch."""

    def __init__(self) -> None:
        self.nll = 0.0
        self.tokens = 0
        self.means = 0.0
        self.examples = 0

    def add(self, batch: Batch, nll: Array) -> None:
        """Add the answers of a batch; nll (M,) is that of its triples."""
        in_answer = batch.answers >= 0
        answers = batch.answers[in_answer]
        lengths = np.bincount(answers)
        (on_host,) = to_host(nll)
        sums = np.bincount(answers, on_host.astype(np.float64)[in_answer])
        present = lengths > 0
        self.nll += float(sums.sum())
        self.tokens += len(answers)
        self.means += float((sums[present] / lengths[present]).sum())
        self.examples += int(present.sum())

    @property
    def token_level(self) -> float:
        """The loss per answer token; NaN without one."""
        return self.nll / self.tokens if self.tokens else nan  # (20.1)

    @property
    def example_level(self) -> float:
        """The mean over examples of the loss per answer token; NaN without one."""
        return self.means / self.examples if self.examples else nan  # (20.2)

    def numbers(self) -> dict[str, Any]:
        """Return all losses and counts by name."""
        return {
            "token_loss": self.token_level,
            "example_loss": self.example_level,
            "token_perplexity": perplexity(self.token_level),
            "example_perplexity": perplexity(self.example_level),
            "answer_tokens": self.tokens,
            "examples": self.examples,
        }


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where that is too large for a float."""
    try:
        return exp(loss)  # (20.3)
    except OverflowError:
        return inf
