"""Micro-batches: the gradients of a step, gathered one micro-batch after the other.

A step takes a list of micro-batches (gradient accumulation).  Its loss is their sum over one
normaliser; in tuning it is the weighted mean over all triples of all micro-batches,
    ℒ = Σₙ wₙ nllₙ / Σₙ wₙ                                         (21.1)
and not a mean of the micro-batches' means.  With Z for the normaliser of the whole step, b for a
micro-batch and S for the loss scale (18.1), the gradients add up:
    S ∂ℒ/∂θ = Σ_b ∂( S · sum of b / Z )/∂θ                         (21.2)
So the size of the micro-batches, and their distribution over the processes of a world, change only
rounding and dropout's masks.  Z is summed over the world before the micro-batches, the gradients
after them.  A micro-batch without weights is skipped.  A step with Z = 0 is an error.

A step that was interrupted between two micro-batches continues there.  The first one may have been
sent to a device before the step began (training/ahead).

Example: two micro-batches with nll (1, 3) and (8), all weights 1
    Z = 3, and ℒ = (1 + 3 + 8) / 3 = 4; the mean of the two means 2 and 8 would be 5.
    >>> from minigpt2.training.objective import WeightedNLL
    >>> nll = [np.array([1.0, 3.0]), np.array([8.0])]
    >>> weights = [np.ones_like(values) for values in nll]
    >>> empty = np.empty(0, np.int64)
    >>> batches = [Batch(*[empty] * 5, weights=w, answers=np.zeros(len(w), int)) for w in weights]
    >>> float(WeightedNLL().normaliser(batches)), WeightedNLL().metrics(batches, nll)["loss"]
    (3.0, 4.0)
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.errors import UserError
from minigpt2.model.batch import Batch
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import Objective, Options
from minigpt2.training.state import State
from minigpt2.training.world import ONE_PROCESS, World

MASKS = 2  # the stream of random numbers that dropout's masks are drawn from


def nothing() -> None:
    """Do nothing, where a step would call a function."""


class Begun(NamedTuple):
    """A step whose first micro-batch a device is already computing."""

    normaliser: float  # of the whole step
    result: Array | None  # of the objective


def gather_gradients(
    state: State,
    batches: Sequence[Batch],
    objective: Objective,
    config: TrainingConfig,
    world: World = ONE_PROCESS,
    *,
    begun: Begun | None = None,
    between: Callable[[], None] = nothing,
) -> list[Array | None]:
    """Compute S times the gradients of a step into the state; return the objective's results.

    Continues behind the micro-batches whose results are in `state.partial`, or behind the first one
    if that has begun; `between` is called between two micro-batches.  Raises UserError if the
    normaliser is 0.
    """
    number, scale = state.step + 1, state.scale.value
    z = begun.normaliser if begun else world.sum(objective.normaliser(batches))  # in tuning (21.1)
    if z == 0:
        raise UserError(f"step {number}: none of its tokens is supervised, so it can learn nothing")
    results = state.partial
    if not results and not begun:
        state.gradients.clear()
    for k, batch in enumerate(batches[len(results) :], len(results)):
        state.partial = []  # if the micro-batch fails in its middle, the step begins again
        if k == 0 and begun:
            result = begun.result
        else:
            options = options_of(state, config, number, k, normaliser=z, loss_scale=scale)
            result = objective.add_gradients(
                state.compute, batch, state.gradients, options
            )  # (21.2)
        results.append(result)
        state.partial = results
        if len(results) < len(batches):
            between()
    state.partial = []
    state.gradients.complete()
    world.sum_in_place(state.gradients.flat)
    return results


def options_of(
    state: State,
    config: TrainingConfig,
    number: int,
    k: int,
    *,
    normaliser: float,
    loss_scale: float,
) -> Options:
    """Return the options of micro-batch k, counted from 0, of the step of a number."""
    seeds = [state.seed, MASKS, number, k]
    return Options(
        normaliser=normaliser,
        loss_scale=loss_scale,
        drop=config.dropout,
        rng=np.random.default_rng(seeds) if config.dropout else None,
        recompute=config.recompute,
    )
