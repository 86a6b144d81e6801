"""Where the time of an optimiser step goes, compared with the roof of the machine: `make bench`.

`python -m tests.benchmarks.step --help` lists the options.  The steps are those of a run,
on random weights and tokens.  A round is a plain step and a step with timers around its ops, in
turns, then every matrix product by itself, so that whatever else the machine does meets all alike.
Times are medians over the rounds.  The roof is what the library of products reaches on the step's
own shapes with nothing else to do: operations / seconds, each product as often as the step has it.
"""

import argparse
import json
import os
import platform
import resource
import sys
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from threadpoolctl import threadpool_info

from minigpt2.memory import peak_memory
from minigpt2.model import block, gpt2, gradients, layer
from minigpt2.model.initialisation import initialise
from minigpt2.training import step as loop
from tests.benchmarks.work import (
    FORMS,
    MODELS,
    Matrices,
    make_batch,
    matrix_products,
    operations,
    supervised_triples,
    visible_pairs,
)
from tests.stepping import take as take_steps

WARM_UP = 2  # steps that are shown, not counted
QUIET = 0.95  # cores; with less, the machine was not ours
REST = "rest: residuals, gradients"

# A part of the step, and the functions whose time it is, in the modules that call them.
PARTS = {
    "linear products, forward": [(layer, "linear")],
    "linear products, backward": [(gradients, "linear_backward")],
    "attention, forward": [(gpt2, "attention")],
    "attention, backward": [(block, "attention_backward")],
    "GELU": [(block, "gelu"), (gradients, "gelu_backward")],
    "layer norm": [
        (block, "layer_norm"),
        (gpt2, "layer_norm"),
        (gradients, "layer_norm_backward"),
    ],
    "embedding": [(gpt2, "embedding"), (gpt2, "embedding_backward")],
    "loss with projection": [(gpt2, "cross_entropy_gradient")],
    "AdamW": [(loop, "adamw_flat")],
}


class Timers:
    """Seconds and calls of each part, gathered by functions that stand in for the real ones."""

    def __init__(self):
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.calls = 0

    def around(self, part, function):
        """The function, with its time added to a part's."""

        def timed(*arguments, **options):
            started = perf_counter()
            result = function(*arguments, **options)
            self.seconds[part] += perf_counter() - started
            self.calls += 1
            return result

        return timed


@contextmanager
def timers():
    """Put timers around the ops of every part; on the way out the ops are as they were."""
    own, found = Timers(), [(part, *place) for part, places in PARTS.items() for place in places]
    originals = [(module, name, getattr(module, name)) for _, module, name in found]
    try:
        for (part, module, name), (_, _, function) in zip(found, originals, strict=True):
            setattr(module, name, own.around(part, function))
        yield own
    finally:
        for module, name, function in originals:
            setattr(module, name, function)


def seconds_per_timer(calls=10_000):
    """What one timer adds to a call, measured on a function that does nothing."""

    def nothing():
        pass

    wrapped = Timers().around("AdamW", nothing)
    spent = []
    for function in (nothing, wrapped):
        started = perf_counter()
        for _ in range(calls):
            function()
        spent.append(perf_counter() - started)
    return (spent[1] - spent[0]) / calls


class Taken(NamedTuple):
    """What a whole step took."""

    seconds: float
    cpu_seconds: float  # of all threads; less than `seconds` if others had the cores
    kernel_seconds: float  # of those, in the operating system: it clears and maps pages
    page_faults: int  # pages touched for the first time, nothing read from a disk


