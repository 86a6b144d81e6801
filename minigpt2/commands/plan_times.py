"""Times of plan: the time and the operations of a step, of an epoch and of a rollout."""

from math import ceil
from typing import Any

import numpy as np

from minigpt2.commands.plan_settings import ON_POLICY, PlanSettings, needs_of
from minigpt2.model.config import GPT2Config
from minigpt2.planning.alignment_memory import (
    TUNING,
    Needs,
    rollout_numbers,
    scores_numbers,
    written_at_once,
)
from minigpt2.planning.alignment_operations import rollout_operations, step_operations
from minigpt2.planning.available import memory_of_machine
from minigpt2.planning.batch_profile import BatchProfile, RunShape
from minigpt2.planning.memory_and_flops import NUMBER, crossing
from minigpt2.planning.microbenchmark import StepTimes, bytes_to_time, time_step, time_token
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
    """Time a block, and print what a step, an epoch and a rollout take; return the seconds."""
    numbers: dict[str, Any] = {}
    on_policy = settings.run in ON_POLICY
    if on_policy:
        counts = print_operations_on_policy(console, settings, config, shape, counted)
        numbers["operations"] = counts
    if not settings.time or settings.device != "cpu":
        return numbers
    to_time = bytes_to_time(config, counted.typical, counted.length, shape.lora)
    if to_time > memory_of_machine().free:
        console.print(f"not timed: a block of this micro-batch takes {size(to_time)} here")
        return numbers
    with progress("timing a block"):
        rng = np.random.default_rng(settings.seed)
        times = time_step(config, counted.typical, counted.length, rng, shape.lora)
    needs = needs_of(settings, shape.context)
    if on_policy:
        numbers["rollout"] = print_rollout(console, settings, config, counted, times, needs)
    times = times._replace(loss=times.loss * needs.projections / TUNING)
    numbers |= print_times(console, config, shape, counted, times, needs)
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
    models = 1 + needs.trained
    times = times._replace(
        forward=times.forward * models,
        backward=times.backward * models,
        backward_with_recomputation=times.backward_with_recomputation * models,
        adamw=times.adamw * models,
    )
    step = times.step(layers=config.n_layer, micro_batches=micro_batches, recompute=shape.recompute)
    loss = micro_batches * times.loss
    seconds = {
        "step": step,
        "blocks": step - loss - times.adamw,
        "loss": loss,
        "adamw": times.adamw,
    }
    what = "a pass over them" if needs.answers else "a step"
    console.print(
        f"\n{what} takes about {duration(step)}: {duration(seconds['blocks'])} in the blocks, "
        f"{duration(loss)} in the loss, {duration(times.adamw)} in AdamW, with micro-batches of "
        f"{shape.micro_batch}"
    )
    if not needs.answers:  # else they were printed before
        sizes = counted.typical, counted.length, shape.memory_options
        counts = step_operations(config, *sizes, needs)
        print_operations(console, config, counts, micro_batches)
    return seconds


def print_rollout(
    console: Screen,
    settings: PlanSettings,
    config: GPT2Config,
    counted: BatchProfile,
    times: StepTimes,
    needs: Needs,
) -> dict[str, float]:
    """Time a token, and print what a rollout takes; return the seconds by part."""
    at_once, tokens = written_at_once(config, needs), needs.rows - needs.prompt
    with progress("timing a token"):
        rng = np.random.default_rng(settings.seed)
        token = time_token(config, at_once, needs.rows - tokens // 2, rng)
    prompts = needs.answers // needs.samples * needs.prompt  # rows
    readers = len(needs.read) + (settings.run == "ppo")  # that one reads the values
    rows = prompts + readers * needs.size_of(needs.answers).rows
    seconds = {
        "draw": token.draw(
            layers=config.n_layer, groups=ceil(needs.answers / at_once), tokens=tokens
        ),
        "read": times.read(
            layers=config.n_layer,
            rows=rows / counted.typical.rows,
            triples=needs.answers * tokens / counted.typical.supervised,
        ),
    }
    console.print(
        f"\na rollout takes about {duration(sum(seconds.values()))}: {duration(seconds['draw'])} "
        f"to draw {plural(needs.answers, 'answer')} of {plural(tokens, 'token')}, "
        f"{duration(seconds['read'])} to read prompts and answers"
    )
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
    counts = step_operations(config, counted.typical, counted.length, shape.memory_options, needs)
    drawn = rollout_operations(config, needs, values=settings.run == "ppo")
    print_operations(console, config, counts, micro_batches)
    console.print(f"{drawn / 1e9:,.0f} billion operations to draw and score a rollout")
    cache, read = (NUMBER * f(config, needs) for f in (rollout_numbers, scores_numbers))
    console.print(
        f"drawing answers takes {size(cache)} for keys, values and logits, scoring them "
        f"{size(read)}, both in place of a step's activations and workspace"
    )
    return {"step": micro_batches * sum(counts.values()), "rollout": drawn}
