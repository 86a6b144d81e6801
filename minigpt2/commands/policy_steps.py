"""Steps on policy: what `ppo` and `grpo` do with a run, and what they record of it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

import numpy as np

from minigpt2.alignment.completions import Completion
from minigpt2.alignment.on_policy import Observe
from minigpt2.alignment.value_function import is_apart
from minigpt2.backend import array_module
from minigpt2.commands.policy_run import PolicyRun
from minigpt2.commands.policy_settings import PolicySettings
from minigpt2.commands.rewards import text_of
from minigpt2.commands.run_paths import name_of
from minigpt2.commands.session import Session
from minigpt2.commands.tuning_run import (
    QUESTIONS,
    TuningRun,
    closing_line,
    describe_model,
    ending_of,
    fingerprint_of,
    introduce_model,
    take_all_steps,
    train_between_answers,
    warning_of_start,
)
from minigpt2.planning.alignment_memory import Needs
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch
from minigpt2.planning.room import check_answers
from minigpt2.reports.before_after import question_of
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import RunLog
from minigpt2.reports.run_page import Page, run_page
from minigpt2.reports.tensorboard import require_tensorboard
from minigpt2.training.fingerprint import digest_of_records
from minigpt2.training.objective import Objective
from minigpt2.training.run import Data

SHOWN = 12  # rollouts whose answers the report shows
ANSWERS = 2  # of each of them

# Takes a run, the notes of its rollouts, and what sees each rollout.
Made = Callable[[PolicyRun, dict[str, Any], Observe], tuple[Data, Objective]]


def run_policy(
    settings: PolicySettings,
    name: str,
    opened: Callable[[PolicySettings, str | None], PolicyRun],
    made: Made,
    *,
    micro_batch: int,
    accumulates: bool,
    steps_per_phase: int = 1,
) -> dict[str, Any]:
    """Do a whole run, or the rest of one; return the content of its summary.json.

    `name` is that of the command; `opened` makes the values of the settings, `made` the steps, each
    of which has several micro-batches if it `accumulates`.  Raises UserError for bad input.
    """
    if settings.tensorboard:
        require_tensorboard()
    with Session(settings, f"{name_of(settings.data)}-{name}") as session:
        with progress(f"opening {settings.model} and {settings.data}"):
            run = opened(settings, session.model)
        parameters = run.model.parameters
        scarce = check_memory(run, settings, micro_batch, name)
        models = 2 if is_apart(parameters) else 1
        disk = session.require_disk(parameters.config, accumulates=accumulates, models=models)
        now = fingerprint_of(run.state, settings, contents_of(run), micro_batch)
        log = session.start(now, run.config.steps)
        introduce(run, settings, log)
        log.say("disk", disk)
        if scarce:
            log.say("warning", scarce, key="memory")
        for warning in warnings_of_run(run, settings):
            log.say("warning", warning, key="context")
        phases = ceil(settings.steps / steps_per_phase)
        observe = Samples(run, session.extra, phases, steps_per_phase)
        data, objective = made(run, notes_of_rollouts(session), observe)
        tuning = TuningRun(run.model, run.state, data, objective, run.config, run.every)
        tested = run.tests, run.samples, run.limits
        answers, _ = train_between_answers(
            run.model, *tested, session, lambda: take_all_steps(tuning, session)
        )
        samples = session.extra.get("drawn", [])
        log.write("drawn.json", samples)
        page = page_of(run, tuning, settings, log, answers=answers, samples=samples)
        log.write_text("report.html", page)
        closing_line(log, session)
    return log.summary


class Samples:
    """Some answers of some rollouts, for the report; a checkpoint's notes hold them."""

    def __init__(self, run: PolicyRun, extra: dict[str, Any], phases: int, steps: int):
        self.run, self.extra, self.steps = run, extra, steps
        self.every = max(1, ceil(phases / SHOWN))
        self.last = phases - 1

    def __call__(self, number: int, answers: Sequence[Completion], scores: Sequence[float]) -> None:
        """Note answers of a rollout, if it is one of those to show."""
        if number % self.every and number != self.last:
            return
        step, dataset = number * self.steps + 1, self.run.dataset
        prompts = self.run.prompts
        records = dict(zip(map(tuple, prompts.ids), prompts.records, strict=True))
        rows = [
            {
                "step": step,
                "question": question_of(records[tuple(answer.prompt)].as_entry()),
                "answer": text_of(answer.ids, dataset.tokenizer),
                "reward": score,
            }
            for answer, score in list(zip(answers, scores, strict=True))[:ANSWERS]
        ]
        drawn = [row for row in self.extra.get("drawn", []) if row["step"] != step]
        self.extra["drawn"] = drawn + rows


