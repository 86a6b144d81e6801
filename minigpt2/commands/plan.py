"""Plan: the memory and the time of a run, before it starts.

This is `minigpt2 plan`.  It prints the memory by part, the time of a step, and settings that fit
the machine.
"""

import shlex
from collections.abc import Callable
from functools import partial
from typing import Any

from rich.table import Table

from minigpt2.adapter_weights import check_shape, whole_model
from minigpt2.alignment.pairs import Pair
from minigpt2.commands.dataset import Kind, open_dataset, open_reader
from minigpt2.commands.pair_run import pairs_of
from minigpt2.commands.plan_settings import (
    CARRIED,
    ON_POLICY,
    PlanSettings,
    answer_tokens,
    batch_size_of,
    needs_of,
    samples_of,
)
from minigpt2.commands.plan_times import print_time
from minigpt2.errors import UserError, changed
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model_folders import find_model
from minigpt2.outputs import as_options
from minigpt2.planning.alignment_memory import counter_of
from minigpt2.planning.alignment_profile import profile_of_answers, profile_of_pairs
from minigpt2.planning.available import available_memory
from minigpt2.planning.batch_profile import BatchProfile, Choice, RunShape, choices, profile
from minigpt2.planning.device_memory import parts_counter
from minigpt2.planning.disk_space import DiskNeed, disk_need
from minigpt2.planning.memory_and_flops import MemoryOptions, PartsOf, peak
from minigpt2.planning.room import nothing_fits
from minigpt2.reports.progress import progress
from minigpt2.reports.screen import Screen, new_table
from minigpt2.tensors import folder_of
from minigpt2.wording import plural, size

__all__ = ["PlanSettings", "plan"]


def plan(settings: PlanSettings) -> dict[str, Any]:
    """Print the tables; return their numbers."""
    console = Screen()
    with progress(f"counting {settings.data or settings.model}"):
        config = open_config(settings.model)
        check_shape(config, settings.lora)
        shape = shape_of(settings, config)
        count = open_counter(settings)
        counted = count(shape)
    tuning = parts_counter(settings.device, settings.precision)

    def parts_for(shape: RunShape) -> PartsOf:
        return counter_of(tuning, needs_of(settings, shape.context))

    parts_of = parts_for(shape)
    available = available_memory(settings.device, settings.memory)
    dropout = settings.dropout > 0
    parts = {
        recompute: parts_of(config, counted.largest, MemoryOptions(recompute, dropout, shape.lora))
        for recompute in (False, True)
    }
    needed = peak(parts[shape.recompute])
    console.print(describe(settings, config, shape, counted))
    console.print(memory_table(parts))
    disk = disk_of(settings, config, shape)
    console.print(f"\nDisk: {disk}")
    console.print(f"\n{verdict(needed, available)}")
    numbers: dict[str, Any] = {
        "parts": parts[shape.recompute],
        "peak": needed,
        "available": available,
        "disk": disk._asdict(),
    }
    if available is not None and needed > available:
        fitting = (c for c in choices(config, shape, count, parts_for) if c.bytes <= available)
        choice = next(fitting, None)
        what = config, available, parts_of, shape.lora
        adapts = settings.run == "train"
        text = proposal(settings, choice) if choice else nothing_fits(*what, may_adapt=adapts)
        console.print(f"\n{text}")
        numbers["proposal"] = choice._asdict() if choice else None
        if not choice:
            return numbers
        shape = choice.shape
        counted = count(shape)
    return numbers | print_time(console, settings, config, shape, counted)


def open_config(model: str) -> GPT2Config:
    """Return a model's configuration; an official model needs no weights for it."""
    if model in OFFICIAL:
        return OFFICIAL[model]
    folder = whole_model(folder_of(find_model(model)))
    return GPT2Config.load(folder / "config.json")


def shape_of(settings: PlanSettings, config: GPT2Config) -> RunShape:
    """Return the shape of a run.  Raises UserError if the context is too long."""
    context = settings.context or config.n_positions
    if context > config.n_positions:
        raise UserError(f"context {context} is longer than the model's {config.n_positions}")
    batch_size = batch_size_of(settings)
    return RunShape(
        context=context,
        batch_size=batch_size,
        micro_batch=min(settings.micro_batch or batch_size, batch_size),
        recompute=settings.recompute,
        dropout=settings.dropout > 0,
        truncate=settings.truncate,
        loss_weights=settings.loss_weights(),
        validation=settings.validation,
        seed=settings.seed,
        lora=settings.lora,
    )


