"""Steps on micro-batches that a test made by itself."""

from minigpt2.memory import keep_freed_memory
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.state import new_state
from minigpt2.training.step import step


def take(parameters, batches, config, *, precision="float32", seed=0):
    """Take the steps of a run on each list of micro-batches in turn; yields what each one did."""
    keep_freed_memory()
    state = new_state(parameters, precision, seed)
    for part in batches:
        yield step(state, part, WeightedNLL(), config)
        if state.step == config.steps:
            return
