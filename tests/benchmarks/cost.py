"""Time of a step against the length of its sequence: `python -m tests.benchmarks.cost`.

One sequence of T tokens, all supervised, forward and backward, without the optimiser.  The times
are fitted by c + a·T + b·T²: c is what every step does to the gradients whatever its length, a·T
the products with weights, b·T² attention.  Beside it stand the operations of chapter 65,
and where the two terms cross.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

from minigpt2.memory import keep_freed_memory
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.parameters import initialise
from minigpt2.training.forecast import Load, crossing, operations
from tests.benchmarks.work import MODELS, make_batch

LENGTHS = (64, 128, 256, 384, 512, 768, 1024)


def times(config, lengths, rounds, progress):
    """Seconds of every round by length, the lengths interleaved, after a round that warms up."""
    rng = np.random.default_rng(0)
    keep_freed_memory()
    parameters = initialise(config, rng)
    gradients = parameters.zeros_like()
    batches = {length: make_batch(config, length, length, 1.0, 0, rng) for length in lengths}
    found = {length: [] for length in lengths}
    for number in range(1 + rounds):
        for length in lengths if number % 2 else reversed(lengths):
            gradients.flat[:] = 0
            started = perf_counter()
            loss_and_gradients(parameters, batches[length], gradients)
            if number:
                found[length].append(perf_counter() - started)
            progress()
    return found


def fit(lengths, seconds):
    """c, a and b of c + a·T + b·T² with the least relative error."""
    t, y = np.array(lengths, float), np.array(seconds)
    terms = np.stack([np.ones_like(t), t, t * t], 1) / y[:, None]
    return np.linalg.lstsq(terms, np.ones_like(t), rcond=None)[0].tolist()


def counted(config, length):
    """Operations of the linear and of the quadratic term."""
    done = operations(config, Load(length, length), length, recompute=False)
    return done["products"] + done["projection"], done["attention"]


def measure(config, lengths, rounds, progress=lambda: None):
    """Every number that is shown."""
    found = times(config, lengths, rounds, progress)
    seconds = [median(found[length]) for length in lengths]
    c, a, b = fit(lengths, seconds)
    fitted = [c + a * t + b * t * t for t in lengths]
    return {
        "lengths": list(lengths),
        "seconds": seconds,
        "fitted": fitted,
        "operations": [counted(config, length) for length in lengths],
        "c": c,
        "a": a,
        "b": b,
        "crossing_counted": crossing(config),
        "crossing_measured": a / b if b > 0 else None,
        "raw": {str(length): taken for length, taken in found.items()},
    }


def show(console, name, result):
    """Print the table and what follows from the fit."""
    table = Table(title=f"{name}: seconds of one sequence", title_justify="left", box=None)
    heads = ("T", "measured", "fit", "linear GFLOP", "attention GFLOP", "attention, counted", "fit")
    for head in heads:
        table.add_column(head, justify="right")
    columns = (result[key] for key in ("lengths", "seconds", "fitted", "operations"))
    for t, seconds, fitted, (linear, pairs) in zip(*columns, strict=True):
        table.add_row(
            f"{t:,}",
            f"{seconds:.3f}",
            f"{fitted:.3f}",
            f"{linear / 1e9:,.1f}",
            f"{pairs / 1e9:,.2f}",
            f"{pairs / (linear + pairs):.1%}",
            f"{result['b'] * t * t / fitted:.1%}",
        )
    console.print(table)
    last_linear, last_pairs = result["operations"][-1]
    t = result["lengths"][-1]
    console.print(
        f"{1e3 * result['c']:.0f} ms + {1e3 * result['a']:.3f} ms · T "
        f"+ {1e6 * result['b']:.3f} µs · T²",
        highlight=False,
    )
    console.print(
        f"the linear term runs at {last_linear / t / result['a'] / 1e9:.0f} GFLOP/s"
        + (
            f", the quadratic one at {last_pairs / t**2 / result['b'] / 1e9:.0f}; they cross at "
            f"T = {result['crossing_measured']:,.0f} in time"
            if result["crossing_measured"]
            else "; the quadratic one is lost in the noise"
        )
        + f", at T = {result['crossing_counted']:,.0f} in operations of the blocks",
        highlight=False,
    )


def main(argv=None):
    """Measure and print; write the numbers if a file is named."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.cost",
        description="Time of a step against the length of its sequence, with a fit",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", choices=MODELS, default="gpt2", help="the size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    options = parser.parse_args(argv)
    config = MODELS[options.model]
    lengths = [t for t in LENGTHS if t <= config.n_positions]
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.status("taking the steps") as status:
        done = iter(range(1, 10**6))
        total = (1 + options.rounds) * len(lengths)
        result = measure(
            config, lengths, options.rounds, lambda: status.update(f"{next(done)} of {total}")
        )
    show(console, options.model, result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {options.json}", highlight=False)
    return result


if __name__ == "__main__":
    main()
