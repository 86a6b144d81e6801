"""Objective: the loss of a step, micro-batch by micro-batch.

The loss of a step is a sum over its micro-batches, divided by one number for the whole step, the
normaliser.  An objective computes the normaliser, and the gradients of a micro-batch.  In tuning
the loss is a weighted mean of nll, (21.1), so the normaliser is Σw.  If the weights are
advantages, which may sum to 0, the normaliser is a count instead.
"""

from collections.abc import Sequence
from math import nan
from typing import Any, NamedTuple, Protocol

import numpy as np

from minigpt2.backend import Array
from minigpt2.model.batch import Batch
from minigpt2.model.gpt2 import nll_and_gradients
from minigpt2.model.gradients import Gradients
from minigpt2.model.parameters import Parameters
from minigpt2.training.losses import Losses


class Options(NamedTuple):
    """The options of a micro-batch's forward and backward pass."""

    normaliser: float = 1.0  # of the whole step
    loss_scale: float = 1.0  # S
    drop: float = 0.0  # the rate of dropout
    rng: np.random.Generator | None = None  # of dropout's masks
    recompute: bool = False


class Objective(Protocol):
    """The methods that `step` needs from every kind of training."""

    def normaliser(self, batches: Sequence[Batch]) -> float:
        """Return the part of the step's normaliser that these micro-batches contribute."""

    def add_gradients(
        self,
        parameters: Parameters,
        batch: Batch,
        gradients: Gradients,
        options: Options,
    ) -> Array | None:
        """Add S / normaliser times the gradients of a micro-batch's sum to `gradients`.

        Returns an array for `metrics`, on the device, or None if the micro-batch adds nothing.
        """

    def metrics(self, batches: Sequence[Batch], results: Sequence[Array | None]) -> dict[str, Any]:
        """Return the step's numbers by name, `loss` first; `results` are from add_gradients."""


class WeightedNLL:
    """The weighted mean of nll (21.1): instruction tuning and pretraining."""

    def normaliser(self, batches: Sequence[Batch]) -> float:
        """Return Σw of these micro-batches."""
        return sum(batch.weights.sum() for batch in batches)  # (21.1)

    def add_gradients(
        self,
        parameters: Parameters,
        batch: Batch,
        gradients: Gradients,
        options: Options,
    ) -> Array | None:
        """Add the gradients of S Σ w nll / normaliser; return the nll (M,), None if all w are 0."""
        if not batch.weights.any():
            return None
        weights = options.loss_scale * batch.weights / options.normaliser  # (21.1) (21.2)
        return nll_and_gradients(
            parameters,
            batch._replace(weights=weights),
            gradients,
            drop=options.drop,
            rng=options.rng,
            recompute=options.recompute,
        )

    def metrics(self, batches: Sequence[Batch], results: Sequence[Array | None]) -> dict[str, Any]:
        """Return the loss (21.1), and the losses of the answers (20.1) and (20.2)."""
        loss = total = 0.0
        losses = Losses()
        for batch, nll in zip(batches, results, strict=True):
            if nll is not None:
                loss += float(batch.weights @ nll)  # (21.1)
                total += float(batch.weights.sum())  # (21.1)
                losses.add(batch, nll)
        return {
            "loss": loss / total if total else nan,
            "token_loss": losses.token_level,
            "example_loss": losses.example_level,
            "answer_tokens": losses.tokens,
        }
