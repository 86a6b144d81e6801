"""Where a step spends the GPU's time, kernel by kernel, beside its floor: `make profile-gpu`.

The times are CUPTI's, through PyTorch's profiler; the wall time is that of steps without it.  All
kernels are in one stream here: next to another a kernel takes longer than it would alone.
"""

import argparse
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minigpt2.commands.dataset import ALMANAC
from minigpt2.device.devices import open_device
from minigpt2.errors import UserError
from tests.benchmarks.gpu.__main__ import BYTES, Weights, weights_folder
from tests.benchmarks.gpu.cards import card_of
from tests.benchmarks.gpu.floors import loads_of
from tests.benchmarks.gpu.jobs import JOBS, Effort, plan_of
from tests.benchmarks.gpu.race import Race, summed_up, timed_steps
from tests.benchmarks.peers.__main__ import HERE
from tests.benchmarks.peers.jobs import forest_of

OURS = "ours, in one stream"
PRODUCTS, OTHER = "products", "no floor of their own"
# The part of a step to which a kernel belongs: the first whose pattern its name has.
PARTS = {
    "attention, forward": r"attention\w*forward",
    "attention, backward": r"attention",
    "layer norm": r"layer_norm",
    "GELU": r"gelu",
    "cross-entropy": r"cross_entropy",
    "AdamW and norm": r"adamw|squares|global_norm",
    "embedding": r"embedding|gather_rows",
    PRODUCTS: r"gemm|nvjet|cutlass|cublas|xmma|splitK",
    OTHER: "",
}
LONGEST = 60  # characters of a name
MOST = 8  # kernels of a part that are shown one by one


class Part:
    """A part of a step: its kernels, and what it has to do."""

    def __init__(self, loads, rates):
        self.operations = sum(load.times * load.operations for load in loads)
        self.bytes = sum(load.times * load.bytes for load in loads)
        self.floor = sum(load.seconds(rates) for load in loads)
        self.kernels = {}

    @property
    def seconds(self):
        """The GPU's time in its kernels."""
        return sum(total for _, total in self.kernels.values()) / 1e6


def parts_of(kernels, loads, rates):
    """name -> part, with the kernels of a step sorted into them."""
    both = [loads.pop(name) for name in list(loads) if name.startswith(PRODUCTS)]
    loads[PRODUCTS] = [load for own in both for load in own]
    parts = {name: Part(loads.get(name, []), rates) for name in PARTS}
    for kernel, times in kernels.items():
        name = next(name for name, pattern in PARTS.items() if re.search(pattern, kernel))
        parts[name].kernels[kernel] = times
    return parts


def table_of(parts, title, busy):
    """Each part with its floor, and below it its kernels; the longest first."""
    table = Table(title=title, box=None, title_justify="left")
    table.add_column("kernel", no_wrap=True)
    heads = ("times", "µs each", "ms", "share", "GFLOP", "MB", "floor, ms", "of the floor")
    for column in heads:
        table.add_column(column, justify="right", no_wrap=True)
    for name, part in sorted(parts.items(), key=lambda pair: -pair[1].seconds):
        if not part.kernels:
            continue
        count = sum(times for times, _ in part.kernels.values())
        style = "bold"
        table.add_row(name, *cells_of(count, part.seconds, busy), *floor_of(part), style=style)
        kernels = sorted(part.kernels.items(), key=lambda pair: -pair[1][1])
        for kernel, (times, total) in kernels[:MOST]:
            table.add_row(f"  {short(kernel)}", *cells_of(times, total / 1e6, busy))
        if rest := [times for _, times in kernels[MOST:]]:
            times, total = map(sum, zip(*rest, strict=True))
            table.add_row(f"  {len(rest)} others", *cells_of(times, total / 1e6, busy))
    return table


def cells_of(times, seconds, busy):
    """How often, how long each, how long in all, and which share of the GPU's time that is."""
    each = seconds / times * 1e6
    return f"{times:,.1f}", f"{each:,.1f}", f"{seconds * 1e3:,.3f}", f"{seconds / busy:.1%}"


def floor_of(part):
    """What a part has to do, the least time of it, and how much of its time that is."""
    if not part.floor:
        return "", "", "", ""
    work = f"{part.operations / 1e9:,.0f}" if part.operations else ""
    share = f"{part.floor / part.seconds:.0%}"
    return work, f"{part.bytes / 1e6:,.0f}", f"{part.floor * 1e3:,.3f}", share


def short(kernel):
    """A kernel's name without its C++ parameters, of a length that fits."""
    name = re.sub(r"^void |\(.*", "", kernel)
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def show(plan, weights, how, card, options, console):
    """Measure a job and print its table; returns its numbers."""
    say = lambda text: console.print(text, highlight=False, markup=False)  # noqa: E731
    race = Race(plan, (OURS,), weights, how, options.patience, say)
    try:
        race.compare()
        race.take_turns(1, options.steps)
        race.finish((OURS,), options.steps)
    finally:
        race.end()
    measured = race.measured[OURS]
    if "kernels" not in measured:
        raise UserError(measured.get("failed") or measured.get("no_kernels", "nothing to measure"))
    numbers = timed_steps(plan, 1, options.steps)
    loads = loads_of(plan.job.config, forest_of(plan.job.batches[-1]), BYTES[plan.precision])
    parts = parts_of(measured["kernels"], loads, card.rates)
    floor = sum(part.floor for part in parts.values())
    measured = summed_up(plan, measured, {}, numbers, [floor] * len(numbers))
    busy, wall = measured["busy"], measured["median"]
    title = (
        f"{plan.job.name}: GPU busy {busy * 1e3:.2f} ms of {wall * 1e3:.2f}, "
        f"floor {floor * 1e3:.2f}\n{card.described(plan.precision)}"
    )
    console.print(table_of(parts, title, busy))
    of_parts = {name: (part.seconds, part.floor) for name, part in parts.items() if part.kernels}
    return {"job": plan.job.name, "card": card._asdict(), **measured, "parts": of_parts}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu.profile",
        description="The GPU's time of a step by kernel",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("jobs", nargs="*", default=list(JOBS[:3]), help="MODEL/PRECISION/4x1024 or .../batch32")
    add("--data", default=ALMANAC, help="questions and answers of the jobs with batches")
    add("--steps", type=int, default=5, help="steps under the profiler")
    add("--device", default="cuda", choices=["cuda", "emulated"])
    add("--patience", type=float, default=120, help="seconds that no answer may take")
    add("--json", type=Path, metavar="FILE", help="where to write every number")
    add("--weights", metavar="FOLDER", help="where random weights are kept for the next run")
    return parser


def main(argv=None):
    """Profile each job."""
    options = arguments().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    results, how = [], HERE._replace(device=options.device)
    try:
        library = open_device(options.device)
        if not find_spec("torch"):
            raise UserError("kernels are timed through PyTorch's profiler: install torch")
        with weights_folder(options.weights) as folder:
            for spec in options.jobs:
                plan = plan_of(
                    spec, options.data, Effort(1, options.steps, 6, 25, options.steps, "")
                )
                card = card_of(library, plan.precision)
                weights = Weights(folder, plan.job.config, spec.split("/")[0])
                on = how._replace(precision=plan.precision)
                results.append(show(plan, weights, on, card, options, console))
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1, default=float) + "\n")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
