"""The matrix products of a step and nothing else: the roof of what NumPy can reach at a job."""

import numpy as np

from minigpt2.data.batches import batch_of
from tests.benchmarks.peers.ours import example_of
from tests.benchmarks.work import Matrices, matrix_products


class Bare:
    """The products that our step makes, on as many rows, over and over in the same memory."""

    def __init__(self, folder, job, threads):
        batches = (batch_of([example_of(*pair) for pair in batch]) for batch in job.batches)
        steps = [matrix_products(job.config, batch) for batch in batches]
        self._steps = iter(steps)
        self._matrices = Matrices(set().union(*steps), np.random.default_rng(0))

    def step(self):
        """Make the products of the next step; there is no loss."""
        for product, times in next(self._steps).items():
            for _ in range(times):
                self._matrices.multiply(product)
