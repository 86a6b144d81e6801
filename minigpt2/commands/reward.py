"""Reward: train a reward model on preference pairs, and record the run.

This is `minigpt2 reward`.  A GPT-2 gets a head that scores answers (alignment/reward_model).  The
run's folder has a checkpoint, and in `reward-model` the model that scores: its scores have mean 0
and variance 1 over answers of the pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt2.alignment.pairs import Pair
from minigpt2.alignment.reward_model import (
    BradleyTerry,
    Preferences,
    accuracy_by_kind,
    batch_of_last_rows,
    normalise,
    score_pairs,
    start_of_head,
)
from minigpt2.backend import Array
from minigpt2.commands.pair_run import PairRun, digest_of_pairs, open_pair_tests, setup_pairs
from minigpt2.commands.pair_settings import PairSettings
from minigpt2.commands.pair_steps import (
    begin,
    describe_validation,
    listed_by_kind,
    page_of_pairs,
    train_on_pairs,
)
from minigpt2.commands.run_paths import name_of
from minigpt2.commands.session import Session
from minigpt2.commands.tuning_run import closing_line
from minigpt2.errors import require_at_least
from minigpt2.inference.model import RewardModel, open_model, open_reward_model, save_model
from minigpt2.model.heads import with_heads
from minigpt2.reports.before_after import Advance
from minigpt2.reports.metrics import Validation
from minigpt2.reports.progress import progress
from minigpt2.reports.tensorboard import require_tensorboard
from minigpt2.reward_weights import RESULT
from minigpt2.terminal import note
from minigpt2.weights import SCORE_WEIGHT
from minigpt2.wording import plural

NORMALISED = 256  # pairs, at most, whose answers' scores get mean 0 and variance 1


@dataclass(frozen=True, kw_only=True)
class RewardSettings(PairSettings):
    """Train a reward model on preference pairs.

    Examples:
        minigpt2 reward pairs.json --model runs/questions-1
        minigpt2 reward --model runs/almanac-1 --learning-rate 2e-4    # the pairs that ship

    Output:
        step 10/92  loss 0.4512  accuracy 81%  margin 0.92  norm 3.21  2,028 tok/s
            loss       what the step lowers: how badly the scores explain the pairs
            accuracy   share of pairs whose chosen answer has the higher score; 0%
                       at first, where all are equal
            margin     mean of the chosen score minus the rejected one
            norm       norm of the gradient before clipping
            tok/s      tokens computed a second
        step 92/92  validation loss 0.2101  accuracy 92%: padded 99%, wrong 75%
            on the pairs for validation: all, and each kind that the data name

    Args:
        model: model that the reward model starts from: one that was tuned, as the folder of its
            run, or a name
        out: folder of the run, new or empty (default: the first free of runs/<data>-reward-1,
            runs/<data>-reward-2, ...); its reward-model is the result
        test: pairs to measure after training, in one file or in several: [a.json,b.json] (the
            almanac brings its own)
        learning_rate: peak learning rate; the default suits the official weights, 2e-4 the tiny
            base
        centre: weight of the squared sum of a pair's scores in the loss, which keeps scores near 0
    """

    learning_rate: float = 1e-5
    centre: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "centre")


def reward(settings: RewardSettings) -> dict[str, Any]:
    """Do a whole run, or the rest of one; return the content of its summary.json.

    Raises UserError for bad input.
    """
    if settings.tensorboard:
        require_tensorboard()
    with Session(settings, f"{name_of(settings.data)}-reward") as session:
        with progress(f"opening {settings.model} and {settings.data}"):
            run = setup_pairs(settings, open_start(settings, session.model))
            tests = open_pair_tests(settings, run.dataset)
        batches, objective = run.batches(lay_out=batch_of_last_rows), BradleyTerry(settings.centre)
        digest = digest_of_pairs(*tests.values())
        log = begin(run, settings, session, {"the test pairs": digest})
        measure = measure_on(run, objective)
        tuning = train_on_pairs(run, batches, objective, session, measure)
        measure_tests(run, tests, session)
        write_result(run, session)
        log.write_text("report.html", page_of_pairs(run, tuning, log, settings))
        closing_line(log, session)
    return log.summary


def open_start(settings: RewardSettings, checkpoint: str | None) -> RewardModel:
    """Return the reward model of a checkpoint, or the model that it begins with, with a new head.

    The head is 0, so all scores are.
    """
    if checkpoint:
        return open_reward_model(checkpoint, warn=note)
    model = open_model(settings.model, warn=note)
    head = {SCORE_WEIGHT: start_of_head(model.parameters.config.n_embd)}
    return RewardModel(with_heads(model.parameters, head), model.tokenizer, model.template)


def scores_of(run: PairRun, pairs: Sequence[Pair], advance: Advance) -> Array:
    """Return the scores (B, 2) of pairs, and count those that are done."""
    parameters = run.model.parameters

    def score(part: Sequence[Pair], size: int) -> Array:
        return score_pairs(parameters, part, micro_batch=size)

    return run.in_chunks(pairs, score, advance)


def measure_on(run: PairRun, objective: BradleyTerry) -> Callable[[Advance], Validation]:
    """Return a function that measures the pairs for validation."""

    def measure(advance: Advance) -> Validation:
        scores = scores_of(run, run.validated, advance)
        numbers = Preferences.of(scores, objective.centre)._asdict()
        return describe_validation(numbers, scores, run.validated)

    return measure


def measure_tests(run: PairRun, tests: Mapping[str, list[Pair]], session: Session) -> None:
    """Print how many pairs of each test are right."""
    log = session.log
    for name, pairs in tests.items():
        with progress(f"scoring {name}", len(pairs), log.console) as advance:
            scores = scores_of(run, pairs, session.signals.checked(advance))
        right = int((scores[:, 0] > scores[:, 1]).sum())
        kinds = accuracy_by_kind(scores, [pair.kind for pair in pairs])
        text = f"{name}: {right:,} of {plural(len(pairs), 'pair')} right ({right / len(pairs):.1%})"
        log.say("after", text + listed_by_kind(kinds))
        result = {"right": right, "asked": len(pairs), "accuracy": right / len(pairs)}
        log.summary.setdefault("after", {})[name] = result | {"kinds": kinds}


def write_result(run: PairRun, session: Session) -> None:
    """Write the reward model, whose scores have mean 0 and variance 1 over answers of pairs."""
    log, model = session.log, run.model
    folder, pairs = log.folder / RESULT, run.trained[:NORMALISED]
    if not folder.exists():
        with progress("scoring answers", len(pairs), log.console) as advance:
            scores = scores_of(run, pairs, session.signals.checked(advance))
        copy = model.parameters.on(np)
        copy = copy.like(copy.flat.copy())
        bias = normalise(copy[SCORE_WEIGHT], 0.0, scores)
        save_model(folder, RewardModel(copy, model.tokenizer, model.template, bias))
    count = plural(len(pairs), "pair")
    text = f"{folder}; scores have mean 0 and variance 1 over the answers of {count}"
    log.say("reward", text, folder=str(folder))
