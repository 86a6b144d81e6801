"""Evaluate: a model on questions and answers that it was not tuned on, or that it was.

This is `minigpt2 evaluate`: both losses with their perplexities, exact match, and every answer
beside its reference.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from minigpt2.data.examples import encode
from minigpt2.data.opening import open_data
from minigpt2.data.template import open_template
from minigpt2.data.truncation import Policy, truncate_all
from minigpt2.errors import UserError, require_at_least
from minigpt2.inference.answer import open_model
from minigpt2.training.evaluation import answer_all, exact_match, validation_losses


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

    def __post_init__(self) -> None:
        require_at_least(1, self, "context", "batch_size", "max_new_tokens")


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Print the numbers; return them, with the answers, as the file has them."""
    if settings.out and settings.out.exists():
        raise UserError(f"{settings.out} exists already: choose another --out, or move it")
    console = Console(highlight=False, soft_wrap=True)
    with console.status(f"opening {settings.model} and {settings.data}"):
        data = open_data(settings.data, settings.columns)
        parameters, tokenizer, tuned = open_model(settings.model)
    own = None if settings.template else tuned
    template = own or open_template(settings.template or data.format.template)
    context = settings.context or parameters.config.n_positions
    if context > parameters.config.n_positions:
        longest = parameters.config.n_positions
        raise UserError(f"context {context} is longer than the model's {longest}")
    encoded = (encode(record, tokenizer, template) for record in data.records)
    examples, cuts = truncate_all(encoded, context, settings.truncate)
    questions = [record for record in data.records if not record.is_text]
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("computing the loss", total=len(examples))
        losses = validation_losses(
            parameters, examples, settings.batch_size, lambda count: bar.advance(task, count)
        )
        task = bar.add_task("answering", total=len(questions), visible=settings.answers)
        answers = answer_all(
            parameters,
            tokenizer,
            questions if settings.answers else [],
            settings.max_new_tokens,
            lambda count: bar.advance(task, count),
            template,
        )
    numbers: dict[str, Any] = {**losses.numbers(), "cuts": vars(cuts)}
    for kind, loss, perplexity in (
        ("tokens", "token_loss", "token_perplexity"),
        ("examples", "example_loss", "example_perplexity"),
    ):
        count = numbers["answer_tokens" if kind == "tokens" else "answers"]
        text = f"loss by {kind} {numbers[loss]:.4f}, perplexity {numbers[perplexity]:.2f}"
        console.print(f"{text}, over {count:,} {'answer tokens' if kind == 'tokens' else kind}")
    if cuts.prompts or cuts.answers or cuts.dropped:
        console.print(
            f"over the context of {context}: {cuts.prompts} prompts cut, {cuts.answers} answers "
            f"cut, {cuts.dropped} dropped"
        )
    if answers:
        right = sum(answer.exact for answer in answers)
        numbers |= {"right": right, "asked": len(answers), "exact_match": exact_match(answers)}
        share = numbers["exact_match"]
        console.print(f"exact match {right:,} of {len(answers):,} ({share:.1%})")
    result = {**numbers, "rows": [{**a.record.as_entry(), "answer": a.answer} for a in answers]}
    if settings.out:
        text = json.dumps(result, indent=2, ensure_ascii=False)
        settings.out.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        console.print(f"written to {settings.out}", markup=False)
    return result
