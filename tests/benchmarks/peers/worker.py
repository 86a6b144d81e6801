"""A contender in a process of its own, which works when it is told to and waits otherwise."""

import importlib
import multiprocessing
from functools import partial
from time import perf_counter

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


def serve(pipe, name, folder, job, threads):
    """Build the contender; then take one step for each message, and answer (loss, seconds)."""
    module, kind, options = CONTENDERS[name]
    contender = getattr(importlib.import_module(f"tests.benchmarks.peers.{module}"), kind)
    made = contender(folder, job, threads, **options)
    while pipe.recv():
        started = perf_counter()
        loss = made.step()
        pipe.send((loss, perf_counter() - started))
    pipe.send(peak_memory())


class Worker:
    """The process, seen from outside."""

    def __init__(self, name, folder, job, threads):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        work = partial(serve, other, name, folder, job, threads)
        self._process = context.Process(target=work, daemon=True)
        self._process.start()
        other.close()

    def step(self):
        """Let it take a step; return (loss, seconds)."""
        self._pipe.send(True)
        return self._pipe.recv()

    def stop(self):
        """End it; return the bytes it held at most."""
        self._pipe.send(False)
        peak = self._pipe.recv()
        self._process.join()
        return peak
