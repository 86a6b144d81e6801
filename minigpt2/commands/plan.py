"""Plan: what a run will need, before it is started.

This is `minigpt2 plan`: memory by part, the time of a step, and settings that fit the machine.
"""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from minigpt2.commands.dataset import open_examples
from minigpt2.memory import peak_memory
from minigpt2.model.config import OFFICIAL
from minigpt2.planning.batch_profile import Choice, Job, PlanSettings, choices, config_of, job_of
from minigpt2.planning.memory_and_flops import How, Load, crossing, memory, operations, peak
from minigpt2.planning.microbenchmark import Rehearsed, rehearse

LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def plan(settings: PlanSettings) -> dict[str, Any]:
    """Print the tables; return their numbers."""
    console = Console(highlight=False, soft_wrap=True)
    with console.status(f"counting {settings.data or settings.model}"):
        config = config_of(settings)
        examples = open_examples(settings).examples if settings.data else []
        job = job_of(settings, config, examples)
    program = peak_memory() or 0
    room = int(settings.memory * 1e9) if settings.memory else room_left()
    fitting = next((c for c in choices(settings, job, examples, program) if c.bytes <= room), None)
    parts = {
        again: memory(config, job.largest, How(again, settings.dropout > 0), program)
        for again in (False, True)
    }
    needed = peak(parts[settings.recompute])
    fits = needed <= room
    console.print(describe(settings, job), markup=False)
    console.print(memory_table(parts))
    verdict = "fits" if fits else "does not fit"
    console.print(f"\nneeds {size(needed)} of {size(room)}: {verdict}")
    numbers = {"parts": parts[settings.recompute], "peak": needed, "room": room}
    if not fits:
        console.print(proposal(settings, job, room, program, fitting), markup=False)
        numbers["proposal"] = fitting._asdict() if fitting else None
        if not fitting:
            return numbers
        settings = fitting.put_into(settings)
        job = job_of(settings, config, examples)
    if settings.time:
        with console.status("rehearsing a block"):
            rng = np.random.default_rng(settings.seed)
            rehearsed = rehearse(config, job.typical, job.length, rng)
        numbers |= tell_time(console, settings, job, rehearsed)
    return numbers


def size(number: float) -> str:
    """Return bytes as one reads them."""
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"


def room_left() -> int:
    """Return the bytes that this machine, or the container that this is, has left."""
    room = int(psutil.virtual_memory().available)
    limit = LIMIT.read_text().strip() if LIMIT.exists() else "max"
    return room if limit == "max" else min(room, int(limit))


def describe(settings: PlanSettings, job: Job) -> str:
    """Return what is planned, in a line or two."""
    most = job.largest
    what = settings.data or f"examples of {job.context:,} tokens"
    return (
        f"{settings.model}: {job.config.n_parameters:,} parameters; {what}, batch "
        f"{settings.batch_size}, micro-batch {settings.at_once}\n"
        f"a micro-batch has at most {most.rows:,} rows, {most.supervised:,} supervised"
    )


def memory_table(parts: dict[bool, dict[str, int]]) -> Table:
    """Return the memory by part, without recomputation and with it."""
    table = Table(title="\nMemory at the peak", title_justify="left", title_style="bold")
    table.box, table.header_style = None, "dim"
    for number, name in enumerate(("", "as it is", "with recompute")):
        table.add_column(name, justify="right" if number else "left")
    for name in parts[False]:
        table.add_row(name, *(size(parts[again][name]) for again in (False, True)))
    table.add_row("together", *(size(peak(parts[again])) for again in (False, True)))
    return table


def tell_time(
    console: Console, settings: PlanSettings, job: Job, rehearsed: Rehearsed
) -> dict[str, float]:
    """Print the time of a step, and of an epoch where there is data; return what was told."""
    micro_batches = len(job.loads) / job.steps
    step = rehearsed.step(job.config.n_layer, micro_batches, settings.recompute)
    loss = micro_batches * rehearsed.loss
    blocks = step - loss - rehearsed.adamw
    told = {"step": step, "blocks": blocks, "loss": loss, "adamw": rehearsed.adamw}
    done = operations(job.config, job.typical, job.length, settings.recompute)
    total = sum(done.values())
    console.print(
        f"\na step takes about {span(step)}: {span(blocks)} in the blocks, {span(loss)} in the "
        f"loss, {span(rehearsed.adamw)} in AdamW, with {settings.at_once} at once"
    )
    console.print(
        f"{micro_batches * total / 1e9:,.0f} billion operations a step, {total / 1e9:,.0f} a "
        f"micro-batch: {done['products'] / total:.0%} in the blocks' products, "
        f"{done['attention'] / total:.0%} in attention (as many only at "
        f"{crossing(job.config):,.0f} tokens), {done['projection'] / total:.0%} in the loss"
    )
    if settings.data:
        told["epoch"] = job.steps * step
        console.print(f"an epoch has {job.steps:,} steps: about {span(told['epoch'])}")
    return told


def span(seconds: float) -> str:
    """Return a time as one reads it."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def proposal(
    settings: PlanSettings, job: Job, room: int, program: int, fitting: Choice | None
) -> str:
    """Return the command that trains with settings that fit, or what would."""
    if fitting:
        data = f"--data {settings.data} " if settings.data else ""
        return (
            f"\nthis fits, in {size(fitting.bytes)}:\n  minigpt2 train "
            f"--model {settings.model} {data}--context {fitting.context} "
            f"--batch-size {settings.batch_size} --micro-batch {fitting.micro_batch} "
            f"--recompute {str(fitting.recompute).lower()}"
        )
    least = sum(memory(job.config, Load(0, 0), How(), program).values())
    smaller = [name for name, c in OFFICIAL.items() if 16 * c.n_parameters + program < room]
    hint = f"; {smaller[-1]} would" if smaller else ""
    return f"\nnothing fits: weights, gradients and moments alone take {size(least)}{hint}"
