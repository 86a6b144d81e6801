"""A contender in a process of its own, which works when it is told to and waits otherwise."""

import importlib
import multiprocessing
import traceback
from contextlib import suppress
from time import perf_counter
from typing import NamedTuple

from minigpt2.errors import UserError
from minigpt2.memory import peak_memory

BARE = "bare products"  # no contender, but the roof

# name -> module, class, options
CONTENDERS = {
    "ours": ("ours", "Ours", {}),
    "ours, recomputing": ("ours", "Ours", {"recompute": True}),
    "ours, in one stream": ("ours", "Ours", {"streams": 1}),
    BARE: ("bare", "Bare", {}),
    "PyTorch, padded": ("padded", "Padded", {}),
    "PyTorch, packed": ("packed", "Packed", {}),
    "PyTorch, packed, compiled": ("packed", "Packed", {"compiled": True}),
    "PyTorch, packed, one kernel": ("packed", "Packed", {"varlen": True}),
    "PyTorch, packed, one kernel, compiled": (
        "packed",
        "Packed",
        {"compiled": True, "varlen": True},
    ),
    # Pairs
    "ours, DPO": ("pairs_ours", "PolicySteps", {}),
    "ours, reward model": ("pairs_ours", "RewardSteps", {}),
    "trl, DPO": ("pairs_trl", "PolicySteps", {}),
    "trl, DPO, a second model": ("pairs_trl", "PolicySteps", {"second_model": True}),
    "trl, reward model": ("pairs_trl", "RewardSteps", {}),
    # Decoding
    "decode: ours": ("decode_ours", "Ours", {}),
    "decode: transformers": ("decode_torch", "Transformers", {}),
    "decode: PyTorch, fixed cache": ("decode_torch", "StaticCache", {"compiled": False}),
    "decode: PyTorch, fixed cache, compiled": ("decode_torch", "StaticCache", {}),
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


class Built(NamedTuple):
    """A contender that is ready: the seconds that took, and what it chose."""

    seconds: float
    notes: str


def serve(pipe, name, folder, job, how):
    """Answer each message with its result, or with the text of what went wrong, until one is None.

    A message is the name of a function below and its arguments.
    """
    contender = Contender(name, folder, job, how)
    while message := pipe.recv():
        call, *arguments = message
        try:
            answer = getattr(contender, call)(*arguments)
        except Exception as error:
            traceback.print_exc(limit=-4)
            answer = UserError(f"{type(error).__name__}: {str(error)[:300]}")
        pipe.send(answer)


class Contender:
    """What a process does for its messages."""

    def __init__(self, name, folder, job, how):
        module, kind, self._options = CONTENDERS[name]
        self._kind = getattr(importlib.import_module(f"tests.benchmarks.peers.{module}"), kind)
        self._where = folder, job, how
        self._made = None

    def build(self):
        """Load the weights, prepare the batches, choose between kernels."""
        started = perf_counter()
        self._made = self._kind(*self._where, **self._options)
        return Built(perf_counter() - started, getattr(self._made, "notes", ""))

    def steps(self, number):
        """Take steps; (loss, seconds) of each."""
        taken = []
        for _ in range(number):
            started = perf_counter()
            loss = self._made.step()
            taken.append((loss, perf_counter() - started))
        return taken

    def kernels(self, number):
        """Take steps under the profiler; the GPU's time in each kernel, and in all together."""
        from tests.benchmarks.gpu.kernel_times import profiled

        return profiled(self._made.step, number)

    def memory(self):
        """The bytes it held at most, on a GPU those of the GPU."""
        return self._made.memory() if self._where[2].on_gpu else peak_memory()


class Worker:
    """The process, seen from outside.

    It imports what it needs at once, and builds its contender when it is first asked for anything.
    Each question raises UserError if the contender fails, or does not answer within `patience`
    seconds, which ends it.
    """

    def __init__(self, name, folder, job, how, patience=None):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=serve, args=(other, name, folder, job, how), daemon=True
        )
        self._process.start()
        self._patience, self._pending, self._built = patience, 0, None
        other.close()

    def begin(self, call, *arguments):
        """Send a question whose answer is waited for later; if its process ended, that says so."""
        with suppress(OSError):
            self._pipe.send((call, *arguments))
        self._pending += 1

    def answer(self):
        """The answer to the oldest question that has none."""
        self._pending -= 1
        try:
            if not self._pipe.poll(self._patience):
                self._process.terminate()
                raise UserError(f"no answer within {self._patience:.0f} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise UserError(f"its process ended: {type(error).__name__}") from None
        if isinstance(answer, UserError):
            raise answer
        return answer

    def ask(self, call, *arguments):
        """A question and its answer; the contender is built before the first."""
        self.build()
        self.begin(call, *arguments)
        return self.answer()

    def begin_build(self):
        """Let it build its contender, and do not wait for it."""
        if not self._built and not self._pending:
            self.begin("build")

    def build(self):
        """Wait until the contender is built."""
        self.begin_build()
        if not self._built:
            self._built = self.answer()
        return self._built

    def step(self):
        """Let it take a step; return (loss, seconds)."""
        return self.ask("steps", 1)[0]

    def stop(self):
        """End it; return the bytes it held at most, on a GPU those of the GPU."""
        peak = self.ask("memory")
        self.end()
        return peak

    def end(self):
        """End it, whatever it does."""
        with suppress(OSError):
            self._pipe.send(None)
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
