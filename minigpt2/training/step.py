"""Step: one change of the parameters, from micro-batches to AdamW.

A step takes a list of micro-batches (gradient accumulation).  Its loss is their sum over one
normaliser; in tuning it is the weighted mean over all triples of all micro-batches,
    ℒ = Σₙ wₙ nllₙ / Σₙ wₙ                                         (20.1)
and not a mean of the micro-batches' means.  With Z for the normaliser of the whole step, b for a
micro-batch and S for the loss scale (17.1), the gradients add up:
    S ∂ℒ/∂θ = Σ_b ∂( S · sum of b / Z )/∂θ                         (20.2)
So the size of the micro-batches, and their distribution over the processes of a world, change only
rounding and dropout's masks.  Z is summed over the world before the micro-batches, the gradients
after them.  A micro-batch without weights is skipped.  A step with Z = 0 is an error.

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
from dataclasses import dataclass, field
from math import isfinite
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module, to_host
from minigpt2.errors import UserError
from minigpt2.model.batch import Batch
from minigpt2.ops.adamw import AdamW, Update, adamw_flat, norm_of
from minigpt2.training.objective import Objective, Options
from minigpt2.training.schedule import learning_rate
from minigpt2.training.state import State
from minigpt2.training.world import ONE_PROCESS, World

MASKS = 2  # the stream of random numbers that dropout's masks are drawn from


def nothing() -> None:
    """Do nothing, where a step would call a function."""


@dataclass(frozen=True)
class TrainingConfig:
    """The number of steps, their learning rates, AdamW's constants, dropout."""

    steps: int
    learning_rate: float  # at its peak
    warmup: int = 0  # steps
    schedule: str = "cosine"
    adamw: AdamW = field(default_factory=AdamW)
    dropout: float = 0.0
    recompute: bool = False

    @property
    def remedy(self) -> str:
        """What helps where numbers grow without end: a decay of whole weights is too much, too."""
        decays = self.learning_rate <= 1 < self.learning_rate * self.adamw.weight_decay
        return "lower weight_decay" if decays else "lower the learning rate"


class NotFinite(UserError):
    """The numbers of a run are no longer finite: the step, and what may help."""

    def __init__(self, text: str, micro_batches: Sequence[int] = ()):
        super().__init__(text)
        self.micro_batches = micro_batches  # of the step, among which the cause may be


class StepResult(NamedTuple):
    """The numbers of one step."""

    step: int
    metrics: dict[str, Any]  # the objective's: `loss` is what the step lowers
    learning_rate: float
    gradient_norm: float  # before clipping
    updated: bool  # False if the gradient overflowed in float16: the step was not taken
    supervised: int  # triples with a weight
    rows: int  # computed
    seconds: float
    loss_scale: float  # S of the next try or step

    @property
    def loss(self) -> float:
        """The loss ℒ of the step."""
        return self.metrics["loss"]


def step(
    state: State,
    batches: Sequence[Batch],
    objective: Objective,
    config: TrainingConfig,
    world: World = ONE_PROCESS,
    *,
    meanwhile: Callable[[], None] = nothing,
    between: Callable[[], None] = nothing,
    settle: Callable[[], None] = nothing,
) -> StepResult:
    """Take one step: change the state's parameters, moments, loss scale and count.

    A step that was interrupted after some of its micro-batches continues behind them.  If the
    gradient overflows in float16, only the loss scale is changed.  `between` is called between two
    micro-batches: it may store the state, or raise.  `settle` is called before the parameters and
    moments change: from the step before until then they can be read by another thread.
    `meanwhile` is called when all of the step's work was sent to a device, and before its numbers
    are waited for.  Raises UserError, and leaves the parameters unchanged, if the normaliser is 0,
    and NotFinite if the loss is not finite, or the gradient and a smaller loss scale cannot help.
    """
    started = perf_counter()
    results = gather_gradients(state, batches, objective, config, world, between=between)
    settle()
    update = update_of(state, config)
    theta, g = state.parameters.trainable, state.gradients.flat
    norm = adamw_flat(theta, g, state.m, state.v, update, copy=state.rounded_copy)
    meanwhile()
    computed = [result for result in results if result is not None]
    *on_host, norms = to_host(*computed, norm)  # from a device, the one copy of a step
    remaining = iter(on_host)
    results = [result if result is None else next(remaining) for result in results]
    metrics = objective.metrics(batches, results)
    finite = bool(np.isfinite(norms[0]))
    continues = state.scale.update(finite)
    if not continues or (finite and computed and not np.isfinite(metrics["loss"])):
        what = f"step {update.step}: the {'loss' if finite else 'gradient'} is not finite"
        raise NotFinite(f"{what}: {remedy(state, config)}", micro_batches_at_fault(results))
    state.step += finite
    return StepResult(
        step=update.step,
        metrics=metrics,
        learning_rate=update.learning_rate,
        gradient_norm=float(norms[0]) / update.loss_scale,
        updated=finite,
        loss_scale=state.scale.value,
        supervised=sum(int(np.count_nonzero(batch.weights)) for batch in batches),
        rows=sum(len(batch.ids) for batch in batches),
        seconds=perf_counter() - started,
    )


