"""DPO: train a model to prefer the chosen answers of pairs, and record the run.

This is `minigpt2 dpo`.  The reference is the model that the run starts from: how likely it finds
each answer is computed once, before the first step, so there is no second model in memory.
Questions are answered before and after.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt2.alignment.dpo import DPO, DPOObjective, pair_log_probs
from minigpt2.alignment.pairs import Pair
from minigpt2.backend import Array, array_module
from minigpt2.commands.pair_run import PairRun, digest_of_pairs, setup_pairs
from minigpt2.commands.pair_settings import PairSettings
from minigpt2.commands.pair_steps import begin, describe_validation, page_of_pairs, train_on_pairs
from minigpt2.commands.run_paths import name_of
from minigpt2.commands.session import Session
from minigpt2.commands.setup import first_numbers
from minigpt2.commands.tests import choose_samples, open_tests
from minigpt2.commands.tuning_run import (
    QUESTIONS,
    TuningRun,
    closing_line,
    train_between_answers,
)
from minigpt2.data.records import Record
from minigpt2.errors import UserError, require_above_zero, require_at_least
from minigpt2.inference.model import open_model
from minigpt2.model.parameters import Parameters
from minigpt2.reports.before_after import Advance
from minigpt2.reports.metrics import Validation
from minigpt2.reports.progress import progress
from minigpt2.reports.tensorboard import require_tensorboard
from minigpt2.terminal import note
from minigpt2.training.evaluation import Limits
from minigpt2.training.fingerprint import digest_of_records

REFERENCE = "reference"  # in the notes of a checkpoint


@dataclass(frozen=True, kw_only=True)
class DpoSettings(PairSettings):
    """Train a model to prefer the chosen answers of pairs (DPO).

    Examples:
        minigpt2 dpo pairs.json --model runs/questions-1
        minigpt2 dpo --model runs/almanac-1 --beta 0.3 --learning-rate 5e-5    # the tiny base

    Output:
        step 10/92  loss 0.4512  accuracy 81%  margin 0.92  norm 3.21  2,028 tok/s
            loss       what the step lowers; ln 2 = 0.6931 for the reference itself
            accuracy   share of pairs whose chosen answer has the higher implicit
                       reward; before the first step all are equal, but for rounding
            margin     mean of the chosen reward minus the rejected one
            norm       norm of the gradient before clipping
            tok/s      tokens computed a second
        step 92/92  validation loss 0.2101  accuracy 92%: padded 99%, wrong 75%
            on the pairs for validation: all, and each kind that the data name
        The report also shows how likely both answers became; often both fall.

    Args:
        model: model to start from, which is also the reference: one that was tuned, as the folder
            of its run, or a name
        out: folder of the run, new or empty (default: the first free of runs/<data>-dpo-1,
            runs/<data>-dpo-2, ...)
        test: questions to answer before and after, scored by exact match, in one file or in
            several: [a.json,b.json] (the almanac brings its own)
        learning_rate: peak learning rate; the default suits the official weights, 5e-5 the tiny
            base
        beta: how strongly the model is held to the reference: its KL costs beta times as much as
            the reward; 0.3 suits the tiny base
        label_smoothing: share of pairs that are taken to be the wrong way round, below 0.5
        per_token: divide each answer's log-probability by its tokens
        samples: number of questions whose answers are printed before and after
        max_new_tokens: longest answer in tokens (default: as long as the longest reference)
    """

    learning_rate: float = 1e-6
    beta: float = 0.1
    label_smoothing: float = 0.0
    per_token: bool = False
    samples: int = 3
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero(self, "beta")
        if not 0 <= self.label_smoothing < 0.5:
            text = f"must be at least 0 and below 0.5, not {self.label_smoothing:g}"
            raise UserError(f"label_smoothing {text}")
        require_at_least(0, self, "samples", "max_new_tokens")


def dpo(settings: DpoSettings) -> dict[str, Any]:
    """Do a whole run, or the rest of one; return the content of its summary.json.

    Raises UserError for bad input.
    """
    if settings.tensorboard:
        require_tensorboard()
    with Session(settings, f"{name_of(settings.data)}-dpo") as session:
        with progress(f"opening {settings.model} and {settings.data}"):
            run = setup_pairs(settings, open_model(session.model or settings.model, warn=note))
            tests, samples = questions_of(run, settings)
        limits = Limits(run.dataset.context, settings.truncate, settings.max_new_tokens)
        constants = DPO(settings.beta, settings.label_smoothing, settings.per_token)
        objective = DPOObjective(constants)
        digest = digest_of_records([*tests.values(), samples])
        log = begin(run, settings, session, {QUESTIONS: digest})

        def train() -> TuningRun:
            reference, held_out = reference_of(run, settings.model, session)
            measure = measure_on(run, constants, held_out)
            batches = run.batches(reference=reference)
            return train_on_pairs(run, batches, objective, session, measure)

        answers, tuning = train_between_answers(run.model, tests, samples, limits, session, train)
        log.write_text("report.html", page_of_pairs(run, tuning, log, settings, answers=answers))
        closing_line(log, session)
    return log.summary


def questions_of(
    run: PairRun, settings: DpoSettings
) -> tuple[dict[str, list[Record]], list[Record]]:
    """Return the tests by name, and those questions whose answers are printed.

    Without tests, these are held-out pairs' questions, and the one test.
    """
    tests = open_tests(settings.data, settings.test, settings.columns, settings.skip_bad)
    held_out = [run.dataset.records[run.pairs.places[i]] for i in run.held_out]
    rng = first_numbers(settings.seed)
    samples = choose_samples(list(tests.values()) or [held_out], settings.samples, rng)
    return tests or ({"samples": samples} if samples else {}), samples


def log_probs_of(
    run: PairRun, parameters: Parameters, pairs: Sequence[Pair], advance: Advance
) -> Array:
    """Return ln π (B, 2) of the answers of pairs, and count the pairs that are done."""
    return run.in_chunks(pairs, lambda part, n: pair_log_probs(parameters, part, n), advance)


def reference_of(run: PairRun, model: str, session: Session) -> tuple[Array, Array]:
    """Return ln π_ref (B, 2) of the pairs to train on, and of those for validation.

    They are computed by the model with this name when the run begins, and stored in its
    checkpoints, until it continues with other pairs or another model.  Those of pairs that no step
    takes are not computed, and NaN.
    """
    taken = sorted(i for part in run.batches().taken_first(run.config.steps) for i in part)
    parts = {"training": [run.trained[i] for i in taken], "validation": run.validated}
    digest = digest_of_pairs(*parts.values())
    stored = session.extra.get(REFERENCE, {})
    if stored.get("pairs") != digest or "model" in session.changed:
        parameters = run.state.compute
        if session.model:  # the run continues
            parameters = open_model(model).parameters.on(array_module(run.state.m))
        count = sum(map(len, parts.values()))
        with progress("computing the reference", count, session.log.console) as advance:
            checked = session.signals.checked(advance)
            numbers = {n: log_probs_of(run, parameters, p, checked) for n, p in parts.items()}
        stored = {"pairs": digest, **{name: array.tolist() for name, array in numbers.items()}}
        session.extra[REFERENCE] = stored
    of_taken, validation = (np.array(stored[name]).reshape(-1, 2) for name in parts)
    training = np.full((len(run.trained), 2), np.nan)
    training[taken] = of_taken
    return training, validation


def measure_on(run: PairRun, constants: DPO, reference: Array) -> Callable[[Advance], Validation]:
    """Return a function that measures the pairs for validation."""
    pairs = run.validated
    lengths = np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs])

    def measure(advance: Advance) -> Validation:
        log_ratios = log_probs_of(run, run.state.compute, pairs, advance) - reference
        numbers = constants.numbers(log_ratios, lengths)
        return describe_validation(numbers, constants.rewards(log_ratios, lengths), pairs)

    return measure
