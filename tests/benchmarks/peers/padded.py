"""PyTorch with transformers as most scripts use it: padded batches, prompts masked by -100."""

import torch

from tests.benchmarks.peers.optimiser import Learner
from tests.parity.reference import open_reference

PAD = 0  # hidden by the attention mask


class Padded(Learner):
    """GPT2LMHeadModel with its own loss."""

    def __init__(self, folder, job, how):
        self._model = open_reference(folder).to("cuda" if how.on_gpu else "cpu")
        super().__init__(self._model.parameters(), how, fused=how.on_gpu, job=job)
        batches = (map(self.on_device, padded(batch)) for batch in job.batches)
        self._batches = iter([tuple(batch) for batch in batches])

    def step(self):
        """Take the next step; return its loss."""
        ids, mask, labels = map(self.fetch, next(self._batches))
        return self.learn(lambda: self._model(ids, attention_mask=mask, labels=labels).loss)


def padded(batch):
    """Token ids, attention mask and labels (B, T), padded on the right."""
    shape = len(batch), max(len(ids) for ids, _ in batch)
    tokens, mask = torch.full(shape, PAD), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for row, (ids, prompt) in enumerate(batch):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
        labels[row, prompt : len(ids)] = tokens[row, prompt : len(ids)]
    return tokens, mask, labels
