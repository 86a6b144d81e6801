"""Run: the one loop that logs, validates and saves, for every kind of training."""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import NamedTuple, Protocol

from minigpt2.data.batches import StepBatches
from minigpt2.errors import NothingToLearn, OverBound
from minigpt2.memory import keep_freed_memory
from minigpt2.model.gpt2 import prepare
from minigpt2.training.ahead import begin_next
from minigpt2.training.config import TrainingConfig
from minigpt2.training.micro_batches import Begun, nothing
from minigpt2.training.objective import Objective
from minigpt2.training.state import State
from minigpt2.training.step import StepResult, require_finite, step
from minigpt2.training.world import ONE_PROCESS, World


class Data(Protocol):
    """Micro-batches by their place in the run: EpochBatches, or a stream of text.

    Data that follow from the weights, such as answers that the model samples, have an attribute
    `on_policy` that is True: the batches of a step are made after the step before it has changed
    the weights.
    """

    def at(self, epoch: int, position: int) -> StepBatches:
        """Return the micro-batches of the step at a place, with the place of the next step."""


class Every(NamedTuple):
    """How often a run prints a line, validates and saves, and when it stops early.

    After the last step all three are done.  0 means then only; for `patience`, never.
    """

    log: int = 10  # steps
    validate: int = 0  # steps
    save: int = 0  # steps
    save_minutes: float = 0  # since the run began or saved
    patience: int = 0  # validations without an improvement


class Hooks(NamedTuple):
    """The functions that a run calls between its steps and micro-batches."""

    log: Callable[[StepResult, bool], None]  # with a step or a try, and whether to print it
    save: Callable[[], None]
    validate: Callable[[int], float] | None = None  # with the steps taken; returns the loss
    advance: Callable[[int], None] = lambda steps: None  # of a progress bar
    between: Callable[[], None] = nothing  # after each micro-batch and step; it may save or raise
    settle: Callable[[], None] = nothing  # before the parameters and moments change


class Timer:
    """Whether so many minutes have passed since the start; never if they are 0."""

    def __init__(self, minutes: float, clock: Callable[[], float] = monotonic):
        self.seconds = 60 * minutes
        self.clock = clock
        self.restart()

    def restart(self) -> None:
        """Start again."""
        self.started = self.clock()

    def due(self, times: int = 1) -> bool:
        """Whether the time has passed so many times."""
        return bool(self.seconds) and self.clock() - self.started >= times * self.seconds


def due(number: int, every: int) -> bool:
    """Whether step `number` is one of every `every` steps; never if `every` is 0."""
    return bool(every) and number % every == 0


def stopped_early(state: State, every: Every) -> bool:
    """Whether the last validations of a run had no improvement, as many as its patience."""
    return bool(every.patience and state.best and state.best.since >= every.patience)


def finished(state: State, config: TrainingConfig, every: Every) -> bool:
    """Whether no step of a run is left."""
    return state.step == config.steps or stopped_early(state, every)


def validation_due(state: State, config: TrainingConfig, every: Every) -> bool:
    """Whether the model is to be validated before the next step."""
    last = state.step == config.steps
    return state.validated < state.step and (
        last or state.step == 0 or due(state.step, every.validate)
    )


def take_steps(
    state: State,
    data: Data,
    objective: Objective,
    config: TrainingConfig,
    world: World = ONE_PROCESS,
    *,
    between: Callable[[], None] = nothing,
    settle: Callable[[], None] = nothing,
) -> Iterator[StepResult]:
    """Take the remaining steps, one by one, from the step and the place in the state.

    The batches of a step are made while a device computes the step before it, and sent right behind
    it (training/ahead), unless they are on policy.  A step that overflows in float16 is taken again
    with the same batches; each try yields a result.  `between` and `settle` are those of `step`.
    """
    keep_freed_memory()
    on_policy = getattr(data, "on_policy", False)
    ahead: list[StepBatches] = []  # this step's batches, then the next step's
    begun: Begun | None = None  # of the next step

    def make_next() -> None:
        nonlocal begun
        if on_policy or state.step + 1 == config.steps:
            return
        if len(ahead) == 1:
            ahead.append(data.at(ahead[0].epoch, ahead[0].position))
            prepare(state.compute, ahead[1].batches)
        begun = begin_next(state, ahead[1].batches, objective, config, world)

    hooks: dict[str, Callable[[], None]] = {"between": between, "settle": settle}
    while state.step < config.steps:
        if not ahead:
            ahead.append(data.at(state.epoch, state.position))
        batches = ahead[0].batches
        result = step(
            state, batches, objective, config, world, begun=begun, meanwhile=make_next, **hooks
        )
        if result.updated:
            _, state.epoch, state.position = ahead.pop(0)
        else:
            begun = None
        yield result


def saved_at_the_end(
    results: Iterator[StepResult], save: Callable[[], None]
) -> Iterator[StepResult]:
    """Yield the results of steps; save the run where a bound, or a task learnt, ends it."""
    try:
        yield from results
    except (OverBound, NothingToLearn):
        save()
        raise


def run_steps(
    state: State,
    data: Data,
    objective: Objective,
    config: TrainingConfig,
    *,
    every: Every,
    hooks: Hooks,
    world: World = ONE_PROCESS,
    clock: Callable[[], float] = monotonic,
) -> None:
    """Take the remaining steps; log each one, validate and save as often as `every` says.

    The model is also validated before the first step, and each best one is saved.  Raises
    UserError, saving nothing, if weights are not finite; OverBound and NothingToLearn after a save.
    """
    timer = Timer(every.save_minutes, clock)

    def save() -> None:
        require_finite(state, config)
        hooks.save()
        timer.restart()

    def in_step() -> None:
        hooks.between()
        if timer.due(times=2):  # a step takes long: here it must wait until all is written
            save()

    def validate_and_save() -> None:
        saves = state.step == config.steps or due(state.step, every.save) or timer.due()
        validates = validation_due(state, config, every)
        if hooks.validate and validates:
            require_finite(state, config)
            state.add_validation(hooks.validate(state.step))
            saves = saves or state.improved or stopped_early(state, every)
        if state.step and saves:
            save()

    if hooks.validate and validation_due(state, config, every):
        validate_and_save()
    between = {"between": in_step, "settle": hooks.settle}
    tries = saved_at_the_end(take_steps(state, data, objective, config, world, **between), save)
    while not finished(state, config, every):
        result = next(tries)
        number, last = result.step, result.step == config.steps
        hooks.log(result, not result.updated or last or number == 1 or due(number, every.log))
        if result.updated:
            validate_and_save()
            hooks.advance(1)
        hooks.between()
