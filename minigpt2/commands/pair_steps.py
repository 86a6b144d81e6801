"""Steps on pairs: what `reward` and `dpo` print of their runs, and how they take the steps."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from minigpt2.alignment.pair_batches import PairBatches
from minigpt2.alignment.pairs import Pair
from minigpt2.alignment.reward_model import accuracy_by_kind
from minigpt2.backend import Array, array_module
from minigpt2.commands.dataset import warnings_of
from minigpt2.commands.pair_run import PairRun, digest_of_pairs
from minigpt2.commands.pair_settings import PairSettings
from minigpt2.commands.session import Session
from minigpt2.commands.tuning_run import (
    TuningRun,
    describe_model,
    ending_of,
    fingerprint_of,
    introduce_model,
    naming_entries,
    take_all_steps,
    validation_of,
    warning_of_start,
)
from minigpt2.planning.memory_and_flops import MemoryOptions
from minigpt2.planning.room import check_pairs
from minigpt2.reports.before_after import Advance
from minigpt2.reports.metrics import Validation
from minigpt2.reports.run_log import RunLog
from minigpt2.reports.run_page import Page, run_page
from minigpt2.reports.screen import describe_cuts
from minigpt2.reports.tokens import tokens_of
from minigpt2.training.objective import Objective
from minigpt2.wording import plural


def begin(
    run: PairRun, settings: PairSettings, session: Session, contents: dict[str, str]
) -> RunLog:
    """Check memory and disk, open the run's log, and print what the run is.

    `contents` are digests of what it reads besides the pairs.  Raises UserError if there is no
    room, or if the run that continues would not be the same.
    """
    parameters, micro_batch = run.model.parameters, run.micro_batch
    config, library = parameters.config, array_module(parameters.flat)
    options = MemoryOptions(recompute=run.config.recompute)
    scarce = check_pairs(config, library, settings.precision, run.batches(), options)
    several = micro_batch < run.batch_size
    disk = session.require_disk(config, validates=bool(run.held_out), accumulates=several)
    digests = {"the pairs": digest_of_pairs(run.trained, run.validated), **contents}
    now = fingerprint_of(run.state, settings, digests, micro_batch)
    log = session.start(now, run.config.steps)
    introduce_model(parameters, model_line(run, settings), log)
    introduce_pairs(run, log)
    for warning in warnings_of_pairs(run, settings.model):
        log.say("warning", warning, key="context")
    log.say("run", str(log.folder), folder=str(log.folder))
    log.say("disk", disk)
    if scarce:
        log.say("warning", scarce, key="memory")
    return log


def model_line(run: PairRun, settings: PairSettings) -> str:
    """Return a line that describes the model."""
    return describe_model(settings.model, "trained weights", run.model.parameters.config)


def train_on_pairs(
    run: PairRun,
    batches: PairBatches,
    objective: Objective,
    session: Session,
    measure: Callable[[Advance], Validation],
) -> TuningRun:
    """Take all steps; `measure` measures the pairs that are held out."""
    tuning = TuningRun(run.model, run.state, batches, objective, run.config, run.every)
    validate = validation_of(tuning, session, len(run.held_out), measure)
    numbers = [run.dataset.numbers[run.pairs.places[i]] for i in run.training]
    naming = naming_entries(tuning, batches.indices_at, lambda: numbers, run.dataset.name)
    take_all_steps(tuning, session, validate=validate if run.held_out else None, naming=naming)
    return tuning


def describe_validation(
    numbers: Mapping[str, float], scores: Array, pairs: Sequence[Pair]
) -> Validation:
    """Return the numbers of held-out pairs with their line; `scores` (B, 2) of both answers."""
    kinds = accuracy_by_kind(scores, [pair.kind for pair in pairs])
    text = f"validation loss {numbers['loss']:.4f}  accuracy {numbers['accuracy']:.0%}"
    by_kind = {f"accuracy/{kind}": share for kind, share in kinds.items()}
    return Validation(numbers["loss"], {**numbers, **by_kind}, text + listed_by_kind(kinds))


def listed_by_kind(shares: Mapping[str, float]) -> str:
    """Return the share of each kind of pairs, as the end of a line.

    >>> listed_by_kind({"cut": 0.5, "long": 1.0}), listed_by_kind({})
    (': cut 50%, long 100%', '')
    """
    texts = [f"{kind} {share:.0%}" for kind, share in shares.items()]
    return f": {', '.join(texts)}" if texts else ""


def data_line(run: PairRun) -> str:
    """Return a line that describes the pairs."""
    counts, kinds = run.counts(), Counter(pair.kind for pair in run.pairs.pairs if pair.kind)
    by_kind = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())
    return (
        f"{run.dataset.name} ({run.dataset.format}): {plural(counts['training'], 'pair')} for "
        f"training, {counts['validation']:,} for validation{f' ({by_kind})' if kinds else ''}; "
        f"{plural(counts['prompt_tokens'], 'prompt token')} (each prompt once), "
        f"{plural(counts['answer_tokens'], 'answer token')} (chosen and rejected)"
    )


def warnings_of_pairs(run: PairRun, model: str) -> list[str]:
    """Return what a user should know before training on the pairs; `model` is the start's name."""
    warnings = warnings_of(run.dataset.records, run.pairs.cuts)
    if not run.is_tuned:
        warnings.append(warning_of_start(model))
    return warnings


def introduce_pairs(run: PairRun, log: RunLog) -> None:
    """Print the pairs, and what was left out."""
    line, cuts, context = data_line(run), run.pairs.cuts, run.dataset.context
    log.say("data", line, described=line, **run.counts())
    for text in run.pairs.notes:
        log.say("data", text)
    text = f"over {plural(context, 'token')}: {describe_cuts(cuts)}"
    log.say("context", text, rows=context, **vars(cuts))


def page_of_pairs(
    run: PairRun,
    tuning: TuningRun,
    log: RunLog,
    settings: PairSettings,
    answers: Sequence[dict[str, Any]] | None = None,
) -> str:
    """Return the report as HTML."""
    pairs, cuts = run.pairs.pairs, run.pairs.cuts
    chosen, rejected = run.trained[0].examples
    tokens = {
        f"One training pair, {name}": tokens_of(example, example.is_answer, run.model.tokenizer)
        for name, example in (("chosen", chosen), ("rejected", rejected))
    }
    return run_page(
        Page(
            **ending_of(tuning, log),
            model=model_line(run, settings),
            data=data_line(run),
            warnings=warnings_of_pairs(run, settings.model),
            cuts=f"Context {run.dataset.context:,}: {describe_cuts(cuts)}.",
            lengths={
                name: np.array([len(getattr(pair, name)) for pair in pairs])
                for name in ("prompt", "chosen", "rejected")
            },
            examples=tokens,
            answers=answers,
            settings=asdict(settings),
        )
    )
