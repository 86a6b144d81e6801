"""State: all that a step changes, in one object.

Everything else that a step needs follows from it: the order of an epoch from the seed and the
epoch, dropout's masks from the seed, the step and the micro-batch, the rounded copy of 16-bit
training from the parameters.  So a run can continue from its state alone, also in the middle of a
step of several micro-batches.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module, flat_zeros
from minigpt2.model.gradients import Gradients, gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.training.precision import LossScale, Precision, rounded


class Best(NamedTuple):
    """The best validation of a run so far."""

    loss: float
    step: int
    since: int = 0  # validations after it, none of which was better


@dataclass
class State:
    """The parameters with AdamW's moments, the loss scale, and the place in the run.

    `compute` has the parameters of the forward and backward pass: the same array, or a rounded
    copy.  It follows from the rest.  `gradients` is the memory for one step's gradients.  Between
    two micro-batches of a step it holds their sum so far, and `partial` has one result for each of
    those that are finished: an array of the objective, or None.  Between two steps `partial` is
    empty, and what `gradients` holds does not matter.  To take a step from its beginning again,
    empty `partial`.
    """

    parameters: Parameters
    m: Array  # (P,) of the trained parameters
    v: Array  # (P,)
    scale: LossScale
    seed: int
    precision: Precision
    step: int = 0  # steps taken: s of (10.5)
    epoch: int = 0
    position: int = 0  # in the epoch, at which the next step begins
    partial: list[Array | None] = field(default_factory=list)
    validated: int = -1  # the last step after which the model was validated
    best: Best | None = None
    compute: Parameters = field(init=False)
    gradients: Gradients = field(init=False)

    def __post_init__(self) -> None:
        self.compute = rounded(self.parameters, self.precision)
        self.gradients = gradients_of(self.parameters)

    @property
    def rounded_copy(self) -> Array | None:
        """The rounded flat array that AdamW writes with the parameters; None in float32."""
        return None if self.compute is self.parameters else self.compute.trainable

    def round_again(self) -> None:
        """Round the parameters again, which were changed by something else than AdamW."""
        if self.compute is not self.parameters:
            self.compute.flat[...] = self.parameters.flat.astype(self.compute.flat.dtype)

    @property
    def improved(self) -> bool:
        """Whether the last validation is the best so far."""
        return self.best is not None and self.best.step == self.validated

    def add_validation(self, loss: float) -> None:
        """Note the validation loss after the last step; one that is not finite is never best."""
        self.validated = self.step
        if isfinite(loss) and (self.best is None or loss < self.best.loss):
            self.best = Best(loss, self.step)
        elif self.best:
            self.best = self.best._replace(since=self.best.since + 1)


def new_moments(theta: Array) -> tuple[Array, Array]:
    """Return m and v of trained parameters (P,), all 0.

    On a CPU one follows the other in memory, as in a checkpoint, so that a disk can fetch both.
    """
    xp, size = array_module(theta), theta.size
    if xp is not np:
        return xp.zeros_like(theta), xp.zeros_like(theta)
    moments = flat_zeros(2 * size, theta.dtype)
    return moments[:size], moments[size:]


def new_state(parameters: Parameters, precision: Precision = "float32", seed: int = 0) -> State:
    """Return the state of a run that begins with these parameters."""
    m, v = new_moments(parameters.trainable)
    return State(
        parameters,
        m=m,
        v=v,
        scale=LossScale.of(precision),
        seed=seed,
        precision=precision,
    )