def micro_batches_at_fault(results: Sequence[Array | None]) -> list[int]:
    """Return the micro-batches whose results are not finite; all, if the results do not tell."""
    at_fault = [k for k, r in enumerate(results) if r is not None and not np.isfinite(r).all()]
    return at_fault or list(range(len(results)))


def update_of(state: State, config: TrainingConfig) -> Update:
    """Return the numbers of AdamW's next step."""
    number = state.step + 1
    return Update(
        step=number,
        learning_rate=learning_rate(
            number, config.steps, config.learning_rate, config.warmup, config.schedule
        ),
        n_decayed=state.parameters.n_decayed,
        constants=config.adamw,
        loss_scale=state.scale.value,
    )


def gather_gradients(
    state: State,
    batches: Sequence[Batch],
    objective: Objective,
    config: TrainingConfig,
    world: World = ONE_PROCESS,
    *,
    between: Callable[[], None] = nothing,
) -> list[Array | None]:
    """Compute S times the gradients of a step into the state; return the objective's results.

    Continues behind the micro-batches whose results are in `state.partial`; `between` is called
    between two micro-batches.  Raises UserError if the normaliser is 0.
    """
    number = state.step + 1
    normaliser = world.sum(objective.normaliser(batches))  # Z; in tuning that of (20.1)
    if normaliser == 0:
        raise UserError(f"step {number}: none of its tokens is supervised, so it can learn nothing")
    results = state.partial
    if not results:
        state.gradients.clear()
    for k, batch in enumerate(batches[len(results) :], len(results)):
        state.partial = []  # if the micro-batch fails in its middle, the step begins again
        seeds = [state.seed, MASKS, number, k]
        rng = np.random.default_rng(seeds) if config.dropout else None
        options = Options(
            normaliser=normaliser,
            loss_scale=state.scale.value,
            drop=config.dropout,
            rng=rng,
            recompute=config.recompute,
        )
        result = objective.add_gradients(state.compute, batch, state.gradients, options)  # (20.2)
        results.append(result)
        state.partial = results
        if len(results) < len(batches):
            between()
    state.partial = []
    state.gradients.complete()
    world.sum_in_place(state.gradients.flat)
    return results


def remedy(state: State, config: TrainingConfig) -> str:
    """Return what to do about a gradient that is not finite, with the smallest loss scale, too."""
    if state.scale.dynamic:
        return "its numbers are too large for float16, with any loss scale: use bfloat16 or float32"
    if state.step == 0:
        return "the weights that the run begins with are too large"
    return config.remedy


def require_finite(state: State, config: TrainingConfig) -> None:
    """Raise NotFinite if the parameters are no longer finite."""
    flat, xp = state.parameters.flat, array_module(state.parameters)
    if xp is np and isfinite(norm_of(flat)):  # one pass on all cores, which keeps nothing
        return
    if not xp.isfinite(flat).all():
        raise NotFinite(f"step {state.step}: the weights are not finite: {config.remedy}")
