"""Evaluate: a model on questions and answers.

This is `minigpt2 evaluate`.  It prints both losses with their perplexities, and exact match; the
file has every answer next to its reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt2.commands.dataset import (
    Dataset,
    DataSettings,
    open_dataset,
    reader_of,
    warnings_of,
)
from minigpt2.commands.decoding import open_rounded
from minigpt2.data.records import Record
from minigpt2.data.truncation import Cuts, truncate
from minigpt2.device.devices import Device
from minigpt2.errors import require_at_least, require_with
from minigpt2.inference.model import Model
from minigpt2.outputs import require_new_file, write_json
from minigpt2.reports.progress import progress
from minigpt2.reports.screen import Screen, describe_cuts
from minigpt2.training.evaluation import (
    Answer,
    Limits,
    answer_all,
    describe_reach,
    exact_match,
    validation_losses,
)
from minigpt2.training.losses import Losses
from minigpt2.training.precision import Precision
from minigpt2.wording import plural


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(DataSettings):
    """Measure a model on questions and answers.

    Examples:
        minigpt2 evaluate questions.json --model runs/questions-1
        minigpt2 evaluate questions.json --model gpt2 --answers false
        minigpt2 evaluate questions.json --model runs/questions-1 --out answers.json

    Args:
        model: model that is measured: a name, or the folder of a model or of a run
        batch_size: examples computed at once
        answers: let the model answer, too, and count exact matches
        max_new_tokens: longest answer in tokens (default: as long as the longest reference)
        out: write the numbers, and all answers with their references, to this JSON file
        device: auto takes cuda (a GPU, through CuPy) if it works, else cpu; emulated runs the GPU's
            kernels on the CPU, very slowly
        precision: number type of the weights on a GPU; 16 bits are faster, but round what is
            measured
    """

    batch_size: int = 8
    answers: bool = True
    max_new_tokens: int | None = None
    out: Path | None = None
    device: Device = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "batch_size", "max_new_tokens")
        require_with("answers", self, "max_new_tokens")


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Print the numbers; return them with the answers, as in the file."""
    require_new_file(settings.out, "--out")
    console = Screen()
    with progress(f"opening {settings.model} and {settings.data}"):
        model = open_rounded(settings.model, settings.device, settings.precision)
        dataset = open_dataset(settings, reader_of(model))
        examples, cuts = dataset.examples(dataset.records)
    questions = questions_of(dataset) if settings.answers else []
    with progress("computing the loss", len(examples)) as advance:
        losses = validation_losses(model.parameters, examples, settings.batch_size, advance)
    with progress("answering", len(questions)) as advance:
        with_template = Model(model.parameters, model.tokenizer, dataset.template)
        limits = Limits(dataset.context, dataset.truncate, settings.max_new_tokens)
        answers = answer_all(with_template, questions, limits, advance)
    numbers = numbers_of(losses, cuts, answers)
    console.print(describe_losses(numbers))
    if cuts.is_any:
        console.print(f"over the context of {dataset.context}: {describe_cuts(cuts)}")
    for warning in warnings_of(dataset.records, cuts):
        console.print(f"warning: {warning}")
    if answers:
        text = "exact match {right:,} of {asked:,} ({exact_match:.1%})".format(**numbers)
        console.print(text + describe_reach(answers))
    result = {**numbers, "rows": [{**a.record.as_entry(), "answer": a.answer} for a in answers]}
    if settings.out:
        write_json(settings.out, result)
        console.print(f"written to {settings.out}")
    return result


def questions_of(dataset: Dataset) -> list[Record]:
    """Return the records that can be asked, without those that the policy drops."""
    records = [record for record in dataset.records if not record.is_text]
    if dataset.truncate != "drop":
        return records
    pairs = zip(records, dataset.encode(records), strict=True)
    return [record for record, example in pairs if truncate(example, dataset.context, "drop")]


def numbers_of(losses: Losses, cuts: Cuts, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return all numbers by name."""
    numbers: dict[str, Any] = {**losses.numbers(), "cuts": vars(cuts)}
    if answers:
        right = sum(answer.exact for answer in answers)
        numbers |= {"right": right, "asked": len(answers), "exact_match": exact_match(answers)}
    return numbers


def describe_losses(numbers: dict[str, Any]) -> str:
    """Return two lines with the losses and their perplexities."""
    lines = []
    for kind, noun in (("token", "answer token"), ("example", "example")):
        count = numbers["answer_tokens" if kind == "token" else "examples"]
        lines.append(
            f"loss by {kind}s {numbers[f'{kind}_loss']:.4f}, perplexity "
            f"{numbers[f'{kind}_perplexity']:.2f}, over {plural(count, noun)}"
        )
    return "\n".join(lines)
