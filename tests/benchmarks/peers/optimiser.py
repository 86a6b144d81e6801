"""What PyTorch's contenders have in common: AdamW with this project's rule, precision, memory."""

import torch

from tests.benchmarks.peers.jobs import CLIP, LEARNING_RATE, WEIGHT_DECAY


def make_optimiser(parameters, fused):
    """AdamW over tensors."""
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=1e-8, fused=fused)


class Learner:
    """Steps of AdamW with clipping, in mixed precision as PyTorch has it."""

    def __init__(self, parameters, how, fused):
        torch.set_num_threads(how.threads)
        self.device = "cuda" if how.on_gpu else "cpu"
        self._parameters = list(parameters)
        self._optimiser = make_optimiser(self._parameters, fused)
        self._scaler = torch.amp.GradScaler(self.device, enabled=how.precision == "float16")
        self._type, self._short = getattr(torch, how.precision), how.precision != "float32"

    def learn(self, loss_of):
        """Take a step down a loss; return it."""
        self._optimiser.zero_grad()
        with torch.autocast(self.device, self._type, enabled=self._short):
            loss = loss_of()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimiser)
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss.item()  # on a GPU this waits for all of the step

    def memory(self):
        """The bytes that PyTorch has taken from the GPU."""
        return torch.cuda.max_memory_reserved()
