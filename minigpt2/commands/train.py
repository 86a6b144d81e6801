"""Train: tune a model on a data set, and record the run.

This is `minigpt2 train`.  The model answers the test questions, takes the steps, and answers the
same questions again.  The run's folder has the log, the answers, the report and the checkpoint.
"""

from dataclasses import asdict
from typing import Any

from minigpt2.commands.dataset import warnings_of
from minigpt2.commands.lora_settings import SLOW
from minigpt2.commands.run_paths import name_of
from minigpt2.commands.session import Session
from minigpt2.commands.setup import Run, TrainSettings, check_memory, setup
from minigpt2.commands.tuning_run import (
    QUESTIONS,
    closing_line,
    describe_model,
    ending_of,
    fingerprint_of,
    introduce_model,
    naming_entries,
    take_all_steps,
    train_between_answers,
    validation_of,
)
from minigpt2.data.batches import TrainingSet
from minigpt2.data.statistics import lengths_of
from minigpt2.durable import remove_folder
from minigpt2.inference.model import Model, save_merged
from minigpt2.model.adapters import LoRA
from minigpt2.model.config import GPT2Config
from minigpt2.reports.before_after import Advance
from minigpt2.reports.metrics import Validation
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import RunLog
from minigpt2.reports.run_page import Page, run_page
from minigpt2.reports.screen import describe_cuts
from minigpt2.reports.tensorboard import require_tensorboard
from minigpt2.reports.tokens import tokens_of
from minigpt2.training.evaluation import validation_losses
from minigpt2.training.fingerprint import digest_of_examples, digest_of_records
from minigpt2.training.losses import Losses
from minigpt2.wording import plural

__all__ = ["TrainSettings", "train"]

MERGED = "merged"  # in the folder of a run that tunes adapters: the whole model


def train(settings: TrainSettings) -> dict[str, Any]:
    """Do a whole run, or the rest of one; return the content of its summary.json.

    Raises UserError for bad input.
    """
    if settings.tensorboard:
        require_tensorboard()
    with Session(settings, name_of(settings.data)) as session:
        with progress(f"opening {settings.model} and {settings.data}"):
            run = setup(settings, start=session.model)
        disk, scarce = require_room(run, session)
        micro_batch = run.batches.micro_batch
        now = fingerprint_of(run.state, settings, contents_of(run), micro_batch)
        log = session.start(now, run.tuning.config.steps)
        introduce(run, log)
        log.say("disk", disk)
        if scarce:
            log.say("warning", scarce, key="memory")
        tested = run.tests, run.samples, run.limits
        answers, _ = train_between_answers(run.model, *tested, session, lambda: tune(run, session))
        if run.lora and settings.lora_merge:
            write_merged(run.model, log)
        log.write_text("report.html", page_of(run, log, answers, asdict(settings)))
        closing_line(log, session)
    return log.summary


def require_room(run: Run, session: Session) -> tuple[str, str | None]:
    """Return a line about the disk, and a warning if the memory is scarce.

    Raises UserError if one of them is too small.
    """
    validates, batches = bool(run.examples.validation), run.batches
    accumulates = batches.micro_batch < batches.batch_size
    config = run.model.parameters.config
    options: dict[str, Any] = {"validates": validates, "accumulates": accumulates}
    merges = session.settings.lora_merge
    disk = session.require_disk(config, **options, lora=run.lora, merges=merges)
    return disk, check_memory(run)


def write_merged(model: Model, log: RunLog) -> None:
    """Write the model with its adapters as one without them, which other programs open, too."""
    folder = log.folder / MERGED
    with progress(f"writing {folder}", console=log.console):
        if folder.exists():  # of an earlier end of the run
            remove_folder(folder)
        save_merged(folder, model)
    log.say("merged", f"{folder}: the model and its adapters as one", folder=str(folder))


