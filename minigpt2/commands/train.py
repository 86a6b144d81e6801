"""Train: tune a model on a data set, and record the run.

This is `minigpt2 train`.  The model answers the test questions, takes the steps, and answers the
same questions again.  The run's folder has the log, the answers, the report and the checkpoint.
"""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from minigpt2.backend import array_module
from minigpt2.commands.dataset import warnings_of
from minigpt2.commands.session import Session
from minigpt2.commands.setup import Run, TrainSettings, check_memory, naming_examples, setup
from minigpt2.data.records import Record
from minigpt2.device.devices import describe_device
from minigpt2.reports.before_after import Answers, answer_tests, compare
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import RunLog
from minigpt2.reports.run_page import Page, run_page
from minigpt2.reports.screen import describe_cuts
from minigpt2.reports.tensorboard import require_tensorboard
from minigpt2.reports.tokens import tokens_of
from minigpt2.training.evaluation import Answer, validation_losses
from minigpt2.training.fingerprint import (
    Fingerprint,
    digest_of_examples,
    digest_of_records,
    versions,
)
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import run_steps
from minigpt2.training.step import NotFinite
from minigpt2.wording import plural

__all__ = ["TrainSettings", "train"]


def train(settings: TrainSettings) -> dict[str, Any]:
    """Do a whole run, or the rest of one; return the content of its summary.json.

    Raises UserError for bad input.
    """
    if settings.tensorboard:
        require_tensorboard()
    with Session(settings, Path(settings.data).stem) as session:
        with progress(f"opening {settings.model} and {settings.data}"):
            run = setup(settings, start=session.model)
        disk, scarce = require_room(run, session)
        log = session.start(fingerprint(run, settings))
        introduce(run, log)
        log.say("disk", disk)
        if scarce:
            log.say("warning", scarce, key="memory")
        tests = run.tests or ({"samples": run.samples} if run.samples else {})
        before = answers_before(run, tests, session)
        tune(run, session)
        checked = session.signals.checked
        after = answer_tests(run.model, tests, run.limits, log, "after", checked=checked)
        answers = compare(before, after, run.samples, log)
        log.write_text("report.html", page_of(run, log, answers, asdict(settings)))
        text = f"{session.seconds:.0f} s in all; see {log.folder / 'report.html'}"
        log.say("done", text, seconds=session.seconds)
    return log.summary


def require_room(run: Run, session: Session) -> tuple[str, str | None]:
    """Return a line about the disk, and a warning if the memory is scarce.

    Raises UserError if one of them is too small.
    """
    validates, batches = bool(run.examples.validation), run.batches
    accumulates = batches.micro_batch < batches.batch_size
    config = run.model.parameters.config
    disk = session.require_disk(config, validates=validates, accumulates=accumulates)
    return disk, check_memory(run)


def fingerprint(run: Run, settings: TrainSettings) -> Fingerprint:
    """Return what the numbers of a run depend on."""
    device = describe_device(array_module(run.state.m))
    return Fingerprint(
        contents={
            "the examples": digest_of_examples([run.examples.training, run.examples.validation]),
            "the test questions": digest_of_records([*run.tests.values(), run.samples]),
        },
        rounding=versions(device)
        | {"precision": settings.precision, "micro_batch": str(run.batches.micro_batch)},
    )


def answers_before(run: Run, tests: dict[str, list[Record]], session: Session) -> Answers:
    """Return the answers before training: those of the first session, or new ones."""
    stored = session.extra.get("before", {})
    if {name: len(answers) for name, answers in stored.items()} != {
        name: len(records) for name, records in tests.items()
    }:
        log, checked = session.log, session.signals.checked
        answers = answer_tests(run.model, tests, run.limits, log, "before", checked=checked)
        session.extra["before"] = {name: [a[1:] for a in row] for name, row in answers.items()}
        return answers
    return {
        name: [Answer(record, *rest) for record, rest in zip(records, stored[name], strict=True)]
        for name, records in tests.items()
    }


