"""Steps on micro-batches that a test made by itself."""

from itertools import islice

from minigpt2.memory import keep_freed_memory
from minigpt2.model.gpt2 import prepare
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.state import new_state
from minigpt2.training.step import step


def take(parameters, batches, config, *, precision="float32", seed=0, objective=None):
    """Take the steps of a run on each list of micro-batches in turn; yields what each one did."""
    keep_freed_memory()
    objective = objective or WeightedNLL()
    state = new_state(parameters, precision, seed)
    remaining, ahead = iter(batches), []

    def make_next():
        if state.step + 1 < config.steps:
            ahead.extend(islice(remaining, 1))
            for part in ahead:
                prepare(state.compute, part)

    ahead.extend(islice(remaining, 1))
    while ahead:
        yield step(state, ahead.pop(), objective, config, meanwhile=make_next)
