"""What PyTorch's contenders have in common: AdamW with this project's rule, precision, memory."""

from contextlib import nullcontext
from time import perf_counter

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from tests.benchmarks.peers.jobs import CLIP, LEARNING_RATE, WEIGHT_DECAY

FAST = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
OTHERS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def make_optimiser(parameters, fused):
    """AdamW over tensors."""
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=1e-8, fused=fused)


class Learner:
    """Steps of AdamW with clipping, in mixed precision as PyTorch has it; never with TF32."""

    def __init__(self, parameters, how, fused, job):
        torch.set_num_threads(how.threads)
        torch.set_float32_matmul_precision("highest")
        self.device = "cuda" if how.on_gpu else "cpu"
        self._parameters = list(parameters)
        self._optimiser = make_optimiser(self._parameters, fused)
        self._scaler = torch.amp.GradScaler(self.device, enabled=how.precision == "float16")
        self._type, self._short = getattr(torch, how.precision), how.precision != "float32"
        self.attention = self._fastest_attention(job) if how.on_gpu and self._short else ""
        self.notes = f"attention by {self.attention}" if self.attention else ""

    def learn(self, loss_of):
        """Take a step down a loss; return it."""
        self._optimiser.zero_grad()
        with self.kernels(), torch.autocast(self.device, self._type, enabled=self._short):
            loss = loss_of()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimiser)
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss.item()  # on a GPU this waits for all of the step

    def kernels(self):
        """The context in which attention takes the kernels that were chosen."""
        if not self.attention:
            return nullcontext()
        return sdpa_kernel([FAST[self.attention], *OTHERS], set_priority=True)

    def _fastest_attention(self, job):
        """Which of PyTorch's kernels is faster where all sequences are of one length; else flash.

        cuDNN prepares a plan for each new shape, which takes longer than attention.
        """
        lengths = {len(ids) - 1 for batch in job.batches for ids, _ in batch}
        if len(lengths) > 1:
            return "flash"
        c, heads = job.config.n_embd, job.config.n_head
        shape = len(job.batches[0]), max(lengths), 3, heads, c // heads
        seconds = {}
        for name, kernel in FAST.items():
            try:
                seconds[name] = time_attention(shape, kernel, self._type)
            except RuntimeError:  # this GPU or this version has none
                continue
        return min(seconds, key=seconds.get, default="")

    def on_device(self, tensor):
        """A tensor that is prepared in memory from which a GPU can fetch it by itself."""
        return tensor.pin_memory() if self.device == "cuda" else tensor

    def fetch(self, tensor):
        """A prepared tensor on the device."""
        return tensor.to(self.device, non_blocking=True)

    def memory(self):
        """The bytes of the GPU that PyTorch's tensors took at most."""
        return torch.cuda.max_memory_allocated()


def time_attention(shape, kernel, dtype):
    """Seconds of attention forward and backward, by one of PyTorch's kernels."""
    qkv = torch.randn(shape, dtype=dtype, device="cuda", requires_grad=True)
    with sdpa_kernel([kernel]):
        for number in range(6):
            if number == 3:  # those before warm up
                torch.cuda.synchronize()
                started = perf_counter()
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
    torch.cuda.synchronize()
    return perf_counter() - started
