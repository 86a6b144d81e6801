"""Run: when the batches of a step are made."""

import numpy as np

from minigpt2.data.batches import EpochBatches, StepBatches
from minigpt2.training import step as step_module
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.state import new_state
from minigpt2.training.step import TrainingConfig
from tests.data.small import example_of
from tests.model.cases import V, random_parameters

RNG = np.random.default_rng(0)
EXAMPLES = [example_of(RNG.integers(V, size=2), RNG.integers(V, size=3)) for _ in range(5)]


class Noted:
    """Batches that note when each step's are made."""

    def __init__(self, events):
        self.batches = EpochBatches(EXAMPLES, batch_size=2, micro_batch=1)
        self.events = events

    def at(self, epoch: int, position: int) -> StepBatches:
        self.events.append(f"made {epoch}.{position}")
        return self.batches.at(epoch, position)


def events_of(monkeypatch, steps, taken):
    """What happens in which order in a run, of which so many steps are asked for."""
    events, to_host = [], step_module.to_host

    def noted(*arrays):
        events.append("waited")
        return to_host(*arrays)

    monkeypatch.setattr(step_module, "to_host", noted)
    state = new_state(random_parameters())
    config = TrainingConfig(steps, 1e-3)
    run = take_steps(state, Noted(events), WeightedNLL(), config)
    for _ in range(taken):
        next(run)
    return events, state


def test_the_next_batches_are_made_before_a_step_is_waited_for(monkeypatch):
    events, state = events_of(monkeypatch, steps=4, taken=4)
    assert events == [
        *("made 0.0", "made 0.2", "waited", "made 0.4", "waited", "made 1.0", "waited"),
        "waited",  # nothing follows the last step
    ]
    assert (state.epoch, state.position) == (1, 2)


def test_the_state_is_that_of_the_steps_taken_not_of_the_batches_made(monkeypatch):
    events, state = events_of(monkeypatch, steps=9, taken=2)
    assert events[-2:] == ["made 0.4", "waited"]
    assert (state.step, state.epoch, state.position) == (2, 0, 4)
