"""Fine-tuning: from a model and a data set to a model that answers, with its records.

This is `minigpt2 train`: it opens what the settings name, answers held-out
questions, takes the steps, answers them again, and leaves a folder that holds
everything.  Nothing is written before all that was given has been checked.
"""

from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from minigpt2.data.almanac import questions
from minigpt2.data.batches import Cuts, Example, encode_all, split, windows
from minigpt2.data.records import Record, load_records
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer, open_tokenizer
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL
from minigpt2.model.parameters import Parameters, initialise
from minigpt2.training.checkpoint import save_checkpoint
from minigpt2.training.curve import draw_curve
from minigpt2.training.evaluation import (
    Answer,
    answer_all,
    exact_match,
    longest_reference,
    validation_loss,
)
from minigpt2.training.loop import Plan, train_steps
from minigpt2.training.report import Report, claim_folder, due, log_step
from minigpt2.training.settings import TrainSettings
from minigpt2.weights import find_model, load_parameters

ALMANAC = "almanac"


@dataclass
class Material:
    """What a run works on, opened and checked."""

    parameters: Parameters
    tokenizer: Tokenizer
    training: list[Example]
    validation: list[Example]
    tests: dict[str, list[Record]]
    samples: list[Record]
    cuts: Cuts


def train(settings: TrainSettings) -> dict[str, Any]:
    """Do a whole run; return what its summary.json holds.  Raises UserError for bad input."""
    started = perf_counter()
    material = prepare(settings)
    report = Report(claim_folder(settings.out, Path(settings.data).stem))
    try:
        run(settings, material, report)
        seconds = perf_counter() - started
        report.say("done", f"{seconds:.0f} s in all; see {report.folder}", seconds=seconds)
    finally:
        report.close()
    return report.summary


def open_model(settings: TrainSettings, rng: np.random.Generator) -> tuple[Parameters, Tokenizer]:
    """Return the parameters and the tokenizer that the settings ask for."""
    if settings.from_scratch and settings.model in OFFICIAL:
        return initialise(OFFICIAL[settings.model], rng), gpt2_tokenizer()
    folder = find_model(settings.model)
    parameters, tokenizer = load_parameters(folder), open_tokenizer(folder)
    if tokenizer.n_vocab != parameters.config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.n_vocab} ids, the model "
            f"{parameters.config.vocab_size}"
        )
    if settings.from_scratch:
        parameters = initialise(parameters.config, rng)
    return parameters, tokenizer


def prepare(settings: TrainSettings) -> Material:
    """Open the model and the data."""
    rng = np.random.default_rng([settings.seed, 0])
    if settings.data == ALMANAC:
        asked = questions(0)
        records = [Record(**r) for r in asked.train]
        tests = {
            "held-out facts": [Record(**r) for r in asked.held_out_facts],
            "held-out arithmetic": [Record(**r) for r in asked.held_out_arithmetic],
        }
    else:
        records, tests = load_records(Path(settings.data)), {}
    tests |= {Path(path).stem: load_records(Path(path)) for path in settings.test}
    parameters, tokenizer = open_model(settings, rng)
    context = settings.context or parameters.config.n_positions
    if context > parameters.config.n_positions:
        raise UserError(
            f"context {context} is longer than the model's {parameters.config.n_positions}"
        )
    kept, held = split(records, settings.validation, rng)
    training, cuts = encode_all(kept, tokenizer, context)
    validation, held_cuts = encode_all(held, tokenizer, context)
    cuts = Cuts(
        cuts.examples + held_cuts.examples,
        cuts.prompts + held_cuts.prompts,
        cuts.answers + held_cuts.answers,
    )
    samples = choose_samples(list(tests.values()) or [held], settings.samples, rng)
    return Material(parameters, tokenizer, training, validation, tests, samples, cuts)


def choose_samples(
    sources: list[list[Record]], count: int, rng: np.random.Generator
) -> list[Record]:
    """Draw `count` records, from each source in turn."""
    shuffled = [[source[i] for i in rng.permutation(len(source))] for source in sources]
    rounds = zip(*(s[:count] for s in shuffled), strict=False)
    return [record for together in rounds for record in together][:count]


