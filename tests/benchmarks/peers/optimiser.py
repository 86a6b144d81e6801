"""AdamW of PyTorch with this project's rule: what has two axes decays."""

import torch

from tests.benchmarks.peers.jobs import LEARNING_RATE, WEIGHT_DECAY


def make_optimiser(parameters, fused):
    """AdamW over tensors."""
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=1e-8, fused=fused)