def contents_of(run: Run) -> dict[str, str]:
    """Return digests of what a run reads."""
    return {
        "the examples": digest_of_examples([run.examples.training, run.examples.validation]),
        QUESTIONS: digest_of_records([*run.tests.values(), run.samples]),
    }


def tune(run: Run, session: Session) -> None:
    """Take all steps; validate on the examples that are held out."""
    tuning, held_out = run.tuning, run.examples.validation

    def measure(advance: Advance) -> Validation:
        parameters, micro_batch = run.model.parameters, run.batches.micro_batch
        losses = validation_losses(parameters, held_out, micro_batch, advance)
        return describe_losses(losses, run.loss_weights.per_example)

    validate = validation_of(tuning, session, len(held_out), measure) if held_out else None
    naming = naming_entries(tuning, run.batches.indices_at, run.entry_numbers, run.dataset.name)
    take_all_steps(tuning, session, validate=validate, naming=naming)


def describe_losses(losses: Losses, per_example: bool = False) -> Validation:
    """Return the losses of a validation, with the text of their line.

    The best validation has the lowest loss of the kind that is trained.
    """
    text = f"validation loss {losses.token_level:.4f}  by example {losses.example_level:.4f}"
    trained = losses.example_level if per_example else losses.token_level
    return Validation(trained, losses.numbers(), text)


def introduce(run: Run, log: RunLog) -> None:
    """Print the run's model, device, data and folder."""
    cuts = run.examples.cuts
    introduce_model(run.model.parameters, model_line(run), log)
    if run.lora:
        log.say("adapters", adapters_line(run.lora, run.model.parameters.config))
        if run.config.learning_rate < SLOW:
            low = f"the learning rate, {run.config.learning_rate:g}, is low for adapters"
            right = "2e-4 suits the official weights, 1e-2 the small base"
            log.say("warning", f"{low}: {right}", key="learning_rate")
    line = data_line(run)
    log.say("data", line, described=line, **run.examples.counts())
    log.say(
        "context",
        f"over {plural(run.dataset.context, 'token')}: {describe_cuts(cuts)}",
        rows=run.dataset.context,
        **vars(cuts),
    )
    for warning in [*warnings_of(run.dataset.records, cuts), *warnings_of_split(run.examples)]:
        log.say("warning", warning, key="context")
    log.say("run", str(log.folder), folder=str(log.folder))


def warnings_of_split(examples: TrainingSet) -> list[str]:
    """Return what a user should know about the validation examples."""
    repeated = examples.repeated_in_validation()
    if not repeated:
        return []
    return [
        f"{repeated:,} of {plural(len(examples.validation), 'question')} for validation are also "
        "trained on: the validation loss is that of questions that the model knows"
    ]


def model_line(run: Run) -> str:
    """Return a line that describes the model."""
    start = "random weights" if run.from_scratch else "trained weights"
    return describe_model(run.model_name, start, run.model.parameters.config)


def adapters_line(lora: LoRA, config: GPT2Config) -> str:
    """Return a line that describes adapters."""
    count = lora.n_parameters(config)
    share = count / config.n_parameters
    layers = plural(config.n_layer * len(lora.layers), "layer")
    return (
        f"LoRA of rank {lora.rank} in {layers} ({', '.join(lora.layers)}), times {lora.scale:g}: "
        f"{plural(count, 'parameter')} to train, {share:.2%} of the model's"
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
    lengths = lengths_of(run.examples.training + run.examples.validation)
    tokens = tokens_of(example, run.loss_weights.of(example), run.model.tokenizer)
    return run_page(
        Page(
            **ending_of(run.tuning, log),
            model=model_line(run),
            data=data_line(run),
            cuts=f"Context {run.dataset.context:,}: {describe_cuts(cuts)}.",
            warnings=warnings_of(run.dataset.records, cuts),
            lengths={"prompt": lengths.prompt, "answer": lengths.answer, "both": lengths.both},
            examples={"One training example": tokens},
            answers=answers,
            settings=settings,
        )
    )
