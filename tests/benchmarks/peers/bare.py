"""The matrix products of a step and nothing else: the roof of what NumPy can reach at a job."""

import numpy as np

from minigpt2.data.batches import batch_of
from minigpt2.memory import keep_freed_memory
from minigpt2.ops.cross_entropy import CHUNK_BYTES
from tests.benchmarks.peers.ours import example_of


class Bare:
    """The products that our step makes, on as many rows, over and over on the same arrays."""

    def __init__(self, folder, job, threads):
        keep_freed_memory()
        self._config = job.config
        self._batches = (batch_of([example_of(*pair) for pair in batch]) for batch in job.batches)

    def step(self):
        """Make the products of the next step; there is no loss."""
        batch, c = next(self._batches), self._config.n_embd
        for inputs, outputs in ((c, 3 * c), (c, c), (c, 4 * c), (4 * c, c)):
            there_and_back(len(batch.ids), inputs, outputs, self._config.n_layer)
        triples, v = int(np.count_nonzero(batch.weights)), self._config.vocab_size
        chunk = max(1, CHUNK_BYTES // (4 * v))
        for start in range(0, triples, chunk):
            there_and_back(min(chunk, triples - start), c, v, 1)


def there_and_back(rows, inputs, outputs, times):
    """y = x W, dx = dy Wᵀ and dW = xᵀ dy, a number of times."""
    x, w = (np.ones(shape, np.float32) for shape in ((rows, inputs), (inputs, outputs)))
    y, dx, dw = (np.empty(s, np.float32) for s in ((rows, outputs), x.shape, w.shape))
    for _ in range(times):
        np.matmul(x, w, out=y)
        np.matmul(y, w.T, out=dx)
        np.matmul(x.T, y, out=dw)