def tune(run: Run, session: Session) -> None:
    """Take all steps; log, validate and save."""
    steps, model, log = run.config.steps, run.model, session.log

    def validate(number: int) -> float:
        examples, micro_batch = run.examples.validation, run.batches.micro_batch
        with progress("validating", len(examples), log.console) as advance:
            checked = session.signals.checked(advance)
            losses = validation_losses(model.parameters, examples, micro_batch, checked)
        if not isfinite(losses.token_level):
            what = f"step {number}: the validation loss is not finite"
            raise NotFinite(f"{what}: {run.config.remedy}")
        log.add_validation(number, steps, losses)
        return losses.token_level

    bar = progress("training", steps, log.console)
    with session.saving(run.state, model) as hooks, naming_examples(run), bar as advance:
        advance(run.state.step)
        run_steps(
            run.state,
            run.batches,
            WeightedNLL(),
            run.config,
            every=run.every,
            hooks=hooks(
                log=lambda result, printed: log.add_step(result, steps, printed=printed),
                validate=validate if run.examples.validation else None,
                advance=advance,
            ),
        )
    if log.overflows:
        count, scale = plural(log.overflows, "overflow"), run.state.scale.value
        log.say("float16", f"{count}, after each the step was taken again; loss scale {scale:,.0f}")
    if best := run.state.best:
        log.say("best", best_line(run), step=best.step, loss=best.loss)
    if run.state.step < steps:
        log.say("stopped", early_line(run), key="stopped_early", step=run.state.step)


def best_line(run: Run) -> str:
    """Return a line about the best validation of a run."""
    best = run.state.best
    return f"validation loss {best.loss:.4f}, after step {best.step:,}" if best else ""


def early_line(run: Run) -> str:
    """Return a line about a run that stopped early; empty for one that took all steps."""
    step, steps = run.state.step, run.config.steps
    if step == steps:
        return ""
    count = plural(run.every.patience, "validation")
    return f"after step {step:,} of {steps:,}: {count} without an improvement (--patience)"


def introduce(run: Run, log: RunLog) -> None:
    """Print the run's model, device, data and folder."""
    config, cuts = run.model.parameters.config, run.examples.cuts
    log.say(
        "model",
        model_line(run),
        parameters=config.n_parameters,
        context=config.n_positions,
        vocabulary=config.vocab_size,
    )
    device = describe_device(array_module(run.model.parameters.flat))
    log.say("device", device, device=device)
    line = data_line(run)
    log.say("data", line, described=line, **run.examples.counts())
    log.say(
        "context",
        f"over {plural(run.dataset.context, 'token')}: {describe_cuts(cuts)}",
        rows=run.dataset.context,
        **vars(cuts),
    )
    for warning in warnings_of(run.dataset.records, cuts):
        log.say("warning", warning, key="context")
    log.say("run", str(log.folder), folder=str(log.folder))


def model_line(run: Run) -> str:
    """Return a line that describes the model."""
    config = run.model.parameters.config
    start = "random weights" if run.from_scratch else "trained weights"
    return (
        f"{run.model_name}, {start}: {plural(config.n_parameters, 'parameter')}, "
        f"context {config.n_positions}, vocabulary {config.vocab_size:,}"
    )


def data_line(run: Run) -> str:
    """Return a line that describes the data, with its prompt tokens and answer tokens."""
    weights, counts = run.loss_weights, run.examples.counts()
    prompts = f"weight {weights.prompt_weight:g}" if weights.prompt_weight else "masked"
    answers = "each example counts the same" if weights.per_example else "supervised"
    return (
        f"{run.dataset.name} ({run.dataset.format}): "
        f"{plural(counts['training'], 'example')} for training, {counts['validation']:,} for "
        f"validation; {plural(counts['prompt_tokens'], 'prompt token')} ({prompts}), "
        f"{plural(counts['answer_tokens'], 'answer token')} ({answers})"
    )


def page_of(run: Run, log: RunLog, answers: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """Return the report as HTML."""
    example, cuts = run.examples.training[0], run.examples.cuts
    return run_page(
        Page(
            title=log.folder.name,
            model=model_line(run),
            data=data_line(run),
            context=run.dataset.context,
            cuts=cuts,
            warnings=warnings_of(run.dataset.records, cuts),
            examples=run.examples.training + run.examples.validation,
            tokens=tokens_of(example, run.loss_weights.of(example), run.model.tokenizer),
            log=log.entries(),
            best=best_line(run),
            stopped=early_line(run),
            before=log.summary.get("before", {}),
            after=log.summary.get("after", {}),
            answers=answers,
            settings=settings,
        )
    )