def run(settings: TrainSettings, material: Material, report: Report) -> None:
    """Answer, take the steps, answer again; write everything."""
    report.write("settings.json", asdict(settings))
    introduce(settings, material, report)
    before = ask(settings, material, report, "before")
    parameters, tokenizer = material.parameters, material.tokenizer
    plan = make_plan(settings, material)
    micro_batch = settings.micro_batch or settings.batch_size
    rng = np.random.default_rng([settings.seed, 1])
    batches = windows(material.training, settings.batch_size, micro_batch, rng)
    losses: list[float] = []
    validations: list[tuple[int, float]] = []
    with report.progress("training", plan.steps) as advance:
        for step in train_steps(parameters, batches, plan, rng):
            losses.append(step.loss)
            log_step(step, plan.steps, settings.log_every, report)
            last = step.step == plan.steps
            if material.validation and (last or due(step.step, settings.evaluate_every)):
                loss, tokens = validation_loss(parameters, material.validation, micro_batch)
                validations.append((step.step, loss))
                entry = {"step": step.step, "validation_loss": loss, "tokens": tokens}
                report.log(entry, f"step {step.step}: validation loss {loss:.4f} ({tokens} tokens)")
            if last or due(step.step, settings.save_every):
                save_checkpoint(report.folder / "checkpoint", parameters, tokenizer)
            advance(1)
    after = ask(settings, material, report, "after")
    compare(material, before, after, report)
    title = f"{settings.model} on {Path(settings.data).stem}"
    if not draw_curve(report.folder / "loss.png", losses, validations, title):
        report.say("curve", "not drawn: matplotlib is not installed (pip install 'minigpt2[plot]')")


def make_plan(settings: TrainSettings, material: Material) -> Plan:
    """Return how many steps to take, and how."""
    per_epoch = ceil(len(material.training) / settings.batch_size)
    steps = settings.steps or max(1, round(settings.epochs * per_epoch))
    warmup = round(settings.warmup * steps)
    return Plan(
        steps,
        settings.learning_rate,
        warmup,
        settings.schedule,
        settings.adamw(),
        settings.dropout,
        settings.recompute,
    )


def introduce(settings: TrainSettings, material: Material, report: Report) -> None:
    """Print what the run works on."""
    config = material.parameters.config
    start = "random weights" if settings.from_scratch else "trained weights"
    report.say(
        "model",
        f"{settings.model}, {start}: {config.n_parameters:,} parameters, "
        f"context {config.n_positions}, vocabulary {config.vocab_size:,}",
        parameters=config.n_parameters,
        context=config.n_positions,
        vocabulary=config.vocab_size,
    )
    examples = material.training + material.validation
    prompt = sum(len(e.prompt) for e in examples)
    answer = sum(len(e.answer) for e in examples)
    cuts = material.cuts
    report.say(
        "data",
        f"{settings.data}: {len(material.training):,} examples to train on, "
        f"{len(material.validation):,} to validate; {prompt:,} prompt tokens (masked), "
        f"{answer:,} answer tokens (supervised)",
        training=len(material.training),
        validation=len(material.validation),
        prompt_tokens=prompt,
        answer_tokens=answer,
    )
    report.say(
        "context",
        f"over the limit: {cuts.prompts} prompts cut, {cuts.answers} answers cut",
        prompts_cut=cuts.prompts,
        answers_cut=cuts.answers,
    )
    report.say("run", str(report.folder))


def ask(
    settings: TrainSettings, material: Material, report: Report, when: str
) -> dict[str, list[Answer]]:
    """Answer the test questions, print and return them; without tests, the samples alone."""
    parameters, tokenizer = material.parameters, material.tokenizer
    sources = material.tests or ({"samples": material.samples} if material.samples else {})
    answers = {}
    for name, records in sources.items():
        longest = settings.max_new_tokens
        if material.tests:
            longest = longest_reference(tokenizer, records)
        with report.progress(f"answering {name}", len(records)) as advance:
            answers[name] = answer_all(parameters, tokenizer, records, longest, advance)
        if material.tests:
            share = exact_match(answers[name])
            right = sum(a.exact for a in answers[name])
            report.say(
                when,
                f"{name}: {right} of {len(records)} exactly right ({share:.1%})",
                **{name: {"right": right, "asked": len(records), "exact_match": share}},
            )
    return answers


def compare(
    material: Material,
    before: dict[str, list[Answer]],
    after: dict[str, list[Answer]],
    report: Report,
) -> None:
    """Print the samples' answers before and after, and write all answers."""
    rows = [
        {
            "set": name,
            **record._asdict(),
            "before": old.answer,
            "after": new.answer,
            "exact": new.exact,
        }
        for name in after
        for record, old, new in zip(
            (a.record for a in after[name]), before[name], after[name], strict=True
        )
    ]
    report.write("answers.json", rows)
    chosen = [row for record in material.samples for row in rows if is_about(row, record)]
    for row in chosen:
        question = " / ".join(filter(None, (row["instruction"], row["input"])))
        report.console.print(f"\n[bold]{question}[/bold]", markup=True)
        for label, key in (("before", "before"), ("after", "after"), ("right", "output")):
            report.console.print(f"  {label:<7} {shorten(row[key])}", markup=False)
    report.summary["answers"] = chosen


def is_about(row: dict[str, Any], record: Record) -> bool:
    """Whether a row of answers belongs to a record."""
    return all(row[field] == value for field, value in record._asdict().items())


def shorten(text: str, width: int = 160) -> str:
    """Return a text on one line, cut to a width."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
