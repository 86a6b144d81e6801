"""Steps on micro-batches that a test made by itself."""

from minigpt2.data.batches import StepBatches
from minigpt2.training import step as step_module
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.state import new_state


class Windows:
    """Data whose steps are lists of micro-batches, each used once."""

    def __init__(self, windows):
        self.windows = iter(windows)
        self.over = False

    def at(self, epoch, position):
        """Return the next list; an empty one behind the last."""
        batches = next(self.windows, None)
        self.over = batches is None
        return StepBatches(batches or [], epoch, position + 1)


def take(parameters, batches, config, *, precision="float32", seed=0, objective=None):
    """Take the steps of a run on each list of micro-batches in turn; yields what each one did."""
    state, data = new_state(parameters, precision, seed), Windows(batches)
    for result in take_steps(state, data, objective or WeightedNLL(), config):
        yield result
        if result.updated and data.over:
            return


def note_waits(monkeypatch, events):
    """Add "waited" to a list whenever a step has waited for its numbers."""
    send_to_host = step_module.send_to_host

    def noted(*arrays):
        wait = send_to_host(*arrays)

        def noted_wait():
            events.append("waited")
            return wait()

        return noted_wait

    monkeypatch.setattr(step_module, "send_to_host", noted)
