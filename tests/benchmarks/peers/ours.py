"""This project's training loop as a contender."""

from pathlib import Path

from minigpt2.device import side_stream
from minigpt2.device.devices import open_device
from minigpt2.device.graph import graph_pool
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from minigpt2.weights import load_parameters
from tests.benchmarks.peers.jobs import CLIP, LEARNING_RATE, WEIGHT_DECAY, forest_of
from tests.stepping import take

FOR_EVER = 10**9  # steps of a schedule that does not fall


class Ours:
    """The loop of `minigpt2 train`, step by step."""

    def __init__(self, folder, job, how, recompute=False, streams=2):
        side_stream.AHEAD = side_stream.AHEAD if streams > 1 else 0
        adamw = AdamW(weight_decay=WEIGHT_DECAY, clip=CLIP)
        config = TrainingConfig(
            FOR_EVER, LEARNING_RATE, 0, "linear", adamw=adamw, recompute=recompute
        )
        batches = [[forest_of(batch)] for batch in job.batches]
        self._library = open_device(how.device)
        parameters = load_parameters(Path(folder)).on(self._library)
        self._steps = take(parameters, batches, config, precision=how.precision)

    def step(self):
        """Take the next step; return its loss."""
        return next(self._steps).loss

    def memory(self):
        """The bytes that CuPy has taken from the GPU: for arrays, and for those of graphs."""
        pools = self._library.get_default_memory_pool(), graph_pool(self._library)
        return sum(pool.total_bytes() for pool in pools)