def contents_of(run: PolicyRun) -> dict[str, str]:
    """Return digests of what a run reads."""
    return {
        "the prompts": digest_of_records([run.prompts.records]),
        QUESTIONS: digest_of_records([*run.tests.values(), run.samples]),
        **run.reward.contents,
    }


def notes_of_rollouts(session: Session) -> dict[str, Any]:
    """Return the notes of a run's rollouts, without what another run than before cannot use."""
    notes: dict[str, Any] = session.extra.setdefault("rollouts", {})
    if set(session.changed) - {"steps"}:
        notes.pop("phase", None)  # its answers may be to other prompts, or scored otherwise
        notes.pop("alike_since", None)
    if "beta" in session.changed:
        notes.pop("beta", None)
    return notes


def check_memory(
    run: PolicyRun, settings: PolicySettings, micro_batch: int, name: str
) -> str | None:
    """Return a warning if a step of a run takes more memory than is free.

    A micro-batch has prompts with all of their answers in grpo, answers in ppo.  Raises UserError
    if it takes more than there is.
    """
    answer = run.prompts.longest_answer
    per_item = settings.answers if name == "grpo" else 1
    item = run.prompts.longest - answer + per_item * answer  # rows, at most
    sizes = [MicroBatch(n * item, n * per_item * answer) for n in (micro_batch, 1)]
    parameters = run.model.parameters
    return check_answers(
        parameters.config,
        array_module(parameters.flat),
        settings.precision,
        sizes,
        MemoryOptions(recompute=settings.recompute),
        Needs(
            answers=settings.prompts * settings.answers,
            rows=run.prompts.longest,
            samples=settings.answers,
            prompt=run.prompts.longest - answer,
        ),
    )


def introduce(run: PolicyRun, settings: PolicySettings, log: RunLog) -> None:
    """Print the run's model, device, data, reward and folder."""
    introduce_model(run.model.parameters, model_line(run, settings), log)
    line = data_line(run)
    most = run.prompts.longest_answer
    log.say("data", line, described=line, prompts=len(run.prompts.ids), longest_answer=most)
    log.say("reward", run.reward.line, described=run.reward.line)
    log.say("run", str(log.folder), folder=str(log.folder))


def model_line(run: PolicyRun, settings: PolicySettings) -> str:
    """Return a line that describes the policy."""
    return describe_model(settings.model, "policy and reference", run.model.parameters.config)


def warnings_of_run(run: PolicyRun, settings: PolicySettings) -> list[str]:
    """Return what a user should know before training."""
    return [] if run.is_tuned else [warning_of_start(settings.model)]


def data_line(run: PolicyRun) -> str:
    """Return a line that describes the prompts."""
    return f"{run.dataset.name} ({run.dataset.format}): {run.prompts.line()}"


def page_of(
    run: PolicyRun, tuning: TuningRun, settings: PolicySettings, log: RunLog, **others: Any
) -> str:
    """Return the report as HTML."""
    return run_page(
        Page(
            **ending_of(tuning, log),
            model=model_line(run, settings),
            data=data_line(run),
            cuts=f"Reward: {run.reward.line}.",
            warnings=warnings_of_run(run, settings),
            lengths={"prompt": np.array([len(ids) for ids in run.prompts.ids])},
            examples={},
            settings=asdict(settings),
            **others,
        )
    )
