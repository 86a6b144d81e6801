"""Time of a step against length and batch size: `python -m tests.benchmarks.cost`.

One sequence of T tokens, all supervised, forward and backward, without the optimiser.  The times
are fitted by c + a·T + b·T²: c is what every step does to the gradients whatever its length, a·T
the products with weights, b·T² attention.  Next to it are the operations that
planning/memory_and_flops counts, and where the two terms cross.

Then batches of B sequences of 64 tokens, whose times are fitted by c + a·B: no row sees another
sequence's.
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
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.planning.memory_and_flops import MicroBatch, crossing, operations
from tests.benchmarks.work import MODELS, make_batch

LENGTHS = (64, 128, 256, 384, 512, 768, 1024)
SIZES, SHORT = (1, 2, 4, 8, 16), 64  # batches, and the tokens of a sequence in them


def times(config, shapes, rounds, progress=lambda: None):
    """Seconds of every round for each (sequences, length), interleaved, after one that warms up."""
    rng = np.random.default_rng(0)
    keep_freed_memory()
    parameters = initialise(config, rng)
    gradients = gradients_of(parameters)
    batches = {(n, t): make_batch(config, n * t, t, 1.0, 0, rng) for n, t in shapes}
    found = {shape: [] for shape in shapes}
    for number in range(1 + rounds):
        for shape in shapes if number % 2 else reversed(shapes):
            gradients.flat[:] = 0
            started = perf_counter()
            loss_and_gradients(parameters, batches[shape], gradients)
            if number:
                found[shape].append(perf_counter() - started)
            progress()
    return found


def fit(x, seconds, degree=2):
    """c, a and b of c + a·x + b·x², or so far as the degree goes, with the least relative error."""
    x, y = np.array(x, float), np.array(seconds)
    terms = x[:, None] ** np.arange(degree + 1) / y[:, None]
    return np.linalg.lstsq(terms, np.ones_like(x), rcond=None)[0].tolist()


def counted(config, length, sequences=1):
    """Operations of the linear and of the quadratic term."""
    rows = sequences * length
    done = operations(config, MicroBatch(rows, rows), length, recompute=False)
    return done["products"] + done["projection"], done["attention"]


def of_batches(config, length, found):
    """Every number that is shown of batches, from the seconds of every round by size."""
    sizes, seconds = list(found), [median(taken) for taken in found.values()]
    c, a = fit(sizes, seconds, 1)
    return {
        "sizes": sizes,
        "length": length,
        "seconds": seconds,
        "fitted": [c + a * n for n in sizes],
        "operations": [sum(counted(config, length, n)) for n in sizes],
        "c": c,
        "a": a,
    }


def show_batches(console, name, result):
    """Print the table of batches."""
    title = f"{name}: seconds of a batch of sequences of {result['length']} tokens"
    console.print(title, highlight=False)
    table = Table(box=None)
    for head in ("sequences", "measured", "fit", "GFLOP"):
        table.add_column(head, justify="right")
    columns = (result[key] for key in ("sizes", "seconds", "fitted", "operations"))
    for n, seconds, fitted, done in zip(*columns, strict=True):
        table.add_row(f"{n:,}", f"{seconds:.3f}", f"{fitted:.3f}", f"{done / 1e9:,.1f}")
    console.print(table)
    each = result["operations"][-1] / result["sizes"][-1]
    console.print(
        f"{1e3 * result['c']:.0f} ms + {1e3 * result['a']:.2f} ms · B; what grows runs at "
        f"{each / result['a'] / 1e9:.0f} GFLOP/s",
        highlight=False,
    )


def of_lengths(config, found):
    """Every number that is shown of lengths, from the seconds of every round by length."""
    lengths, seconds = list(found), [median(taken) for taken in found.values()]
    c, a, b = fit(lengths, seconds)
    fitted = [c + a * t + b * t * t for t in lengths]
    return {
        "lengths": lengths,
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
        description="Time of a step against length and batch size, with a fit",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", choices=MODELS, default="gpt2", help="the size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    options = parser.parse_args(argv)
    config = MODELS[options.model]
    lengths = [t for t in LENGTHS if t <= config.n_positions]
    console = Console(width=None if sys.stdout.isatty() else 120)
    shapes = list(dict.fromkeys([(1, t) for t in lengths] + [(n, SHORT) for n in SIZES]))
    with console.status("taking the steps") as status:
        done = iter(range(1, 10**6))
        total = (1 + options.rounds) * len(shapes)
        found = times(
            config, shapes, options.rounds, lambda: status.update(f"{next(done)} of {total}")
        )
    result = of_lengths(config, {t: found[1, t] for t in lengths})
    result["batches"] = of_batches(config, SHORT, {n: found[n, SHORT] for n in SIZES})
    show(console, options.model, result)
    console.print()
    show_batches(console, options.model, result["batches"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {options.json}", highlight=False)
    return result


if __name__ == "__main__":
    main()