def plain_step(steps):
    """Take the next step, and tell what it took."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
    next(steps)
    seconds, after = perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    kernel = after.ru_stime - before.ru_stime
    cpu = after.ru_utime - before.ru_utime + kernel
    return Taken(seconds, cpu, kernel, after.ru_minflt - before.ru_minflt)


def timed_step(steps):
    """Take the next step with timers on; the seconds of its parts and the rest, and the calls."""
    with timers() as found:
        seconds = plain_step(steps).seconds
    parts = {**found.seconds, REST: seconds - sum(found.seconds.values())}
    return parts, found.calls


class Roof:
    """The products of a step, timed by themselves on operands that are already in memory."""

    def __init__(self, counts, rng):
        self.counts = counts
        self.seconds = {product: [] for product in counts}
        self.matrices = Matrices(counts, rng)

    def measure(self):
        """Make each product twice, and keep the time of the second."""
        for product, kept in self.seconds.items():
            self.matrices.multiply(product)
            started = perf_counter()
            self.matrices.multiply(product)
            kept.append(perf_counter() - started)

    def gflops(self, wanted=lambda product: True):
        """Operations per nanosecond of the wanted products, each as often as the step has it."""
        counts = {product: n for product, n in self.counts.items() if wanted(product)}
        done = sum(n * product.operations for product, n in counts.items())
        return done / sum(n * median(self.seconds[p]) for p, n in counts.items()) / 1e9


@contextmanager
def progress(console, what, total):
    """Show a bar; yields a function that moves it on, the only moment at which it draws."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, auto_refresh=False
    ) as bar:
        task = bar.add_task(what, total=total)
        bar.refresh()
        yield lambda: bar.update(task, advance=1, refresh=True)


def measure(options, console):
    """Take all steps, and return every number that is shown."""
    config, rng = MODELS[options.model], np.random.default_rng(options.seed)
    sizes = options.rows, options.segment, options.supervised, options.shared_preamble
    batch = make_batch(config, *sizes, rng)
    console.print(f"drawing {config.n_parameters:,} weights ...", highlight=False)
    parameters = initialise(config, rng)
    config_of_run = loop.TrainingConfig(WARM_UP + 2 * options.steps, 1e-4, WARM_UP, "linear")
    steps = take_steps(parameters, repeat([batch]), config_of_run)

    warm_up = []
    for number in range(1, WARM_UP + 1):
        taken = plain_step(steps)
        warm_up.append(taken)
        console.print(
            f"warm-up step {number} (not counted): {1e3 * taken.seconds:,.1f} ms, "
            f"{taken.page_faults:,} page faults",
            highlight=False,
        )
    peak = peak_memory()  # before the roof has operands

    plain, timed = [], []
    counts = matrix_products(config, batch)
    roof = Roof(counts, rng)
    with progress(console, "rounds", options.steps) as advance:
        for number in range(options.steps):
            kinds = [(plain, plain_step), (timed, timed_step)]
            for kept, take in kinds if number % 2 else reversed(kinds):
                kept.append(take(steps))
            roof.measure()
            advance()

    return {
        "machine": machine(),
        "options": vars(options) | {"json": str(options.json) if options.json else None},
        "step": summary(config, batch, plain, timed) | {"peak_memory_bytes": peak},
        "parts": parts_of(operations(config, batch), timed, roof),
        "roof": {
            "gflops": roof.gflops(),
            "products": [
                {
                    **product._asdict(),
                    "count": count,
                    "operations": product.operations,
                    "gflops": roof.gflops(product.__eq__),
                }
                for product, count in counts.items()
            ],
        },
        "raw": {
            "warm_up": [taken._asdict() for taken in warm_up],
            "plain": [taken._asdict() for taken in plain],
            "timed": [parts for parts, _ in timed],
        },
    }


def summary(config, batch, plain, timed):
    """The numbers of whole steps."""
    seconds = [taken.seconds for taken in plain]
    with_timers = [sum(parts.values()) for parts, _ in timed]
    step, rows, supervised = median(seconds), len(batch.ids), supervised_triples(batch)
    done = sum(operations(config, batch).values())
    return {
        "parameters": config.n_parameters,
        "rows": rows,
        "supervised": supervised,
        "visible_pairs": visible_pairs(batch),
        "operations": done,
        "seconds": step,
        "seconds_least": min(seconds),
        "seconds_most": max(seconds),
        "seconds_with_timers": median(with_timers),
        "timed_over_plain": median(t / s for t, s in zip(with_timers, seconds, strict=True)),
        "timers": timed[0][1],
        "seconds_per_timer": seconds_per_timer(),
        "gflops": done / step / 1e9,
        "rows_per_second": rows / step,
        "supervised_per_second": supervised / step,
        "cores_used": sum(taken.cpu_seconds for taken in plain) / sum(seconds),
        "page_faults": median(taken.page_faults for taken in plain),
        "kernel_seconds": median(taken.kernel_seconds for taken in plain),
    }


