"""PyTorch with transformers as most scripts use it: padded batches, prompts masked by -100."""

import torch

from tests.benchmarks.peers.jobs import CLIP
from tests.benchmarks.peers.optimiser import make_optimiser
from tests.parity.reference import open_reference

PAD = 0  # hidden by the attention mask


class Padded:
    """GPT2LMHeadModel with its own loss."""

    def __init__(self, folder, job, threads):
        torch.set_num_threads(threads)
        self._model = open_reference(folder)
        self._parameters = list(self._model.parameters())
        self._optimiser = make_optimiser(self._parameters, fused=False)
        self._batches = iter(job.batches)

    def step(self):
        """Take the next step; return its loss."""
        ids, mask, labels = padded(next(self._batches))
        self._optimiser.zero_grad()
        loss = self._model(ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._optimiser.step()
        return loss.item()


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
