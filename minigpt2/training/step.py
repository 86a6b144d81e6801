"""Step: one optimiser step after the other.

A step takes a window of micro-batches (gradient accumulation).  The loss of the
window is one weighted sum,
    ℒ = Σₙ wₙ nllₙ / Σₙ wₙ                                         (20.1)
over all triples of all its micro-batches, so how the window is cut changes nothing
but rounding and dropout's masks: each micro-batch is given the weights wₙ / Σw of
the whole window, and their losses and gradients add up.  A micro-batch without a
weighted triple adds nothing; a window without one is an error, for (20.1) divides
by 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, array_module, to_host
from minigpt2.errors import UserError
from minigpt2.memory import keep_freed_memory
from minigpt2.model.batch import Batch
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import Gradients, gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW
from minigpt2.training.losses import Losses
from minigpt2.training.precision import Precision, Scale, rounded
from minigpt2.training.schedule import learning_rate
from minigpt2.training.state import Moments, adamw_step


@dataclass(frozen=True)
class Plan:
    """How many steps to take, and how."""

    steps: int
    learning_rate: float
    warmup: int
    schedule: str
    adamw: AdamW = field(default_factory=AdamW)
    dropout: float = 0.0
    recompute: bool = False
    precision: Precision = "float32"


class Step(NamedTuple):
    """What one step did; `supervised` counts triples, `rows` the rows that were computed."""

    step: int
    loss: float  # what the step lowers, (20.1)
    token_loss: float
    example_loss: float
    answer_tokens: int
    learning_rate: float
    gradient_norm: float
    supervised: int
    rows: int
    seconds: float


def window_gradients(
    parameters: Parameters,
    window: list[Batch],
    gradients: Gradients,
    drop: float = 0.0,
    seeds: tuple[int, ...] = (0, 2, 1),
    recompute: bool = False,
    scale: float = 1.0,
) -> list[Array]:
    """Put the gradients of a window's loss into `gradients`; return each weighted batch's nll (M,).

    The gradients are `scale` times those of the loss.  `seeds` and the micro-batch's number fix
    its dropout masks.
    What `gradients` held is gone: the first micro-batch writes over it, the others add.
    """
    total = sum(batch.weights.sum() for batch in window)
    if total == 0:
        raise UserError("no token of this step's examples is supervised: nothing can be learnt")
    gradients.clear()
    nlls: list[Array] = []
    for number, batch in enumerate(window):
        if not batch.weights.any():
            continue
        shares = batch._replace(weights=scale * batch.weights / total)  # (20.1) (17.1)
        rng = np.random.default_rng([*seeds, number]) if drop else None
        nll = loss_and_gradients(
            parameters, shares, gradients, drop=drop, rng=rng, recompute=recompute
        )[1]
        nlls.append(nll)
    gradients.complete()
    return nlls


def weighted(window: list[Batch]) -> list[Batch]:
    """Return the micro-batches of a window that have a weighted triple."""
    return [batch for batch in window if batch.weights.any()]


def window_losses(window: list[Batch], nlls: list[np.ndarray]) -> tuple[float, Losses]:
    """Return a window's loss and its answers' losses, from the nll of its weighted batches."""
    loss = total = 0.0
    losses = Losses()
    for batch, nll in zip(weighted(window), nlls, strict=True):
        loss += float(batch.weights @ nll)  # (20.1)
        total += float(batch.weights.sum())  # (20.1)
        losses.add(batch, nll)
    return loss / total, losses


def require_finite(parameters: Parameters, step: Step) -> None:
    """Raise UserError if the parameters are no longer numbers after a step."""
    if not array_module(parameters.flat).isfinite(parameters.flat).all():
        raise UserError(f"step {step.step}: the weights are not finite: lower the learning rate")


def train_steps(
    parameters: Parameters, windows: Iterator[list[Batch]], plan: Plan, seed: int = 0
) -> Iterator[Step]:
    """Change the parameters step by step, yielding what each step did.

    Raises UserError when a gradient is not finite; the parameters are then those of the step
    before.
    """
    keep_freed_memory()
    gradients, moments = gradients_of(parameters), Moments(parameters)
    working, scale = rounded(parameters, plan.precision), Scale(plan.precision)
    copy = None if working is parameters else working.flat
    for step in range(1, plan.steps + 1):
        started = perf_counter()
        window = next(windows)
        how = plan.dropout, (seed, 2, step), plan.recompute
        nlls = window_gradients(working, window, gradients, *how, scale.value)
        eta = learning_rate(step, plan.steps, plan.learning_rate, plan.warmup, plan.schedule)
        try:
            arguments = parameters, gradients, moments, eta, plan.adamw, copy
            norm = adamw_step(*arguments, 1 / scale.value)
        except FloatingPointError as error:
            raise UserError(f"step {step}: {error}") from None
        *nlls, norms = to_host(*nlls, norm)  # from a device, the one copy of a step
        found, finite = float(norms[0]) / scale.value, bool(np.isfinite(norms[0]))
        moments.step -= not finite
        if not scale.after(finite):
            raise UserError(f"step {step}: the gradient is not finite: lower the learning rate")
        loss, losses = window_losses(window, nlls)
        supervised = sum(int(np.count_nonzero(batch.weights)) for batch in window)
        rows = sum(len(batch.ids) for batch in window)
        each = losses.token_level, losses.example_level, losses.tokens
        seconds = perf_counter() - started
        yield Step(step, loss, *each, eta, found, supervised, rows, seconds)
