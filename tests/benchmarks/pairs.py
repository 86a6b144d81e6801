"""Steps on preference pairs next to trl's, in turns: `make bench-align`.

DPO and a reward model, on the same weights and the same batches; losses are compared before
anything is timed.  trl's DPO runs twice: with the reference's numbers stored, as here, and with a
second model beside, its default.  Without a file the pairs are made up, with the lengths of short
questions.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from tests.benchmarks.peers.__main__ import HERE, in_turns, keep, table_of
from tests.benchmarks.peers.pair_jobs import pair_jobs, read, rows_of_epoch
from tests.benchmarks.work import MODELS

COMPARED = 2  # steps whose losses are compared; they warm up, too
CONTENDERS = {
    "DPO": ("ours, DPO", "trl, DPO", "trl, DPO, a second model"),
    "reward model": ("ours, reward model", "trl, reward model"),
}
ALL = [name for names in CONTENDERS.values() for name in names]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.pairs",
        description="Steps of DPO and of a reward model next to trl's, in turns",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, help="a file of preference pairs")
    add("--model", default="gpt2", choices=MODELS, help="size; the weights are random")
    add("--batch", nargs="*", type=int, default=[8], help="pairs of a step")
    add("--rounds", type=int, default=3, help="timed steps of each")
    add("--contenders", nargs="*", default=ALL, choices=ALL, help="of both kinds, or of one")
    add("--json", type=Path, metavar="FILE", help="where to write every number")
    return parser


def rows_lines(options):
    """How many rows an epoch of all pairs takes, by batch size."""
    pairs = read(options.data, options.model)
    for size in options.batch:
        rows = rows_of_epoch(pairs, size)
        yield (
            f"{len(pairs):,} pairs, batch {size}: {rows.padded:,} rows an epoch padded, "
            f"{rows.packed:,} each answer by itself, {rows.forest:,} as a forest: "
            f"{rows.padded / rows.forest:.1f} times fewer"
        )


def present(names, wanted):
    """The contenders that are wanted and can be run: trl's only where it is installed."""
    installed = find_spec("trl") and find_spec("torch")
    return [name for name in names if name in wanted and (installed or name.startswith("ours"))]


def main(argv=None):
    """Run all jobs, print the table; return the results."""
    options = arguments().parse_args(argv)
    console, results = Console(width=None if sys.stdout.isatty() else 120), []
    for line in rows_lines(options):
        console.print(line, highlight=False)
    threads = len(os.sched_getaffinity(0))
    for size in options.batch:
        steps = COMPARED + options.rounds
        for job in pair_jobs(options.data, size, steps, options.model):
            names = present(CONTENDERS[job.name.partition(",")[0]], options.contenders)
            if not names:
                continue
            known = dict.fromkeys(names, threads)
            result = in_turns(job, names, options.rounds, console, HERE, known, COMPARED)
            results.append(result)
            keep(results, options.json)
    console.print(table_of(results))
    return results


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
