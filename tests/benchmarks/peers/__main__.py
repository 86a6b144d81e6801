"""This project beside PyTorch at the same jobs: `make bench-peers`.

Every contender has a process of its own and the same weights.  They take steps in turns on the same
batches: first their losses are compared, step by step, and only if they agree is anything timed.
What counts are medians of the ratios of one round, peer's seconds over ours.  The bare products
are the roof: the same matrix products by NumPy and nothing between them, so their ratio is the
share of the roof that is reached.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from minigpt2.data.opening import ALMANAC
from minigpt2.errors import UserError
from minigpt2.model.parameters import initialise
from minigpt2.weights import save_parameters
from tests.benchmarks.peers.jobs import MODELS, dense, tuning
from tests.benchmarks.peers.worker import BARE, CONTENDERS, Worker

AGREE = 1e-4  # losses
COMPARED = 4  # steps whose losses are compared; they warm up, too
PEERS = ("ours", BARE, "PyTorch, padded", "PyTorch, packed", "PyTorch, packed, compiled")
LARGE = ("ours, recomputing", BARE, "PyTorch, padded")


def chosen_threads(name, folder, job):
    """The number of threads with which a peer is fastest, of one and all."""
    most = len(os.sched_getaffinity(0))
    if name.startswith("ours") or name == BARE or most == 1:
        return most
    seconds = {}
    for threads in (1, most):
        worker = Worker(name, folder, job, threads)
        worker.step()
        seconds[threads] = worker.step()[1]
        worker.stop()
    return min(seconds, key=seconds.get)


def compare(workers, job, console):
    """Let all take the first steps; raises UserError if their losses differ."""
    worst = 0.0
    for step in range(COMPARED):
        losses = {name: worker.step()[0] for name, worker in workers.items()}
        losses.pop(BARE, None)
        ours = next(iter(losses.values()))
        for name, loss in losses.items():
            worst = max(worst, abs(loss - ours))
            if abs(loss - ours) > AGREE:
                raise UserError(f"{job.name}, step {step + 1}: {name} has loss {loss}, not {ours}")
    console.print(f"{job.name}: losses agree to {worst:.1e} over {COMPARED} steps", highlight=False)
    return worst


def run(job, names, rounds, console, tune_threads=True):
    """Compare and time the contenders at one job; every number found."""
    with tempfile.TemporaryDirectory() as folder:
        save_parameters(initialise(job.config, np.random.default_rng(0)), Path(folder))
        threads = dict.fromkeys(names, 2)
        if tune_threads:
            threads = {name: chosen_threads(name, folder, job) for name in names}
        workers = {name: Worker(name, folder, job, threads[name]) for name in names}
        worst = compare(workers, job, console)
        seconds = {name: [] for name in names}
        for number in range(rounds):
            order = list(workers) if number % 2 else list(workers)[::-1]
            for name in order:
                seconds[name].append(workers[name].step()[1])
            console.print(
                f"  round {number + 1} of {rounds}: "
                + ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in workers),
                highlight=False,
            )
        peaks = {name: worker.stop() for name, worker in workers.items()}
    ours = names[0]
    tokens = [job.tokens(COMPARED + number) for number in range(rounds)]
    return {
        "job": job.name,
        "losses_differ_by": worst,
        "threads": threads,
        "seconds": seconds,
        "tokens": tokens,
        "peak_memory": peaks,
        "tokens_per_second": {n: median(np.divide(tokens, s)) for n, s in seconds.items()},
        "ratio": {n: median(np.divide(s, seconds[ours])) for n, s in seconds.items()},
    }


def table_of(results):
    """All jobs as a table."""
    table = Table(title="Training steps: real tokens/s, and the peer's time over ours", box=None)
    for column in ("job", "contender"):
        table.add_column(column, no_wrap=True)
    for column in ("threads", "tokens/s", "s a step", "times ours", "peak, GB"):
        table.add_column(column, justify="right")
    for result in results:
        for name, seconds in result["seconds"].items():
            table.add_row(
                result["job"],
                name,
                str(result["threads"][name]),
                f"{result['tokens_per_second'][name]:,.0f}",
                f"{median(seconds):.2f}",
                f"{result['ratio'][name]:.2f}",
                f"{result['peak_memory'][name] / 1e9:.2f}",
            )
    return table


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers",
        description="Training steps beside PyTorch's, in turns",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", nargs="*", default=[ALMANAC], help="files of questions and answers")
    add("--model", default="gpt2", choices=MODELS, help="size; the weights are random")
    add("--batch", nargs="*", type=int, default=[8, 32], help="batch sizes of the tuning jobs")
    add("--dense", nargs="*", default=["4x256", "1x1024"], help="rows x length of dense steps")
    add("--large", action="store_true", help="also Large at 1 x 1024, recomputing")
    add("--rounds", type=int, default=5, help="timed steps of each")
    add("--contenders", nargs="*", default=list(PEERS), choices=CONTENDERS)
    add("--json", type=Path, metavar="FILE", help="where to write every number")
    return parser


def jobs_of(options):
    """The jobs that were asked for."""
    steps = COMPARED + options.rounds
    for data in options.data:
        for size in options.batch:
            yield tuning(data, size, steps, options.model)
    for what in options.dense:
        rows, length = map(int, what.split("x"))
        yield dense(rows, length, steps, options.model)


def main(argv=None):
    """Run all jobs, print the table."""
    options = arguments().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    results = []
    for job in jobs_of(options):
        results.append(run(job, options.contenders, options.rounds, console))
    if options.large:
        job = dense(1, 1024, COMPARED + 2, "gpt2-large")
        results.append(run(job, list(LARGE), 2, console, tune_threads=False))
    console.print(table_of(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
