"""This project's training loop as a contender."""

from pathlib import Path

from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.training.adamw import AdamW
from minigpt2.training.loop import Plan, train_steps
from minigpt2.weights import load_parameters
from tests.benchmarks.peers.jobs import CLIP, LEARNING_RATE, WEIGHT_DECAY

FOR_EVER = 10**9  # steps of a schedule that does not fall


class Ours:
    """The loop of `minigpt2 train`, step by step."""

    def __init__(self, folder, job, threads, recompute=False):
        adamw = AdamW(weight_decay=WEIGHT_DECAY, clip=CLIP)
        plan = Plan(FOR_EVER, LEARNING_RATE, 0, "linear", adamw, recompute=recompute)
        windows = ([batch_of([example_of(*pair) for pair in batch])] for batch in job.batches)
        self._steps = train_steps(load_parameters(Path(folder)), windows, plan, None)

    def step(self):
        """Take the next step; return its loss."""
        return next(self._steps).loss


def example_of(ids, prompt):
    """A sequence as an example whose answer is all that comes after the prompt."""
    return Example(list(ids), [n >= prompt for n in range(len(ids))])
