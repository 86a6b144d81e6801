"""A contender in a process of its own, which works when it is told to and waits otherwise."""

import importlib
import multiprocessing
from functools import partial
from time import perf_counter
from typing import NamedTuple

from minigpt2.memory import peak_memory

BARE = "bare products"  # no contender, but the roof

# name -> module, class, options
CONTENDERS = {
    "ours": ("ours", "Ours", {}),
    "ours, recomputing": ("ours", "Ours", {"recompute": True}),
    BARE: ("bare", "Bare", {}),
    "PyTorch, padded": ("padded", "Padded", {}),
    "PyTorch, packed": ("packed", "Packed", {}),
    "PyTorch, packed, compiled": ("packed", "Packed", {"compiled": True}),
}


class How(NamedTuple):
    """Where a contender computes, and in what numbers."""

    threads: int
    device: str = "cpu"
    precision: str = "float32"

    @property
    def on_gpu(self):
        """Whether that is a GPU."""
        return self.device == "cuda"


def serve(pipe, name, folder, job, how):
    """Build the contender; then take one step for each message, and answer (loss, seconds)."""
    module, kind, options = CONTENDERS[name]
    contender = getattr(importlib.import_module(f"tests.benchmarks.peers.{module}"), kind)
    made = contender(folder, job, how, **options)
    while pipe.recv():
        started = perf_counter()
        loss = made.step()
        pipe.send((loss, perf_counter() - started))
    pipe.send(made.memory() if how.on_gpu else peak_memory())


class Worker:
    """The process, seen from outside."""

    def __init__(self, name, folder, job, how):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        work = partial(serve, other, name, folder, job, how)
        self._process = context.Process(target=work, daemon=True)
        self._process.start()
        other.close()

    def step(self):
        """Let it take a step; return (loss, seconds)."""
        self._pipe.send(True)
        return self._pipe.recv()

    def stop(self):
        """End it; return the bytes it held at most, on a GPU those of the GPU."""
        self._pipe.send(False)
        peak = self._pipe.recv()
        self._process.join()
        return peak
