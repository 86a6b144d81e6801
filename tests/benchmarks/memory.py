"""Memory and time of a step next to what `minigpt2 plan` says: `python -m tests.benchmarks.memory`.

The steps are those of training, on random weights and tokens, every token supervised; the peak is
the resident memory of the whole process.  With nothing else said it is the case that Large is
measured by: one sequence of 1,024 tokens, blocks recomputed.
"""

import argparse
import sys
from itertools import repeat

import numpy as np
from rich.console import Console
from rich.table import Table

from minigpt2.memory import peak_memory
from minigpt2.model.adapters import LoRA, with_adapters
from minigpt2.model.initialisation import initialise
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, memory, peak
from minigpt2.planning.microbenchmark import time_step
from minigpt2.training.config import TrainingConfig
from tests.benchmarks.work import MODELS, make_batch
from tests.stepping import take


def measured(config, rows, segment, recompute=False, dropout=0.0, steps=2, lora=None):
    """Bytes that plan foretells by part, bytes at the peak, and the seconds of the last step."""
    rng = np.random.default_rng(0)
    options = MemoryOptions(recompute, dropout > 0, lora)
    parts = memory(config, MicroBatch(rows, rows), options, peak_memory())
    batch = make_batch(config, rows, segment, 1.0, 0, rng)
    options = TrainingConfig(steps, 1e-4, 1, "linear", dropout=dropout, recompute=recompute)
    parameters = initialise(config, rng)
    parameters = with_adapters(parameters, lora, rng) if lora else parameters
    taken = list(take(parameters, repeat([batch]), options))
    return parts, peak_memory(), taken[-1].seconds


def show(console, options, parts, found, seconds, foretold):
    """Print all of it."""
    table = Table(title=f"{options.model}, {options.rows:,} rows", title_justify="left", box=None)
    table.add_column("")
    table.add_column("MB", justify="right")
    for name, number in parts.items():
        table.add_row(name, f"{number / 1e6:,.0f}")
    table.add_row("plan: together", f"{peak(parts) / 1e6:,.0f}")
    table.add_row("measured peak", f"{found / 1e6:,.0f}")
    console.print(table)
    console.print(f"plan / measured: {peak(parts) / found:.3f} of memory", highlight=False)
    console.print(
        f"a step: plan {foretold:,.1f} s, measured {seconds:,.1f} s, "
        f"plan / measured: {foretold / seconds:.2f}",
        highlight=False,
    )


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.memory",
        description="Memory and time of a training step, next to what plan says",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", choices=MODELS, default="gpt2-large", help="the size")
    parser.add_argument("--rows", type=int, default=1024, help="rows (tokens) of the batch")
    parser.add_argument("--segment", type=int, default=1024, help="rows of each example")
    parser.add_argument("--keep", action="store_true", help="keep activations: do not recompute")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--lora-rank", type=int, default=0, help="train adapters alone; 0: all")
    return parser


def main(argv=None):
    """Measure and print; return 1 if memory is more than a tenth off."""
    options = arguments().parse_args(argv)
    config = MODELS[options.model]
    sizes = options.rows, min(options.segment, options.rows, config.n_positions)
    again = not options.keep
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.status("taking the steps"):
        lora = LoRA(options.lora_rank, 16) if options.lora_rank else None
        run = again, options.dropout, options.steps, lora
        parts, found, seconds = measured(config, *sizes, *run)
    with console.status("timing a block"):
        load, rng = MicroBatch(options.rows, options.rows), np.random.default_rng(0)
        times = time_step(config, load, sizes[1], rng, lora)
        foretold = times.step(layers=config.n_layer, micro_batches=1, recompute=again)
    show(console, options, parts, found, seconds, foretold)
    return 0 if abs(peak(parts) / found - 1) <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
