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
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from minigpt2.commands.dataset import ALMANAC
from minigpt2.errors import UserError
from minigpt2.model.initialisation import initialise
from minigpt2.weights import save_parameters
from tests.benchmarks.peers.jobs import dense, tuning
from tests.benchmarks.peers.worker import BARE, CONTENDERS, How, Worker
from tests.benchmarks.work import MODELS

HERE = How(len(os.sched_getaffinity(0)))

AGREE = 1e-4  # losses
COMPARED = 4  # steps whose losses are compared; they warm up, too
PEERS = ("ours", BARE, "PyTorch, padded", "PyTorch, packed", "PyTorch, packed, compiled")
LARGE = ("ours, recomputing", BARE, "PyTorch, padded")


def chosen_threads(name, folder, job, how, known):
    """The number of threads with which a peer is fastest, of one and all; `known` remembers it.

    It is found at the first job: starting a peer twice takes longer than a job's steps.
    """
    most = len(os.sched_getaffinity(0))
    if name.startswith("ours") or name == BARE or most == 1:
        return most
    if name not in known:
        known[name] = fastest(name, folder, job, how, (1, most))
    return known[name]


def fastest(name, folder, job, how, choices):
    """The number of threads, of some, with which a peer takes its second step fastest."""
    seconds = {}
    for threads in choices:
        worker = Worker(name, folder, job, how._replace(threads=threads))
        worker.step()
        seconds[threads] = worker.step()[1]
        worker.stop()
    return min(seconds, key=seconds.get)


def differ_by(name, step, losses):
    """How far the losses of one step are apart; raises UserError if that is too far."""
    losses = {who: loss for who, loss in losses.items() if who != BARE}
    ours = next(iter(losses.values()))
    for who, loss in losses.items():
        if abs(loss - ours) > AGREE:
            raise UserError(f"{name}, step {step}: {who} has loss {loss}, not {ours}")
    return max(abs(loss - ours) for loss in losses.values())


def compare(workers, job, console, compared=COMPARED):
    """Let all take the first steps; raises UserError if their losses differ."""
    worst = 0.0
    for step in range(1, compared + 1):
        losses = {name: worker.step()[0] for name, worker in workers.items()}
        worst = max(worst, differ_by(job.name, step, losses))
    console.print(f"{job.name}: losses agree to {worst:.1e} over {compared} steps", highlight=False)
    return worst


def say(console, number, rounds, seconds):
    """Print what the last round took."""
    taken = ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items())
    console.print(f"  round {number + 1} of {rounds}: {taken}", highlight=False, soft_wrap=True)


def in_turns(job, names, rounds, console, how=HERE, known=None, compared=COMPARED):
    """Compare and time the contenders at one job, all alive at once; every number found.

    `known` holds the best number of threads of contenders that were met before, `compared` is how
    many steps are compared, and not timed.
    """
    known = {} if known is None else known
    with weights_of(job) as folder:
        with console.status(f"{job.name}: finding the best number of threads"):
            threads = {name: chosen_threads(name, folder, job, how, known) for name in names}
        workers = {n: Worker(n, folder, job, how._replace(threads=threads[n])) for n in names}
        with console.status(f"{job.name}: comparing losses"):
            worst = compare(workers, job, console, compared)
        seconds = {name: [] for name in names}
        for number in range(rounds):
            for name in list(names)[:: 1 if number % 2 else -1]:
                seconds[name].append(workers[name].step()[1])
            say(console, number, rounds, seconds)
        peaks = {name: worker.stop() for name, worker in workers.items()}
    return result_of(job, worst, threads, seconds, peaks, range(compared, compared + rounds))


def one_at_a_time(job, names, rounds, console):
    """The same where memory is for one alone: each starts, takes two steps and ends, in turns."""
    threads = dict.fromkeys(names, len(os.sched_getaffinity(0)))
    worst, seconds, peaks = 0.0, {name: [] for name in names}, {}
    with weights_of(job) as folder:
        for number in range(rounds):
            losses = [{}, {}]
            for name in names:
                with console.status(f"{job.name}, round {number + 1}: {name}"):
                    worker = Worker(name, folder, job, How(threads[name]))
                    (losses[0][name], _), (losses[1][name], taken) = worker.step(), worker.step()
                    peaks[name] = worker.stop()
                seconds[name].append(taken)
            apart = [differ_by(job.name, n + 1, found) for n, found in enumerate(losses)]
            worst = max(worst, *apart)
            say(console, number, rounds, seconds)
    return result_of(job, worst, threads, seconds, peaks, [1] * rounds)


@contextmanager
def weights_of(job):
    """A folder with random weights of the job's size, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        save_parameters(initialise(job.config, np.random.default_rng(0)), Path(folder))
        yield folder


def result_of(job, worst, threads, seconds, peaks, steps):
    """All that was found in these steps, and medians."""
    ours = next(iter(seconds.values()))
    tokens = [job.tokens(step) for step in steps]
    work = [job.operations(step) for step in steps]
    return {
        "job": job.name,
        "losses_differ_by": worst,
        "threads": threads,
        "seconds": seconds,
        "tokens": tokens,
        "peak_memory": peaks,
        "operations": work,
        "operations_per_second": {n: median(np.divide(work, s)) for n, s in seconds.items()},
        "tokens_per_second": {n: median(np.divide(tokens, s)) for n, s in seconds.items()},
        "ratio": {n: median(np.divide(s, ours)) for n, s in seconds.items()},
    }


def table_of(results):
    """All jobs as a table."""
    table = Table(title="Training steps: real tokens/s, and the peer's time over ours", box=None)
    for column in ("job", "contender"):
        table.add_column(column, no_wrap=True)
    for column in ("threads", "tokens/s", "s a step", "times ours", "memory, GB", "GFLOP/s"):
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
                f"{result['operations_per_second'][name] / 1e9:,.0f}",
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


def present(names):
    """The contenders that can be run: PyTorch's only where it is installed."""
    if find_spec("torch") and find_spec("transformers"):
        return names
    print("torch and transformers are not installed: without PyTorch's contenders")
    return [name for name in names if not name.startswith("PyTorch")]


def main(argv=None):
    """Run all jobs, print the table."""
    options = arguments().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    results, names, known = [], present(options.contenders), {}
    for job in jobs_of(options):
        results.append(in_turns(job, names, options.rounds, console, HERE, known))
        keep(results, options.json)
    if options.large:
        job = dense(1, 1024, 2, "gpt2-large")
        results.append(one_at_a_time(job, present(LARGE), options.rounds, console))
        keep(results, options.json)
    console.print(table_of(results))
    return 0


def keep(results, path):
    """Write what was found so far, so that a run that is stopped loses one job."""
    if path:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
