"""This project's training loop as a contender."""

from pathlib import Path

from minigpt2.device.devices import open_device
from minigpt2.ops.adamw import AdamW
from minigpt2.training.step import Plan, train_steps
from minigpt2.weights import load_parameters
from tests.benchmarks.peers.jobs import CLIP, LEARNING_RATE, WEIGHT_DECAY, forest_of

FOR_EVER = 10**9  # steps of a schedule that does not fall


class Ours:
    """The loop of `minigpt2 train`, step by step."""

    def __init__(self, folder, job, how, recompute=False):
        adamw, precision = AdamW(weight_decay=WEIGHT_DECAY, clip=CLIP), how.precision
        kinds = {"recompute": recompute, "precision": precision}
        plan = Plan(FOR_EVER, LEARNING_RATE, 0, "linear", adamw, **kinds)
        windows = ([forest_of(batch)] for batch in job.batches)
        self._library = open_device(how.device)
        parameters = load_parameters(Path(folder)).on(self._library)
        self._steps = train_steps(parameters, windows, plan)

    def step(self):
        """Take the next step; return its loss."""
        return next(self._steps).loss

    def memory(self):
        """The bytes that CuPy has taken from the GPU."""
        return self._library.get_default_memory_pool().total_bytes()
