"""The matrix products of a step and nothing else: the roof of what a library can reach at a job."""

import numpy as np

from minigpt2.device.devices import open_device
from minigpt2.device.graph import capture
from minigpt2.training.precision import compute_dtype
from tests.benchmarks.peers.jobs import forest_of
from tests.benchmarks.work import Matrices, matrix_products

ALIGNED = 64  # logits of a row are a multiple of that on a device


class Bare:
    """The products that our step makes, on as many rows, over and over in the same memory."""

    def __init__(self, folder, job, how):
        self._library = open_device(how.device)
        self._graphs = {}
        on_device = self._library is not np
        columns = -(-job.config.vocab_size // ALIGNED) * ALIGNED if on_device else None
        steps = [matrix_products(job.config, forest_of(b), columns) for b in job.batches]
        self._steps = iter(steps)
        products = set().union(*steps)
        self._matrices = Matrices(products, np.random.default_rng(0))
        if on_device:
            self._matrices.move(self._library, compute_dtype(how.precision), products)
            for step in steps:
                self._graph_of(step)

    def step(self):
        """Make the products of the next step; there is no loss."""
        step = next(self._steps)
        if self._library is np:
            self._multiply(step)
            return
        self._graph_of(step).launch(self._library.cuda.get_current_stream())
        self._library.cuda.Device().synchronize()

    def _multiply(self, products):
        """Make each of the products as often as the step has it."""
        for product, times in products.items():
            for _ in range(times):
                self._matrices.multiply(product)

    def _graph_of(self, products):
        """The products as a graph: a host that launches them one by one would be the roof."""
        key = tuple(products.items())
        if key not in self._graphs:
            self._multiply(products)
            self._graphs[key], _ = capture(self._library, lambda: self._multiply(products))
        return self._graphs[key]

    def memory(self):
        """The bytes that CuPy has taken from the GPU."""
        return self._library.get_default_memory_pool().total_bytes()
