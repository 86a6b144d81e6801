"""What another program on one of the cores costs: `make bench-busy`.

Generation, tuning and `imbalance` with the small base that ships are timed with the machine to
themselves and beside a process that never waits, in turns; each with all cores that this process
may use, and with one.  A program that leaves a core to the other one takes what one core takes.
"""

import argparse
import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from minigpt2.blas import single_threaded_blas
from minigpt2.data.examples import Example
from minigpt2.inference.generate import generate
from minigpt2.memory import keep_freed_memory
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.ops.adamw import AdamW, Update, adamw_flat
from minigpt2.parallel import cores
from minigpt2.shipped import shipped
from minigpt2.training.gradient_imbalance import measure
from minigpt2.weights import load_parameters
from tests.benchmarks.work import make_batch

# It ends with the program that started it, however that ends.
NEVER_WAITS = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
LIMIT = 2.5  # times as long as quiet, at most


class Neighbours:
    """Processes that keep all cores but one busy, when they are allowed to run."""

    def __init__(self):
        command = [sys.executable, "-c", NEVER_WAITS]
        self.processes = [subprocess.Popen(command) for _ in range(cores() - 1)]

    def let(self, run):
        """Let them run, or make them stop."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT if run else signal.SIGSTOP)
        sleep(0.02)  # until the system has spread them over the cores


@contextmanager
def neighbours():
    """Start busy processes, which stop for now; end them on the way out."""
    busy = Neighbours()
    try:
        busy.let(False)
        yield busy
    finally:
        for process in busy.processes:
            process.kill()
            process.wait()


@contextmanager
def one_core():
    """Let the engine use one core."""
    with (
        patch("minigpt2.parallel.cores", lambda: 1),
        patch("minigpt2.ops.attention.cores", lambda: 1),
        single_threaded_blas,
    ):
        yield


def jobs_of(scale):
    """Functions to time, by what they do; `scale` is how much they do."""
    parameters, tuned = (load_parameters(shipped("weights/tiny")) for _ in range(2))
    rng, config = np.random.default_rng(0), parameters.config
    start = rng.integers(config.vocab_size, size=24).tolist()
    prompts = [[*start, *rng.integers(config.vocab_size, size=8).tolist()] for _ in range(64)]
    batch = make_batch(config, 1024, 32, 0.5, 0, rng)
    gradients = gradients_of(tuned)
    moments = np.zeros((2, len(tuned.flat)), tuned.flat.dtype)
    examples = [Example(ids, [False] * 16 + [True] * 16) for ids in prompts[: 2 * scale]]

    def tune():
        for number in range(1, scale + 1):
            gradients.clear()
            loss_and_gradients(tuned, batch, gradients)
            update = Update(number, 1e-5, 0, AdamW())
            adamw_flat(tuned.flat, gradients.flat, *moments, update)

    def continue_each(some, tokens):
        generate(parameters, some, stop=-1, max_new_tokens=tokens)

    return {
        "generation, 1 sequence": lambda: continue_each(prompts[:1], 24 * scale),
        "generation, 64 sequences": lambda: continue_each(prompts, 4 * scale),
        "tuning": tune,
        "imbalance": lambda: measure(parameters, examples),
    }


def seconds_of(function):
    """How long a function takes."""
    started = perf_counter()
    function()
    return perf_counter() - started


def take_turns(job, busy, times):
    """Time a job quiet and beside busy processes, on all cores and on one, in turns."""
    for (run, alone), seconds in times.items():
        busy.let(run)
        if alone:
            with one_core():
                seconds.append(seconds_of(job))
        else:
            seconds.append(seconds_of(job))
    busy.let(False)


def measure_job(job, busy, rounds, most):
    """Take so many rounds; where the bound is not held then, go on to the most."""
    times = {(run, alone): [] for run in (False, True) for alone in (False, True)}
    job()  # warms up
    for number in range(1, most + 1):
        take_turns(job, busy, times)
        row = results(times)
        if number >= rounds and row["times as long"] <= LIMIT:
            break
    return row


def results(times):
    """The medians of a job's times, and how many times as long it takes beside busy processes.

    Yet other programs may come and go, and slow some of the rounds.  What one core takes beside
    the busy processes shows it: all cores are no faster than by their number.
    """
    quiet, quiet_alone, beside, beside_alone = map(median, times.values())
    return {
        "quiet": quiet,
        "on one core": quiet_alone,
        "beside": beside,
        "beside, on one core": beside_alone,
        "times as long": beside / max(quiet, beside_alone / cores()),
    }


def table_of(rows):
    """The results of all jobs."""
    table = Table(title=f"{cores()} cores, {cores() - 1} of them busy: ms (medians)")
    for heading in ("job", *next(iter(rows.values()))):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for name, row in rows.items():
        *seconds, ratio = row.values()
        table.add_row(name, *(f"{1e3 * s:,.0f}" for s in seconds), f"{ratio:.2f}")
    return table


def main(argv=None):
    """Measure, print the table; return 1 where the bound is not held."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most", type=int, default=7, help="rounds where the bound is not held")
    parser.add_argument("--scale", type=int, default=4, help="how much each job does")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args(argv)
    if cores() < 2:
        parser.error("with one core there is none to leave to another program")
    keep_freed_memory()
    with neighbours() as busy:
        rows = {
            name: measure_job(job, busy, options.rounds, options.most)
            for name, job in jobs_of(options.scale).items()
        }
    Console(width=110).print(table_of(rows))
    if options.json:
        options.json.write_text(json.dumps(rows) + "\n")
    return int(any(row["times as long"] > LIMIT for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
