"""Run: the one loop that logs, validates and saves, for every kind of training."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from minigpt2.data.batches import StepBatches
from minigpt2.memory import keep_freed_memory
from minigpt2.model.gpt2 import prepare
from minigpt2.training.objective import Objective
from minigpt2.training.state import State
from minigpt2.training.step import StepResult, TrainingConfig, require_finite, step
from minigpt2.training.world import ONE_PROCESS, World


class Data(Protocol):
    """Micro-batches by their place in the run: EpochBatches, or a stream of text."""

    def at(self, epoch: int, position: int) -> StepBatches:
        """Return the micro-batches of the step at a place, with the place of the next step."""


class Every(NamedTuple):
    """Steps between two printed lines, two validations and two saves.

    After the last step all three are done; 0 means then only.
    """

    log: int = 10
    validate: int = 0
    save: int = 0


class Hooks(NamedTuple):
    """The functions that a run calls between its steps."""

    log: Callable[[StepResult, bool], None]  # with a step or a try, and whether to print it
    save: Callable[[], None]
    validate: Callable[[int], None] | None = None  # with the number of the step before
    advance: Callable[[int], None] = lambda steps: None  # of a progress bar


def due(number: int, every: int) -> bool:
    """Whether step `number` is one of every `every` steps; never if `every` is 0."""
    return bool(every) and number % every == 0


def take_steps(
    state: State,
    data: Data,
    objective: Objective,
    config: TrainingConfig,
    world: World = ONE_PROCESS,
) -> Iterator[StepResult]:
    """Take the remaining steps, one by one, from the step and the place in the state.

    The batches of a step are made while a device computes the step before it.  A step that
    overflows in float16 is taken again; each try yields a result.
    """
    keep_freed_memory()
    ahead: list[StepBatches] = []  # this step's batches, then the next step's

    def make_next() -> None:
        if len(ahead) == 1 and state.step + 1 < config.steps:
            ahead.append(data.at(ahead[0].epoch, ahead[0].position))
            prepare(state.compute, ahead[1].batches)

    while state.step < config.steps:
        if not ahead:
            ahead.append(data.at(state.epoch, state.position))
        result = step(state, ahead[0].batches, objective, config, world, meanwhile=make_next)
        if result.updated:
            _, state.epoch, state.position = ahead.pop(0)
        yield result


def run_steps(
    state: State,
    data: Data,
    objective: Objective,
    config: TrainingConfig,
    *,
    every: Every,
    hooks: Hooks,
    world: World = ONE_PROCESS,
) -> None:
    """Take all steps; log each one, validate and save as often as `every` says.

    The model is also validated before the first step.  Raises UserError, and saves nothing, if
    the weights are not finite.
    """
    if hooks.validate and state.step == 0:
        hooks.validate(0)
    for result in take_steps(state, data, objective, config, world):
        if not result.updated:
            hooks.log(result, True)
            continue
        number, last = result.step, result.step == config.steps
        hooks.log(result, last or number == 1 or due(number, every.log))
        saves = last or due(number, every.save)
        if saves:
            require_finite(state.parameters, number, config)
        if hooks.validate and (last or due(number, every.validate)):
            hooks.validate(number)
        if saves:
            hooks.save()
        hooks.advance(1)
