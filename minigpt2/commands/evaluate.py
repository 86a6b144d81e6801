"""Evaluate: a model on questions and answers that it was not tuned on, or that it was.

This is `minigpt2 evaluate`: both losses with their perplexities, exact match, and every answer
beside its reference.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from minigpt2.commands.dataset import open_data
from minigpt2.data.examples import encode
from minigpt2.data.formats import DataSet
from minigpt2.data.template import Template, open_template
from minigpt2.data.truncation import Cuts, Policy, truncate_all
from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError, require_at_least
from minigpt2.inference.model import Model, open_model
from minigpt2.training.evaluation import Answer, answer_all, exact_match, validation_losses
from minigpt2.training.losses import Losses


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure a model on questions and answers.

    Args:
        data: file or folder of questions and answers, or "almanac" for the trained ones that ship
        model: folder of a model, folder of a run, or a name
        columns: which field of an entry stands for a format's: {"instruction": "ask"}
        template: alpaca, qa, chat, raw, or a .yaml or .json file with one of your own (default:
            the one that the model was tuned with, else the one that goes with the format)
        context: longest sequence in tokens (default: the model's)
        truncate: what of an example over the context is cut first: prompt, answer, or drop all
        batch_size: examples that are computed at once
        answers: whether to let the model answer, for exact match
        max_new_tokens: longest answer
        out: write the numbers, and all answers beside their references, to this JSON file
        device: cpu, cuda, emulated or auto, as in `minigpt2 answer`
    """

    data: str
    model: str = "tiny"
    columns: dict[str, str] | None = None
    template: str | None = None
    context: int | None = None
    truncate: Policy = "prompt"
    batch_size: int = 8
    answers: bool = True
    max_new_tokens: int = 64
    out: Path | None = None
    device: Device = "auto"

    def __post_init__(self) -> None:
        require_at_least(1, self, "context", "batch_size", "max_new_tokens")


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Print the numbers; return them, with the answers, as the file has them."""
    if settings.out and settings.out.exists():
        raise UserError(f"{settings.out} exists already: choose another --out, or move it")
    console = Console(highlight=False, soft_wrap=True)
    with console.status(f"opening {settings.model} and {settings.data}"):
        data = open_data(settings.data, settings.columns)
        model = open_model(settings.model, open_device(settings.device))
        template = template_for(settings, model, data)
        context = context_for(settings, model)
        encoded = (encode(record, model.tokenizer, template) for record in data.records)
        examples, cuts = truncate_all(encoded, context, settings.truncate)
    asked = [record for record in data.records if not record.is_text] if settings.answers else []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("computing the loss", total=len(examples))
        losses = validation_losses(
            model.parameters, examples, settings.batch_size, lambda count: bar.advance(task, count)
        )
        task = bar.add_task("answering", total=len(asked), visible=bool(asked))
        answers = answer_all(
            model.parameters,
            model.tokenizer,
            asked,
            settings.max_new_tokens,
            lambda count: bar.advance(task, count),
            template,
        )
    numbers = numbers_of(losses, cuts, answers)
    print_numbers(console, numbers, context)
    result = {**numbers, "rows": [{**a.record.as_entry(), "answer": a.answer} for a in answers]}
    if settings.out:
        text = json.dumps(result, indent=2, ensure_ascii=False)
        settings.out.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        console.print(f"written to {settings.out}", markup=False)
    return result


def template_for(settings: EvaluateSettings, model: Model, data: DataSet) -> Template:
    """Return the template that is asked for, else the model's own, else the format's."""
    if settings.template or not model.template:
        return open_template(settings.template or data.format.template)
    return model.template


def context_for(settings: EvaluateSettings, model: Model) -> int:
    """Return how many rows an example may have; raises UserError for more than the model's."""
    longest = model.parameters.config.n_positions
    if (settings.context or 0) > longest:
        raise UserError(f"context {settings.context} is longer than the model's {longest}")
    return settings.context or longest


def numbers_of(losses: Losses, cuts: Cuts, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return all numbers by name."""
    numbers: dict[str, Any] = {**losses.numbers(), "cuts": vars(cuts)}
    if answers:
        right = sum(answer.exact for answer in answers)
        numbers |= {"right": right, "asked": len(answers), "exact_match": exact_match(answers)}
    return numbers


def print_numbers(console: Console, numbers: dict[str, Any], context: int) -> None:
    """Print the losses, what was cut, and exact match."""
    for kind, count in (("token", "answer_tokens"), ("example", "answers")):
        console.print(
            f"loss by {kind}s {numbers[f'{kind}_loss']:.4f}, perplexity "
            f"{numbers[f'{kind}_perplexity']:.2f}, over {numbers[count]:,} "
            f"{count.replace('_', ' ')}"
        )
    cuts = numbers["cuts"]
    if cuts["prompts"] or cuts["answers"] or cuts["dropped"]:
        console.print(
            f"over the context of {context}: {cuts['prompts']} prompts cut, {cuts['answers']} "
            f"answers cut, {cuts['dropped']} dropped"
        )
    if "asked" in numbers:
        right, asked, share = (numbers[key] for key in ("right", "asked", "exact_match"))
        console.print(f"exact match {right:,} of {asked:,} ({share:.1%})")
