"""Objective: what the loss of tuning and pretraining asks of the model, and what it measures."""

from math import isnan

import numpy as np
import pytest

from minigpt2.data.batches import batch_of
from minigpt2.data.loss_weights import LossWeights
from minigpt2.model.gradients import gradients_of
from minigpt2.training import objective as module
from minigpt2.training.objective import Options, WeightedNLL
from tests.data.small import example_of
from tests.model.cases import FIRST, random_parameters


def test_without_options_nothing_is_divided_scaled_or_dropped():
    assert tuple(Options()) == (1.0, 1.0, 0.0, None, False) and Options().recompute is False


def test_what_is_asked_of_a_micro_batch_reaches_the_model(monkeypatch):
    calls, nll = [], np.ones(len(FIRST.targets))

    def noted(parameters, batch, gradients, **options):
        calls.append((batch, gradients, options))
        return nll

    monkeypatch.setattr(module, "nll_and_gradients", noted)
    gradients, rng = gradients_of(random_parameters()), np.random.default_rng(0)
    for recompute in (False, True):
        options = Options(4.0, loss_scale=8.0, drop=0.1, rng=rng, recompute=recompute)
        result = WeightedNLL().add_gradients(random_parameters(), FIRST, gradients, options)
        assert result is nll
        batch, where, named = calls.pop()
        assert where is gradients and named == {"drop": 0.1, "rng": rng, "recompute": recompute}
        np.testing.assert_array_equal(batch.weights, FIRST.weights * 2)


def test_metrics_by_name():
    """Answers of 2 tokens and of 1, in a step with a micro-batch that has no weight."""
    examples = [example_of([1, 2], [3, 4]), example_of([5], [6])]
    prompts_too = LossWeights(0.5)
    batches = [batch_of([example], prompts_too) for example in examples]
    none = batches[0]._replace(weights=np.zeros_like(batches[0].weights))
    nll = [np.where(b.answers >= 0, 4.0, 1.0) for b in batches]
    nll[1][:] = 7.0
    found = WeightedNLL().metrics([*batches, none], [*nll, None])
    assert next(iter(found)) == "loss"
    assert found == {
        "loss": pytest.approx((0.5 * 1 + 4 + 4 + 7) / 3.5),
        "token_loss": 5.0,
        "example_loss": 5.5,
        "answer_tokens": 3,
    }
    assert isnan(WeightedNLL().metrics([none], [None])["loss"])
