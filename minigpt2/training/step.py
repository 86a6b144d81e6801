"""Step: one change of the parameters, from micro-batches to AdamW.

The gradients come from its micro-batches (training/micro_batches).  On a device a step is a queue
of launches, and the host waits once, for the numbers: loss and norm.
"""

from collections.abc import Callable, Sequence
from math import isfinite
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module, send_to_host
from minigpt2.errors import UserError
from minigpt2.model.batch import Batch
from minigpt2.ops.adamw import Update, adamw_flat, norm_of
from minigpt2.training.config import TrainingConfig
from minigpt2.training.micro_batches import Begun, gather_gradients, nothing
from minigpt2.training.objective import Objective
from minigpt2.training.schedule import learning_rate
from minigpt2.training.state import State
from minigpt2.training.world import ONE_PROCESS, World


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
    begun: Begun | None = None,
    meanwhile: Callable[[], None] = nothing,
    between: Callable[[], None] = nothing,
    settle: Callable[[], None] = nothing,
) -> StepResult:
    """Take one step: change the state's parameters, moments, loss scale and count.

    A step that was interrupted continues behind its finished micro-batches, and one that has begun
    ahead (training/ahead) behind its first one.  If the gradient overflows in float16, only the
    loss scale is changed.  `between` is called between two micro-batches: it may store the state,
    or raise.  `settle` is called before the parameters and moments change: from the step before
    until then they can be read by another thread.  `meanwhile` is called when all of the step's
    work was sent to a device, before its numbers are waited for: it may send more.  Raises
    UserError, and leaves the parameters unchanged, if the normaliser is 0, and NotFinite if the
    loss is not finite, or the gradient and a smaller loss scale cannot help.
    """
    started = perf_counter()
    what = state, batches, objective, config, world
    results = gather_gradients(*what, begun=begun, between=between)
    settle()
    update, norm = change_parameters(state, config)
    numbers = send_to_host(*results, norm)  # from a device, the one copy of a step
    meanwhile()
    *results, norms = numbers()
    metrics = objective.metrics(batches, results)
    finite = bool(np.isfinite(norms[0]))
    if not state.scale.update(finite):
        raise not_finite(state, config, "gradient", results)
    if finite and any(r is not None for r in results) and not np.isfinite(metrics["loss"]):
        raise not_finite(state, config, "loss", results)
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


def not_finite(
    state: State, config: TrainingConfig, what: str, results: Sequence[Array | None]
) -> NotFinite:
    """Return the error of a step whose loss or gradient is not finite."""
    text = f"step {state.step + 1}: the {what} is not finite: {remedy(state, config)}"
    return NotFinite(text, micro_batches_at_fault(results))


def micro_batches_at_fault(results: Sequence[Array | None]) -> list[int]:
    """Return the micro-batches whose results are not finite; all, if the results do not tell."""
    at_fault = [k for k, r in enumerate(results) if r is not None and not np.isfinite(r).all()]
    return at_fault or list(range(len(results)))


def change_parameters(state: State, config: TrainingConfig) -> tuple[Update, Array]:
    """Change parameters and moments; return the step's numbers, and S times the gradient's norm."""
    update = update_of(state, config)
    theta, g = state.parameters.trainable, state.gradients.flat
    return update, adamw_flat(theta, g, state.m, state.v, update, copy=state.rounded_copy)


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


def remedy(state: State, config: TrainingConfig) -> str:
    """Return what to do about a gradient that is not finite, with the smallest loss scale, too."""
    if state.scale.dynamic:
        return "its numbers are too large for float16, with any loss scale: use bfloat16 or float32"
    if state.step == 0:
        return "the weights that the run begins with, or numbers of its settings, are too large"
    return config.remedy


def require_finite(state: State, config: TrainingConfig) -> None:
    """Raise NotFinite if the parameters are no longer finite."""
    flat, xp = state.parameters.flat, array_module(state.parameters)
    if xp is np and isfinite(norm_of(flat)):  # one pass on all cores, which keeps nothing
        return
    if not xp.isfinite(flat).all():
        raise NotFinite(f"step {state.step}: the weights are not finite: {config.remedy}")