def parts_of(counted, timed, roof):
    """Seconds of every part, its counted operations, and the roof of its own products."""
    parts = {}
    for part in (*PARTS, REST):
        parts[part] = {"seconds": median(one[part] for one, _ in timed)}
        if part in counted:
            own = own_roof(part, roof)
            parts[part] |= {"operations": counted[part], "roof_gflops": own}
    return parts


def own_roof(part, roof):
    """GFLOP/s of the products that belong to a part; None for attention, which has none there."""
    wanted = {
        "linear products, forward": lambda p: p.layer != "wte" and p.form == "forward",
        "linear products, backward": lambda p: p.layer != "wte" and p.form != "forward",
        "loss with projection": lambda p: p.layer == "wte",
    }
    return roof.gflops(wanted[part]) if part in wanted else None


def machine():
    """What the numbers depend on."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cores_ours": own,
        "blas": [
            {
                "name": library["internal_api"],
                "version": library["version"],
                "kernels": library.get("architecture"),
                "threads": library["num_threads"],
            }
            for library in blas
        ],
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def machine_line(found):
    """The machine in one line."""
    blas = "; ".join(
        f"{b['name']} {b['version']} ({b['kernels']}), {b['threads']} thread(s)"
        for b in found["blas"]
    )
    return (
        f"{found['machine']}, {found['cores_ours']} of {found['cores']} cores; "
        f"BLAS: {blas or 'unknown'}; NumPy {found['numpy']}, Python {found['python']}"
    )


def parts_table(result):
    """The parts of a step; their sum stands beside what the timed steps took."""
    step, title = result["step"], f"One step of {result['options']['model']}, by part"
    table = Table(title=title)
    table.add_column("part", no_wrap=True)
    for heading in ("ms", "share", "GFLOP", "GFLOP/s", "roof of its products"):
        table.add_column(heading, justify="right")
    total = sum(part["seconds"] for part in result["parts"].values())
    for name, part in result["parts"].items():
        seconds, done, own = (part.get(k) for k in ("seconds", "operations", "roof_gflops"))
        work = (f"{done / 1e9:,.2f}", f"{done / seconds / 1e9:,.1f}") if done else ("", "")
        fraction = f"{done / seconds / own / 1e9:.0%} of {own:,.1f}" if own else ""
        table.add_row(name, f"{1e3 * seconds:,.2f}", f"{seconds / total:.1%}", *work, fraction)
    table.add_section()
    table.add_row("sum of the parts", f"{1e3 * total:,.2f}", "100.0%")
    table.add_row("step with timers", f"{1e3 * step['seconds_with_timers']:,.2f}")
    table.add_row(
        "[bold]plain step[/bold]",
        f"[bold]{1e3 * step['seconds']:,.2f}[/bold]",
        "",
        f"{step['operations'] / 1e9:,.2f}",
        f"[bold]{step['gflops']:,.1f}[/bold]",
        f"{step['gflops'] / result['roof']['gflops']:.0%} of {result['roof']['gflops']:,.1f}",
    )
    return table


def roof_table(result):
    """The products of a step by themselves."""
    table = Table(title="Roof: the step's matrix products by themselves, GFLOP/s")
    for heading in ("layer", "rows", "times a step"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "layer" else "right")
    for form in FORMS:
        table.add_column(form, justify="right")
    layers = {}
    for product in result["roof"]["products"]:
        rows = product["left"][0]
        found = layers.setdefault((product["layer"], rows, product["count"]), {})
        found[product["form"]] = f"{product['gflops']:,.1f}"
    for (name, rows, count), found in layers.items():
        table.add_row(name, f"{rows:,}", str(count), *(found[form] for form in FORMS))
    table.add_section()
    table.add_row("all, weighted", "", "", f"[bold]{result['roof']['gflops']:,.1f}[/bold]")
    return table


def lines(result):
    """What stands below the tables."""
    step, roof = result["step"], result["roof"]["gflops"]
    slower = step["timed_over_plain"] - 1
    timer = step["timers"] * step["seconds_per_timer"]
    memory = step["peak_memory_bytes"]
    yield (
        f"batch      {step['rows']:,} rows, {step['supervised']:,} supervised, "
        f"{step['visible_pairs']:,} visible pairs; {step['parameters']:,} parameters"
    )
    yield (
        f"step       {1e3 * step['seconds']:,.1f} ms, from {1e3 * step['seconds_least']:,.1f} to "
        f"{1e3 * step['seconds_most']:,.1f} over {result['options']['steps']} plain steps, "
        f"on {step['cores_used']:.2f} cores"
    )
    if step["cores_used"] < QUIET:
        yield (
            "[bold red]disturbed[/]  a step never waits, so with less than one core other programs "
            "had their share: run again"
        )
    yield (
        f"tokens/s   {step['rows_per_second']:,.0f} rows, "
        f"{step['supervised_per_second']:,.0f} supervised"
    )
    yield (
        f"roof       {roof:,.1f} GFLOP/s; the step reaches {step['gflops']:,.1f}, "
        f"{step['gflops'] / roof:.0%} of it"
    )
    yield (
        f"timers     {step['timers']} a step, {1e6 * step['seconds_per_timer']:.2f} µs each, "
        f"{timer / step['seconds']:.3%} of it; "
        f"timed steps against the plain ones of their rounds {slower:+.1%}"
    )
    yield (
        f"memory     {memory / 2**20:,.0f} MiB resident at most, "
        f"{step['page_faults']:,.0f} page faults a step, "
        f"{1e3 * step['kernel_seconds']:,.0f} ms of it in the operating system"
    )


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.step",
        description="Time the parts of an optimiser step, compared with the roof of the machine",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=MODELS, default="tiny", help="the size; its weights are random")
    add("--rows", type=int, default=2048, help="rows (tokens) of the batch")
    add("--segment", type=int, default=64, help="rows of each example")
    add("--supervised", type=float, default=0.3, help="share of an example that is supervised")
    add("--shared-preamble", type=int, default=0, help="rows that all examples go on from")
    add("--steps", type=int, default=7, help="plain steps, and as many timed ones")
    add("--seed", type=int, default=0, help="of weights and tokens")
    add("--json", type=Path, metavar="FILE", help="where to write every number")
    return parser


def parse(argv):
    """Read the command line; what can't be measured ends with a message."""
    parser = arguments()
    options = parser.parse_args(argv)
    context, preamble = MODELS[options.model].n_positions, options.shared_preamble
    if min(options.segment, options.steps) < 1 or preamble < 0:
        parser.error("--segment and --steps must be at least 1, --shared-preamble at least 0")
    if options.rows <= preamble:
        parser.error(f"--rows {options.rows} leaves no row after the preamble of {preamble}")
    if not 0 < options.supervised <= 1:
        parser.error(f"--supervised {options.supervised} is not a share: more than 0, at most 1")
    if preamble + options.segment > context:
        parser.error(f"preamble and segment have more than the model's {context} positions")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.absolute().parent}")
    return options


def main(argv=None):
    """Measure, print the tables, write the JSON file if one is named; return every number."""
    options = parse(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(machine_line(machine()), highlight=False)
    result = measure(options, console)
    for shown in (parts_table(result), roof_table(result), *lines(result)):
        console.print(shown, highlight=False)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {options.json}", highlight=False)
    return result


if __name__ == "__main__":
    main()
