"""Times of plan: the time and the operations of a step, of an epoch and of a rollout."""

from typing import Any

import numpy as np

from minigpt2.commands.plan_settings import ON_POLICY, PlanSettings, needs_of
from minigpt2.model.config import GPT2Config
from minigpt2.planning.alignment_memory import (
    TUNING,
    Needs,
    rollout_numbers,
    rollout_operations,
    scores_numbers,
    step_operations,
)
from minigpt2.planning.available import memory_of_machine
from minigpt2.planning.batch_profile import BatchProfile, RunShape
from minigpt2.planning.memory_and_flops import NUMBER, crossing
from minigpt2.planning.microbenchmark import StepTimes, bytes_to_time, time_step
from minigpt2.reports.progress import progress
from minigpt2.reports.screen import Screen
from minigpt2.wording import duration, plural, size


def print_time(
    console: Screen,
    settings: PlanSettings,
    config: GPT2Config,
    shape: RunShape,
    counted: BatchProfile,
) -> dict[str, Any]:
    """Time a block, and print what a step and an epoch take; return the seconds."""
    if settings.run in ON_POLICY:
        return {"operations": print_operations_on_policy(console, settings, config, shape, counted)}
    if not settings.time or settings.device != "cpu":
        return {}
    to_time = bytes_to_time(config, counted.typical, counted.length)
    if to_time > memory_of_machine().free:
        console.print(f"not timed: a block of this micro-batch takes {size(to_time)} here")
        return {}
    with progress("timing a block"):
        rng = np.random.default_rng(settings.seed)
        times = time_step(config, counted.typical, counted.length, rng)
    needs = needs_of(settings, shape.context)
    times = times._replace(loss=times.loss * needs.projections / TUNING)
    numbers: dict[str, Any] = {**print_times(console, config, shape, counted, times, needs)}
    if settings.data:
        numbers["epoch"] = counted.steps * numbers["step"]
        console.print(f"an epoch takes about {duration(numbers['epoch'])}")
    return numbers


def print_times(
    console: Screen,
    config: GPT2Config,
    shape: RunShape,
    counted: BatchProfile,
    times: StepTimes,
    needs: Needs,
) -> dict[str, float]:
    """Print the time of a step and its operations; return the seconds by part."""
    micro_batches = counted.all_micro_batches / counted.steps
    step = times.step(layers=config.n_layer, micro_batches=micro_batches, recompute=shape.recompute)
    loss = micro_batches * times.loss
    seconds = {
        "step": step,
        "blocks": step - loss - times.adamw,
        "loss": loss,
        "adamw": times.adamw,
    }
    console.print(
        f"\na step takes about {duration(step)}: {duration(seconds['blocks'])} in the blocks, "
        f"{duration(loss)} in the loss, {duration(times.adamw)} in AdamW, with micro-batches of "
        f"{shape.micro_batch}"
    )
    counts = step_operations(config, counted.typical, counted.length, shape.recompute, needs)
    print_operations(console, config, counts, micro_batches)
    return seconds


def print_operations(
    console: Screen, config: GPT2Config, counts: dict[str, float], micro_batches: float
) -> None:
    """Print the operations of a step, and of a micro-batch by part."""
    total = sum(counts.values())
    console.print(
        f"{micro_batches * total / 1e9:,.0f} billion operations a step, {total / 1e9:,.0f} a "
        f"micro-batch: {counts['products'] / total:.0%} matrix products, "
        f"{counts['attention'] / total:.0%} attention (the two would be equal at "
        f"{plural(round(crossing(config)), 'token')}), {counts['projection'] / total:.0%} loss"
    )


def print_operations_on_policy(
    console: Screen,
    settings: PlanSettings,
    config: GPT2Config,
    shape: RunShape,
    counted: BatchProfile,
) -> dict[str, float]:
    """Print the operations of a step and of a rollout, and return them."""
    needs, micro_batches = needs_of(settings, shape.context), counted.all_micro_batches
    counts = step_operations(config, counted.typical, counted.length, shape.recompute, needs)
    drawn = rollout_operations(config, needs, values=settings.run == "ppo")
    print_operations(console, config, counts, micro_batches)
    console.print(f"{drawn / 1e9:,.0f} billion operations to draw and score a rollout")
    cache, read = (NUMBER * f(config, needs) for f in (rollout_numbers, scores_numbers))
    console.print(
        f"drawing answers takes {size(cache)} for keys, values and logits, scoring them "
        f"{size(read)}, both in place of a step's activations and workspace"
    )
    return {"step": micro_batches * sum(counts.values()), "rollout": drawn}
