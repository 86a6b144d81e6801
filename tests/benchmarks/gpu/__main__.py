"""Training on a GPU beside PyTorch: `make bench-gpu`.

Every contender has a process of its own and the same weights and batches, which are prepared before
anything is timed.  Losses are compared first, step by step; a contender that disagrees is not
timed.  Then they take steps in turns, and medians count.  PyTorch gets 25 steps of warm-up where
shapes vary, since it loads kernels for each new one, and whichever of its attention kernels is
faster.  TF32 is off for all.  The floor is what the job's operations and bytes take at the card's
rates (floors.py), and the share is how much of a step's time that is.
"""

import argparse
import json
import sys
import tempfile
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console

from minigpt2.commands.dataset import ALMANAC
from minigpt2.device.devices import open_device
from minigpt2.errors import UserError
from minigpt2.model.initialisation import initialise
from minigpt2.weights import save_parameters
from tests.benchmarks.gpu.cards import card_of
from tests.benchmarks.gpu.floors import floors_of
from tests.benchmarks.gpu.jobs import FULL, JOBS, SHORT, groups_of, plan_of
from tests.benchmarks.gpu.race import OURS, Race, summed_up, timed_steps
from tests.benchmarks.gpu.table import table_of
from tests.benchmarks.peers.__main__ import HERE
from tests.benchmarks.peers.jobs import forest_of

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Weights:
    """Random weights of a model in a folder, made when they are first needed."""

    def __init__(self, folder, config, name):
        self.path, self._config = str(Path(folder) / name), config

    def make(self):
        """Write them, unless they are there."""
        if not (Path(self.path) / "model.safetensors").exists():
            Path(self.path).mkdir(exist_ok=True)
            save_parameters(initialise(self._config, np.random.default_rng(0)), Path(self.path))


@contextmanager
def weights_folder(path):
    """A folder for weights: this one, which stays, or one for the time of the run."""
    if path:
        Path(path).mkdir(parents=True, exist_ok=True)
        yield path
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield folder


class Bench:
    """The jobs, one after the other."""

    def __init__(self, options, console):
        self.options, self.console = options, console
        self.effort = SHORT if options.short else FULL
        self.library = open_device(options.device)
        self.how = HERE._replace(device=options.device)
        self.cards, self.results = {}, []

    def say(self, text):
        """Print a line with the time since the start."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def run(self, folder):
        """All jobs; keeps what is known after each."""
        for spec in self.options.jobs:
            started = perf_counter()
            plan = self.present(plan_of(spec, self.options.data, self.effort))
            card = self.card(plan.precision)
            self.say(f"{plan.job.name}; {card.described(plan.precision)}")
            weights = Weights(folder, plan.job.config, spec.split("/")[0])
            self.results.append(self.measure(plan, weights, card))
            self.say(f"  {perf_counter() - started:.0f} s in all")
            self.keep()

    def present(self, plan):
        """The plan with those contenders that were chosen and can run."""
        names = [n for n in plan.contenders if n in (self.options.contenders or plan.contenders)]
        if not (find_spec("torch") and find_spec("transformers")):
            self.say("torch and transformers are not installed: without PyTorch's contenders")
            names = [name for name in names if not name.startswith("PyTorch")]
        return plan._replace(contenders=tuple(names))

    def card(self, precision):
        """The card, measured once in each precision."""
        if precision not in self.cards:
            self.cards[precision] = card_of(self.library, precision)
        return self.cards[precision]

    def measure(self, plan, weights, card):
        """Everything about one job."""
        effort, measured = self.effort, {}
        numbers = timed_steps(plan, effort.turns, effort.steps)
        batches = [forest_of(plan.job.batches[number]) for number in numbers]
        size = BYTES[plan.precision]
        parts = [floors_of(plan.job.config, batch, size, card.rates) for batch in batches]
        floor = [sum(part.values()) for part in parts]
        how = self.how._replace(precision=plan.precision)
        for names in groups_of(plan, self.free_memory()):
            race = Race(plan, names, weights, how, self.options.patience, self.say)
            try:
                race.compare()
                race.take_turns(effort.turns, effort.steps)
                race.finish(self.profiled(plan, names), effort.profiled)
            finally:
                race.end()
            ours = race.measured.get(OURS, {})
            for name, own in race.measured.items():
                measured.setdefault(name, summed_up(plan, own, ours, numbers, floor))
        return {
            "job": plan.job.name,
            "spec": plan.spec,
            "card": card._asdict(),
            "floors": parts[0],
            "contenders": measured,
        }

    def profiled(self, plan, names):
        """The contenders whose time by kernel is measured: all where shapes vary, else ours."""
        if not self.how.on_gpu or not find_spec("torch"):
            return ()
        return names if plan.varying else (OURS,)

    def free_memory(self):
        """Bytes of the GPU's memory that contenders may take."""
        return self.library.cuda.runtime.memGetInfo()[0] if self.how.on_gpu else float("inf")

    def keep(self):
        """Write what is known so far, so that a run that is stopped loses one job."""
        if self.options.json:
            text = json.dumps(self.results, indent=1, default=float)
            self.options.json.write_text(text + "\n", encoding="utf-8")

    def title(self):
        """The card and the versions."""
        packages = [p for p in ("torch", "transformers") if find_spec(p)]
        versions = [f"{package} {version(package)}" for package in packages]
        name = next(iter(self.cards.values())).name
        return "; ".join([f"Training steps on {name}", *versions, "TF32 off"])


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu",
        description="Training steps on a GPU beside PyTorch's",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--jobs", nargs="*", default=list(JOBS), help="MODEL/PRECISION/4x1024 or .../batch32")
    add("--data", default=ALMANAC, help="questions and answers of the jobs with batches")
    add("--short", action="store_true", help="fewer turns and compilations: about three minutes")
    add("--device", default="cuda", choices=["cuda", "emulated"], help="where all compute")
    add("--contenders", nargs="*", help="only these (default: all of a job)")
    add("--patience", type=float, default=120, help="seconds that no answer may take")
    add("--json", type=Path, metavar="FILE", help="where to write every number")
    add("--weights", metavar="FOLDER", help="where random weights are kept for the next run")
    return parser


def main(argv=None):
    """Measure, and print the table; returns 1 if a contender failed."""
    options = arguments().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        bench = Bench(options, console)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with weights_folder(options.weights) as folder:
        bench.run(folder)
    console.print(table_of(bench.results, bench.title()))
    return int(any("failed" in c for r in bench.results for c in r["contenders"].values()))


if __name__ == "__main__":
    sys.exit(main())