def open_counter(settings: PlanSettings) -> Callable[[RunShape], BatchProfile]:
    """Return what counts the rows of the micro-batches of the run that is planned."""
    if settings.run in ON_POLICY:

        def count_answers(shape: RunShape) -> BatchProfile:
            answer = answer_tokens(settings, shape.context)
            sizes = shape.context - answer, answer, samples_of(settings)
            return profile_of_answers(shape, *sizes, shared=settings.run == "grpo")

        return count_answers
    if not settings.data:
        pairs = settings.run != "train"
        return profile_of_pairs if pairs else partial(profile, examples=[])
    kind: Kind = "questions" if settings.run == "train" else "pairs"
    dataset = open_dataset(settings, open_reader(settings.model), kind)
    if settings.run == "train":
        return partial(profile, examples=dataset.encode(dataset.records))

    def read(context: int) -> list[Pair]:
        return pairs_of(dataset.records, dataset._replace(context=context), dataset.name).pairs

    return partial(profile_of_pairs, read=read)


def verdict(needed: int, available: int | None) -> str:
    """Return whether it fits, in words."""
    if available is None:
        return f"needs {size(needed)}: --memory tells whether that fits"
    answer = "fits" if needed <= available else "does not fit"
    return f"needs {size(needed)} of {size(available)}: {answer}"


def describe(
    settings: PlanSettings, config: GPT2Config, shape: RunShape, counted: BatchProfile
) -> str:
    """Return two lines that describe the planned run."""
    items = {"train": "examples", "reward": "pairs", "dpo": "pairs"}.get(settings.run)
    items = items or f"prompts with {plural(samples_of(settings), 'answer')} each"
    data = settings.data or f"{items} that fill the context of {shape.context:,}"
    rows, supervised = counted.largest
    epoch = f"an epoch has {plural(counted.steps, 'step')}; " if settings.data else ""
    return (
        f"{settings.model}: {plural(config.n_parameters, 'parameter')}; {data}, batch "
        f"{shape.batch_size}, micro-batch {shape.micro_batch}\n"
        f"{epoch}a micro-batch has at most {plural(rows, 'row')}, {supervised:,} supervised"
    )


def memory_table(parts: dict[bool, dict[str, int]]) -> Table:
    """Return the memory by part, without and with recomputation."""
    table = new_table("\nMemory at the peak", "", "without recompute", "with recompute")
    for name in parts[False]:
        table.add_row(name, *(size(parts[recompute][name]) for recompute in (False, True)))
    table.add_row("together", *(size(peak(parts[recompute])) for recompute in (False, True)))
    return table


def disk_of(settings: PlanSettings, config: GPT2Config, shape: RunShape) -> DiskNeed:
    """Return what the run's checkpoints take on the disk."""
    drawn = settings.run in ON_POLICY
    validates = settings.validation > 0 and not drawn
    accumulates = shape.micro_batch < shape.batch_size
    models = 1 + needs_of(settings, shape.context).trained
    sizes: dict[str, Any] = {"keep": settings.keep, "models": models, "lora": shape.lora}
    sizes["merges"] = settings.lora_merge
    return disk_need(config, **sizes, validates=validates, accumulates=accumulates)


def proposal(settings: PlanSettings, choice: Choice) -> str:
    """Return the command that trains with a shape that fits.

    What the user is to fill in is in capitals: data, and what rewards answers.
    """
    shape, micro_batch = choice.shape, choice.shape.micro_batch
    options: dict[str, Any] = {"model": settings.model, "context": shape.context}
    if settings.run in ON_POLICY:
        answers, longest = samples_of(settings), answer_tokens(settings, shape.context)
        options |= {"check": "CHECK"} if settings.check else {"reward_model": "FOLDER"}
        options |= {"value": settings.value} if settings.run == "ppo" else {}
        options |= {"prompts": shape.batch_size, "answers": answers, "max_new_tokens": longest}
        # The micro-batches of ppo are counted in answers.
        micro_batch *= answers if settings.run == "ppo" else 1
    else:
        options |= {"batch_size": shape.batch_size}
    options |= {"micro_batch": micro_batch, "recompute": shape.recompute}
    line = [settings.run, shlex.quote(settings.data or "DATA")]
    line += as_options(options | changed(settings, CARRIED))
    return f"this fits, in {size(choice.bytes)}:\n  minigpt2 {' '.join(line)}"
