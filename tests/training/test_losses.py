"""Losses: (20.1) to (20.3), however examples are batched."""

from itertools import pairwise
from math import exp, inf, isnan, nan

import numpy as np
import pytest

from minigpt2.data.batches import batch_of
from minigpt2.data.loss_weights import LossWeights
from minigpt2.training.losses import Losses, perplexity
from tests.data.small import example_of

EXAMPLES = [example_of([1, 2], [3]), example_of([1], [4, 5, 6]), example_of([7, 8], [9, 9])]
NLL = {3: 1.0, 4: 2.0, 5: 3.0, 6: 4.0, 9: 8.0}  # of a target; a prompt's would be 100


def losses_of(*parts, loss_weights=None):
    """The losses of examples that come in these parts."""
    losses = Losses()
    for part in parts:
        batch = batch_of(part, loss_weights or LossWeights())
        losses.add(batch, np.array([NLL.get(int(t), 100.0) for t in batch.targets]))
    return losses


@pytest.mark.parametrize(
    "loss_weights", [LossWeights(), LossWeights(1.0), LossWeights(0.5, True)], ids=str
)
@pytest.mark.parametrize("sizes", [(3,), (1, 1, 1), (2, 1)], ids=str)
def test_both_losses_spelled_out(sizes, loss_weights):
    cuts = np.cumsum([0, *sizes])
    parts = [EXAMPLES[a:b] for a, b in pairwise(cuts)]
    losses = losses_of(*parts, loss_weights=loss_weights)
    assert losses.token_level == pytest.approx((1 + 2 + 3 + 4 + 8 + 8) / 6)
    assert losses.example_level == pytest.approx((1 + 3 + 8) / 3)
    assert (losses.tokens, losses.examples) == (6, 3)


def test_answers_of_one_length_have_one_loss():
    losses = losses_of([EXAMPLES[2], example_of([1], [3, 4])])
    assert losses.token_level == pytest.approx(losses.example_level)


def test_an_answer_without_tokens_is_none():
    batch = batch_of(EXAMPLES)
    nll = np.arange(6.0)
    losses, spread = Losses(), Losses()
    losses.add(batch, nll)
    spread.add(batch._replace(answers=2 * batch.answers), nll)  # numbers 1 and 3 are of nobody
    assert losses.numbers() == spread.numbers() and spread.examples == 3


def test_without_answers_there_is_no_loss():
    assert isnan(Losses().token_level) and isnan(Losses().example_level)


def test_perplexity():
    for loss in (-5.0, 2.0, 700.0, 709.0):
        assert perplexity(loss) == exp(loss) < inf
    assert perplexity(710.0) == perplexity(1e6) == perplexity(inf) == inf and isnan(perplexity(nan))


def test_losses_and_counts_by_name():
    assert losses_of(EXAMPLES).numbers() == {
        "token_loss": 26 / 6,
        "example_loss": 4.0,
        "token_perplexity": exp(26 / 6),
        "example_perplexity": exp(4.0),
        "answer_tokens": 6,
        "examples": 3,
    }
