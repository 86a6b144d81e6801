"""What a checkpoint costs: `python -m tests.benchmarks.checkpoints`.

Steps of training, on random weights and tokens, in turns: one alone, one while a checkpoint is
written.  The time of the second includes the look whether all weights are finite, and the wait
before its update.  Then the checkpoint is read by a process of its own, which takes one more step:
its weights must be those of this process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, thread_time
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from rich.console import Console

from minigpt2.inference.model import Model
from minigpt2.memory import keep_freed_memory, peak_memory
from minigpt2.model.initialisation import initialise
from minigpt2.training import checkpoint_writer
from minigpt2.training.checkpoint_reader import open_checkpoint, restore
from minigpt2.training.checkpoint_writer import CheckpointWriter
from minigpt2.training.config import TrainingConfig
from minigpt2.training.micro_batches import gather_gradients
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.state import new_state
from minigpt2.training.step import require_finite, step
from minigpt2.weights import load_parameters
from minigpt2.wording import size
from tests.benchmarks.work import MODELS, make_batch
from tests.data.small import MERGES, small_tokenizer

CONFIG = TrainingConfig(1000, 1e-4, 1, "linear", recompute=True)


class Write(NamedTuple):
    """What the writing thread took until the arrays were handed over."""

    seconds: float
    of_a_core: float  # seconds


def timed_writes(writes):
    """A context in which each write of a checkpoint is added to a list."""
    write = checkpoint_writer.write_checkpoint

    def timed(*arguments, handed_over, before):
        started, busy = perf_counter(), thread_time()

        def noted():
            writes.append(Write(perf_counter() - started, thread_time() - busy))
            handed_over()

        write(*arguments, handed_over=noted, before=before)

    return patch.object(checkpoint_writer, "write_checkpoint", timed)


def batches_of(options):
    """The micro-batches of a step."""
    config = MODELS[options.model]
    rows = min(options.rows, config.n_positions)
    rng = np.random.default_rng(1)
    return [make_batch(config, options.rows, rows, 1.0, 0, rng) for _ in range(options.batches)]


def weights_after(folder, options):
    """Resume a checkpoint, take one more step; returns the digest of the weights, and numbers."""
    started = perf_counter()
    checkpoint = open_checkpoint(folder)
    checked = perf_counter() - started
    state = new_state(load_parameters(folder))
    restore(checkpoint, state)
    loaded = perf_counter() - started
    before = peak_memory()
    step(state, batches_of(options), WeightedNLL(), CONFIG)
    return sha256(state.parameters.flat).hexdigest(), checked, loaded, before, peak_memory()


def begin(options, folder):
    """A state, its micro-batches, and a writer of its checkpoints."""
    state = new_state(initialise(MODELS[options.model], np.random.default_rng(0)))
    model = Model(state.parameters, small_tokenizer(MERGES), None)
    return state, batches_of(options), CheckpointWriter(folder, model, keep=1, before=lambda: None)


def lost_seconds(options, folder, console):
    """What a write takes from passes forward and backward, which wait for nothing.

    On a machine that is not quiet this tells more than whole steps: the time beside a write is
    compared with those just before it and just after it.
    """
    state, batches, writer = begin(options, folder)
    keep_freed_memory()
    writes, alone, lost = [], [], []

    def passes():
        started = perf_counter()
        gather_gradients(state, batches, WeightedNLL(), CONFIG)
        return perf_counter() - started

    passes()
    with timed_writes(writes):
        for _ in range(options.rounds):
            before = passes()
            writer.save(state, {})
            beside = passes()
            writer.finish()
            state.step += 1  # the name of the next checkpoint
            alone.append((before + passes()) / 2)
            lost.append(beside - alone[-1])
    quarter, middle, three = quantiles(lost)
    console.print(
        f"passes alone: {median(alone):.3f} s; beside a write {middle:.3f} s more (quartiles "
        f"{quarter:.3f} and {three:.3f} s, {options.rounds} times)",
        highlight=False,
    )
    print_writes(writes, console)


def print_writes(writes, console):
    """What the writing thread took."""
    console.print(
        f"the writing thread: {median(write.seconds for write in writes):.2f} s, of which "
        f"{median(write.of_a_core for write in writes):.2f} s on a core",
        highlight=False,
    )


def timed_steps(options, folder, console):
    """Take steps in turns, alone and beside a write; returns their seconds, and the state."""
    state, batches, writer = begin(options, folder)
    keep_freed_memory()
    alone, beside, waits, writes = [], [], [], []

    def one_step(*, saves):
        started = perf_counter()
        if saves:
            require_finite(state, CONFIG)
            writer.save(state, {})
        step(state, batches, WeightedNLL(), CONFIG, settle=writer.settle)
        return perf_counter() - started

    one_step(saves=False)
    one_step(saves=False)
    without = peak_memory()
    with timed_writes(writes):
        for _ in range(options.rounds):
            alone.append(one_step(saves=False))
            waited = writer.seconds
            beside.append(one_step(saves=True))
            writer.finish()
            waits.append(writer.seconds - waited)
            pair = f"{alone[-1]:.3f} s alone, {beside[-1]:.3f} s beside a write"
            console.print(f"  {pair}, of which {waits[-1]:.3f} s waiting", highlight=False)
    console.print(
        f"a step alone: {median(alone):.3f} s; beside a write: {median(beside):.3f} s, "
        f"{median(b / a for a, b in zip(alone, beside, strict=True)):.3f} times (median of "
        f"{options.rounds} pairs), of which its update waited {median(waits):.3f} s",
        highlight=False,
    )
    print_writes(writes, console)
    written = peak_memory()
    console.print(
        f"peak memory: {size(without)} without a write, {size(written)} with: "
        f"{written / without:.4f} times",
        highlight=False,
    )
    return state, writer


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.checkpoints",
        description="What a checkpoint costs a step, and whether a run continues from it",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", choices=MODELS, default="gpt2", help="the size")
    parser.add_argument("--rows", type=int, default=1024, help="rows (tokens) of a micro-batch")
    parser.add_argument("--batches", type=int, default=1, help="micro-batches of a step")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of steps")
    parser.add_argument("--folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--passes", action="store_true", help="passes without updates, in turns")
    parser.add_argument("--times-only", action="store_true", help="resume no checkpoint")
    parser.add_argument("--resume", type=Path, help="take one step from this checkpoint")
    return parser


def main(argv=None):
    """Measure and print; return 1 if the resumed weights differ."""
    options = arguments().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.resume:
        digest, checked, loaded, before, after = weights_after(options.resume, options)
        print(digest)
        console.print(
            f"resumed: checksums {checked:.1f} s, all {loaded:.1f} s; peak memory "
            f"{size(before)} when loaded, {size(after)} after a step",
            highlight=False,
        )
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.passes:
            lost_seconds(options, Path(folder), console)
            return 0
        state, writer = timed_steps(options, Path(folder), console)
        if options.times_only:
            return 0
        started = perf_counter()
        writer.save(state, {})
        writer.finish()
        files = sum(path.stat().st_size for path in writer.newest.iterdir())
        seconds = perf_counter() - started
        console.print(f"a checkpoint of {size(files)}, alone: {seconds:.1f} s", highlight=False)
        step(state, batches_of(options), WeightedNLL(), CONFIG)
        digest = sha256(state.parameters.flat).hexdigest()
        del state, writer.model
        sizes = ["--model", options.model, "--rows", options.rows, "--batches", options.batches]
        command = [sys.executable, "-m", "tests.benchmarks.checkpoints", *map(str, sizes)]
        done = subprocess.run(
            [*command, "--resume", writer.newest], capture_output=True, text=True, env=os.environ
        )
    resumed, *lines = done.stdout.splitlines() or [done.stderr]
    console.print(*lines, highlight=False)
    same = resumed == digest
    console.print("the same bits after one more step" if same else f"DIFFERENT: {resumed}")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
