"""This project's greedy generation as a contender."""

from pathlib import Path

from minigpt2.device.devices import open_device
from minigpt2.device.graph import graph_pool
from minigpt2.inference.generate import generate
from minigpt2.training.precision import rounded
from minigpt2.weights import load_parameters


class Ours:
    """`generate` with the weights in the precision of the job."""

    def __init__(self, folder, job, how):
        self._library = open_device(how.device)
        self._job = job
        parameters = load_parameters(Path(folder)).on(self._library)
        self._parameters = rounded(parameters, how.precision)

    def step(self):
        """Continue all prompts; return the new tokens of each."""
        new = self._job.new
        return generate(self._parameters, self._job.prompts, stop=-1, max_new_tokens=new)

    def memory(self):
        """The bytes that CuPy has taken from the GPU: for arrays, and for those of graphs."""
        pools = self._library.get_default_memory_pool(), graph_pool(self._library)
        return sum(pool.total_bytes() for pool in pools)
