"""Run that tunes: what `train` and the commands of alignment do alike.

A command's setup makes a TuningRun of its settings.  Here it becomes lines, steps and notes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import isfinite
from typing import Any, NamedTuple, TypeVar

from minigpt2.backend import array_module
from minigpt2.commands.run_settings import TuningSettings
from minigpt2.commands.session import Session
from minigpt2.data.loading import listed
from minigpt2.data.records import Record
from minigpt2.device.devices import describe_device
from minigpt2.errors import NothingToLearn
from minigpt2.inference.model import Model
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from minigpt2.reports.before_after import Advance, Answers, answer_tests, compare
from minigpt2.reports.metrics import Validation
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import RunLog
from minigpt2.training.config import TrainingConfig
from minigpt2.training.evaluation import Answer, Limits
from minigpt2.training.fingerprint import Fingerprint, versions
from minigpt2.training.objective import Objective
from minigpt2.training.run import Data, Every, run_steps
from minigpt2.training.state import State
from minigpt2.training.step import NotFinite
from minigpt2.wording import plural

NAMED = 16  # entries that an error lists
QUESTIONS = "the test questions"  # the name of their digest in a fingerprint
Result = TypeVar("Result")  # of a training
Validate = Callable[[int], float]  # with the steps taken; returns the loss


class TuningRun(NamedTuple):
    """What a run changes, and what its steps need."""

    model: Model  # what a checkpoint holds, with the state's parameters
    state: State
    batches: Data
    objective: Objective
    config: TrainingConfig
    every: Every


def fingerprint_of(
    state: State, settings: TuningSettings, contents: dict[str, str], micro_batch: int
) -> Fingerprint:
    """Return what the numbers of a run depend on; `contents` are digests."""
    rounding = versions(describe_device(array_module(state.m)))
    rounding |= {"precision": settings.precision, "micro_batch": str(micro_batch)}
    return Fingerprint(contents, rounding)


def describe_model(name: str, start: str, config: GPT2Config) -> str:
    """Return a line that describes a model and what it starts from."""
    return (
        f"{name}, {start}: {plural(config.n_parameters, 'parameter')}, "
        f"context {config.n_positions}, vocabulary {config.vocab_size:,}"
    )


def warning_of_start(model: str) -> str:
    """Return what a user should know who starts alignment from a model without a template."""
    hint = "tune it first (minigpt2 train), and name that run with --model"
    return f"{model} was not tuned on questions and answers: {hint}"


def introduce_model(parameters: Parameters, line: str, log: RunLog) -> None:
    """Print the line of the model, and the device."""
    config = parameters.config
    log.say(
        "model",
        line,
        parameters=config.n_parameters,
        context=config.n_positions,
        vocabulary=config.vocab_size,
    )
    device = describe_device(array_module(parameters.flat))
    log.say("device", device, device=device)


def answers_before(
    model: Model, tests: Mapping[str, list[Record]], limits: Limits, session: Session
) -> Answers:
    """Return the answers before training: those of the first session, or new ones."""
    stored = session.extra.get("before", {})
    if QUESTIONS in session.changed:
        stored = {}
        now = "what is called before are the answers of the model as it continues"
        session.log.say("warning", f"{QUESTIONS} are others, so {now}", key="before")
    if {name: len(answers) for name, answers in stored.items()} != {
        name: len(records) for name, records in tests.items()
    }:
        log, checked = session.log, session.signals.checked
        answers = answer_tests(model, dict(tests), limits, log, "before", checked=checked)
        session.extra["before"] = {name: [a[1:] for a in row] for name, row in answers.items()}
        return answers
    return {
        name: [Answer(record, *rest) for record, rest in zip(records, stored[name], strict=True)]
        for name, records in tests.items()
    }


def train_between_answers(
    model: Model,
    tests: Mapping[str, list[Record]],
    samples: list[Record],
    limits: Limits,
    session: Session,
    train: Callable[[], Result],
) -> tuple[list[dict[str, Any]], Result]:
    """Let a model answer the tests, train it, and let it answer again.

    Returns the rows with both answers, and what the training returned.  The samples' answers are
    printed; without tests, they are the one test.
    """
    log, checked = session.log, session.signals.checked
    questions = dict(tests) or ({"samples": samples} if samples else {})
    before = answers_before(model, questions, limits, session)
    result = train()
    after = answer_tests(model, questions, limits, log, "after", checked=checked)
    return compare(before, after, samples, log), result


def validation_of(
    run: TuningRun, session: Session, count: int, measure: Callable[[Advance], Validation]
) -> Validate:
    """Return a function that validates and logs; `measure` counts as many items as `count`.

    It raises NotFinite if the loss is not finite.
    """
    steps, log = run.config.steps, session.log

    def validate(number: int) -> float:
        with progress("validating", count, log.console) as advance:
            validation = measure(session.signals.checked(advance))
        if not isfinite(validation.loss):
            what = f"step {number}: the validation loss is not finite"
            raise NotFinite(f"{what}: {run.config.remedy}")
        log.add_validation(number, steps, validation)
        return validation.loss

    return validate


def take_all_steps(
    run: TuningRun,
    session: Session,
    *,
    validate: Validate | None = None,
    naming: AbstractContextManager[None] | None = None,
    task: str = "training",
) -> None:
    """Take all steps; log, validate and save.  In `naming` the error of a step names examples."""
    steps, log = run.config.steps, session.log
    bar = progress(task, steps, log.console, before=run.state.step)
    patience = plural(run.every.patience, "validation")
    reason = f"{patience} without an improvement (--patience)"
    with session.saving(run.state, run.model) as hooks, naming or nullcontext(), bar as advance:
        named_hooks = hooks(
            log=lambda result, printed: log.add_step(result, steps, printed=printed),
            validate=validate,
            advance=advance,
        )
        try:
            run_steps(
                run.state,
                run.batches,
                run.objective,
                run.config,
                every=run.every,
                hooks=named_hooks,
            )
        except NothingToLearn as end:
            reason = str(end)
    if log.overflows:
        count, scale = plural(log.overflows, "overflow"), run.state.scale.value
        log.say("float16", f"{count}, after each the step was taken again; loss scale {scale:,.0f}")
    if best := run.state.best:
        log.say("best", best_line(run), step=best.step, loss=best.loss)
    if run.state.step < steps:
        line = f"after step {run.state.step:,} of {steps:,}: {reason}"
        log.say("stopped", line, key="stopped_early", step=run.state.step, line=line)


def best_line(run: TuningRun) -> str:
    """Return a line about the best validation of a run."""
    best = run.state.best
    return f"validation loss {best.loss:.4f}, after step {best.step:,}" if best else ""


@contextmanager
def naming_entries(
    run: TuningRun,
    indices_at: Callable[[int, int], Sequence[Sequence[int]]],
    entry_numbers: Callable[[], Sequence[int]],
    data: str,
) -> Iterator[None]:
    """Let the error of a step name the entries of the data among which the cause may be.

    `indices_at` returns the examples of each micro-batch at a place, `entry_numbers` the entry that
    each example is of.
    """
    try:
        yield
    except NotFinite as error:
        if not error.micro_batches:
            raise
        parts = indices_at(run.state.epoch, run.state.position)
        numbers = entry_numbers()
        entries = sorted({numbers[i] for k in error.micro_batches for i in parts[k]})
        noun = "entry" if len(entries) == 1 else "entries"
        names = f"{noun} {listed(list(map(str, entries)), NAMED)} of {data}"
        hint = f"minigpt2 show --first {entries[0]}"
        raise NotFinite(f"{error}; its examples: {names} ({hint})") from None


def closing_line(log: RunLog, session: Session) -> None:
    """Print what the run took, and where its report is."""
    text = f"{session.seconds:.0f} s in all; see {log.folder / 'report.html'}"
    log.say("done", text, seconds=session.seconds)


def ending_of(run: TuningRun, log: RunLog) -> dict[str, Any]:
    """Return what the page of every run has: its log, its results, and how it ended."""
    return {
        "title": log.folder.name,
        "log": log.entries(),
        "best": best_line(run),
        "stopped": log.summary.get("stopped_early", {}).get("line", ""),
        "before": log.summary.get("before", {}),
        "after": log.summary.get("after", {}),
    }
