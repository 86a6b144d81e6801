"""Train: from a model and a data set to a model that answers, with its records.

This is `minigpt2 train`.  It answers held-out questions, takes the steps, answers
the same questions again, and leaves a folder that holds everything.
"""

from collections.abc import Iterator
from dataclasses import asdict
from math import ceil, isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from minigpt2.backend import array_module
from minigpt2.commands.setup import Material, open_material
from minigpt2.commands.train_settings import TrainSettings
from minigpt2.data.batches import windows
from minigpt2.device.devices import describe_device
from minigpt2.errors import UserError
from minigpt2.reports.plots import draw_curve
from minigpt2.reports.run_log import Report, claim_folder, due, log_step
from minigpt2.reports.run_page import write_page
from minigpt2.reports.tensorboard import require_tensorboard
from minigpt2.training.checkpoint import save_checkpoint
from minigpt2.training.evaluation import validation_losses
from minigpt2.training.exam import compare, sit
from minigpt2.training.step import Plan, Step, require_finite, train_steps


def train(settings: TrainSettings) -> dict[str, Any]:
    """Do a whole run; return what its summary.json holds.  Raises UserError for bad input."""
    started = perf_counter()
    if settings.tensorboard:
        require_tensorboard()
    with Console().status(f"opening {settings.model} and {settings.data}"):
        material = open_material(settings)
    folder = claim_folder(settings.out, Path(settings.data).stem)
    with Report(folder, settings.tensorboard) as report:
        report.write("settings.json", asdict(settings))
        introduce(settings, material, report)
        before = sit(material, settings.max_new_tokens, report, "before")
        tune(settings, material, report)
        after = sit(material, settings.max_new_tokens, report, "after")
        compare(material.samples, before, after, report)
        write_page(settings, material, report)
        seconds = perf_counter() - started
        report.say("done", f"{seconds:.0f} s in all; see {report.folder}", seconds=seconds)
    return report.summary


def tune(settings: TrainSettings, material: Material, report: Report) -> None:
    """Take all steps; log, validate and save as the settings say, and draw the curve."""
    plan = make_plan(settings, len(material.training))
    losses: list[float] = []
    validations: list[tuple[int, float]] = []
    if material.validation:
        validations.append((0, validate(settings, material, 0, report)))
    with report.progress("training", plan.steps) as advance:
        for step in steps_of(settings, material, plan):
            last = step.step == plan.steps
            losses.append(step.loss)
            log_step(step, plan.steps, settings.log_every, report)
            if last or due(step.step, settings.save_every):
                require_finite(material.parameters, step)
            if material.validation and (last or due(step.step, settings.evaluate_every)):
                validations.append((step.step, validate(settings, material, step.step, report)))
            if last or due(step.step, settings.save_every):
                checkpoint = report.folder / "checkpoint"
                save_checkpoint(
                    checkpoint,
                    material.parameters,
                    material.tokenizer,
                    template=material.template,
                )
            advance(1)
    if not draw_curve(report.folder / "loss.png", losses, validations):
        report.say("curve", "not drawn: matplotlib is not installed (pip install 'minigpt2[plot]')")


def steps_of(settings: TrainSettings, material: Material, plan: Plan) -> Iterator[Step]:
    """Take the steps of a plan, one after the other."""
    sizes = settings.batch_size, settings.at_once
    batches = windows(material.training, *sizes, settings.seed, settings.loss_weights())
    return train_steps(material.parameters, batches, plan, settings.seed)


def make_plan(settings: TrainSettings, examples: int) -> Plan:
    """Return how many steps to take, and how."""
    steps = settings.steps
    if steps is None:
        steps = max(1, round(settings.epochs * ceil(examples / settings.batch_size)))
    return Plan(
        steps,
        settings.learning_rate,
        round(settings.warmup * steps),
        settings.schedule,
        settings.adamw(),
        settings.dropout,
        settings.recompute,
        settings.precision,
    )


def validate(settings: TrainSettings, material: Material, step: int, report: Report) -> float:
    """Return the token-level loss on the examples held back; log and print both losses.

    Raises UserError if it is not finite.
    """
    with report.progress("validating", len(material.validation), quiet=True) as advance:
        held = material.validation
        losses = validation_losses(material.parameters, held, settings.at_once, advance)
    if not isfinite(losses.token_level):
        raise UserError(f"step {step}: the validation loss is not finite: lower the learning rate")
    numbers = {f"validation_{name}": number for name, number in losses.numbers().items()}
    text = (
        f"step {step}: validation loss {losses.token_level:.4f} by tokens "
        f"({losses.tokens:,}), {losses.example_level:.4f} by examples ({losses.examples:,})"
    )
    report.log({"step": step, **numbers}, text)
    return losses.token_level


def introduce(settings: TrainSettings, material: Material, report: Report) -> None:
    """Print what the run works on."""
    config, cuts = material.parameters.config, material.cuts
    start = "random weights" if settings.from_scratch else "trained weights"
    report.say(
        "model",
        f"{settings.model}, {start}: {config.n_parameters:,} parameters, "
        f"context {config.n_positions}, vocabulary {config.vocab_size:,}",
        parameters=config.n_parameters,
        context=config.n_positions,
        vocabulary=config.vocab_size,
    )
    where = describe_device(array_module(material.parameters.flat))
    report.say("device", where, device=where)
    training, validation = len(material.training), len(material.validation)
    examples = material.training + material.validation
    answer = sum(sum(e.is_answer) for e in examples)
    prompt = sum(len(e.ids) for e in examples) - answer
    masked = f"weight {settings.prompt_weight:g}" if settings.prompt_weight else "masked"
    count = "each example counts the same" if settings.loss == "example" else "supervised"
    text = (
        f"{settings.data} ({material.format}, template {settings.template or 'of the format'}): "
        f"{training:,} examples to train on, {validation:,} to validate; "
        f"{prompt:,} prompt tokens ({masked}), {answer:,} answer tokens ({count})"
    )
    report.say(
        "data",
        text,
        described=text,
        training=training,
        validation=validation,
        prompt_tokens=prompt,
        answer_tokens=answer,
    )
    report.say(
        "context",
        f"over the limit: {cuts.prompts} prompts cut ({cuts.prompt_tokens:,} tokens), "
        f"{cuts.answers} answers cut ({cuts.answer_tokens:,} tokens), {cuts.dropped} dropped",
        rows=settings.context or config.n_positions,
        **vars(cuts),
    )
    report.say("run", str(report.folder), folder=str(report.folder))
