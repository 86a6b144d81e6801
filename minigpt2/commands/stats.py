"""Stats: a data set in numbers, before training.

This is `minigpt2 stats`.  It prints tables of lengths, of what each context would cut, of repeated
questions, and of the rows that an epoch computes; it draws the lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.table import Table

from minigpt2.backend import Array
from minigpt2.commands.dataset import DataSettings, open_dataset, open_reader, warnings_of
from minigpt2.data.batches import EpochBatches, TrainingSet, split, training_set
from minigpt2.data.examples import Example
from minigpt2.data.records import Record
from minigpt2.data.statistics import (
    QUANTILES,
    Lengths,
    Summary,
    count_repeated,
    count_rows,
    lengths_of,
    near_duplicates,
    normalised_question,
    whole_question,
)
from minigpt2.data.truncation import Policy, truncate_all
from minigpt2.errors import UserError, require_at_least, require_picture, require_share
from minigpt2.outputs import require_new_file, whole_file
from minigpt2.reports.plots import draw_lengths
from minigpt2.reports.progress import progress, tracked
from minigpt2.reports.screen import Screen, new_table
from minigpt2.wording import plural, shorten

CONTEXTS = (64, 128, 256, 512, 1024)
BINS, WIDTH = 10, 30  # of a histogram in the terminal
MOST_PAIRS = 3  # near-duplicates that are printed


@dataclass(frozen=True, kw_only=True)
class StatsSettings(DataSettings):
    """Measure a data set: lengths, cuts, repeated questions, and rows to compute.

    Examples:
        minigpt2 stats questions.json
        minigpt2 stats questions.json --model gpt2 --figure lengths.png

    Args:
        contexts: context lengths, for each of which the cuts are counted (default: 64, 128, ...
            up to the model's)
        batch_size: examples in one optimiser step
        micro_batch: examples computed at once (default: batch_size)
        validation: share of the examples for validation, as in a training run
        seed: seed of the split and of the order, as in a training run
        figure: also draw the lengths into this PNG, SVG or PDF file
    """

    contexts: list[int] | None = None
    batch_size: int = 8
    micro_batch: int | None = None
    validation: float = 0.05
    seed: int = 0
    figure: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "batch_size", "micro_batch")
        require_at_least(0, self, "seed")
        require_share(self, "validation")
        require_picture(self, "figure")
        if min(self.contexts or [1]) < 1:
            raise UserError("each of contexts must be at least 1")


def stats(settings: StatsSettings) -> None:
    """Print the tables; draw the picture."""
    require_new_file(settings.figure, "--figure")
    console = Screen()
    with progress(f"reading {settings.data}"):
        reader = open_reader(settings.model)
        dataset = open_dataset(settings, reader)
        examples = dataset.encode(dataset.records)
    lengths = lengths_of(examples)
    console.print(
        f"{dataset.name}: {plural(len(examples), 'example')}, {dataset.format}, "
        f"vocabulary of {settings.model}",
        markup=False,
    )
    console.print(length_table(lengths))
    kinds = {"prompt": lengths.prompt, "answer": lengths.answer}
    for name, counts in kinds.items():
        console.print(histogram(name, counts))
    contexts = settings.contexts or [length for length in CONTEXTS if length <= reader.longest]
    contexts = sorted({*contexts, dataset.context})
    console.print(cut_table(examples, contexts, dataset.truncate))
    print_repetitions(console, dataset.records, settings.validation, settings.seed)
    trained = training_set(
        examples,
        dataset.context,
        dataset.truncate,
        validation=settings.validation,
        seed=settings.seed,
    )
    epoch = EpochBatches(
        trained.training,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch or settings.batch_size,
        seed=settings.seed,
    )
    console.print("\nTraining", style="bold")
    console.print(describe_training(dataset.context, trained, epoch))
    if trained.training:
        console.print(row_table(epoch))
    for warning in warnings_of(dataset.records, trained.cuts):
        console.print(f"warning: {warning}")
    if settings.figure:
        title = f"{Path(settings.data).name}, vocabulary of {settings.model}"
        with whole_file(settings.figure) as file:
            draw_lengths(file, kinds, title)
        console.print(f"lengths drawn in {settings.figure}")


def length_table(lengths: Lengths) -> Table:
    """Return totals, means and quantiles."""
    names = [{0.0: "min", 0.5: "median", 1.0: "max"}.get(q, f"{q:.0%}") for q in QUANTILES]
    table = new_table("\nTokens", "", "total", "mean", *names)
    kinds = {"prompt": lengths.prompt, "answer": lengths.answer, "both": lengths.both}
    for name, counts in kinds.items():
        total, mean, quantiles = Summary.of(counts)
        table.add_row(name, f"{total:,}", f"{mean:.1f}", *(f"{q:,}" for q in quantiles))
    return table


def histogram(name: str, counts: Array) -> Table:
    """Return a histogram of lengths as bars; the last bin has all longer ones."""
    table = new_table(f"\nLength of the {name}", "tokens", "examples", "")
    table.columns[2].justify = "left"
    top = float(np.quantile(counts, 0.99))
    edges = np.unique(np.round(np.linspace(counts.min(), max(top, counts.min() + 1), BINS + 1)))
    edges = edges.astype(int)
    numbers = [np.sum((counts >= a) & (counts < b)) for a, b in pairwise(edges)]
    numbers[-1] += np.sum(counts >= edges[-1])
    for k, number in enumerate(numbers):
        last = k == len(numbers) - 1
        longest = edges[k + 1] - 1
        label = f"{edges[k]}-{longest}" if longest > edges[k] else f"{edges[k]}"
        label = f"{edges[k]}+" if last else label
        table.add_row(label, f"{number:,}", "█" * round(WIDTH * number / max(numbers)))
    return table


def cut_table(examples: Sequence[Example], contexts: Sequence[int], policy: Policy) -> Table:
    """Return the numbers of cuts, by context."""
    title = f"\nExamples that lose tokens, and their tokens, with --truncate {policy}"
    names = ("answers", "prompts", "earlier turns", "question gone", "dropped", "tokens")
    table = new_table(title, "context", *names)
    for context in tracked("counting cuts", contexts):
        _, cuts = truncate_all(examples, context, policy)
        counts = (cuts.answers, cuts.prompts, cuts.conversations, cuts.no_question, cuts.dropped)
        table.add_row(f"{context:,}", *(f"{count:,}" for count in (*counts, cuts.tokens)))
    return table


def print_repetitions(
    console: Screen, records: Sequence[Record], validation: float, seed: int
) -> None:
    """Print the number of repeated questions, and of validation questions in the training set."""
    parts = split(records, validation, seed)
    training, held_out = ([normalised_question(record) for record in part] for part in parts)
    repeated, copies = count_repeated([*training, *held_out])
    verb = "is" if repeated == 1 else "are"
    console.print("\nRepetitions", style="bold")
    console.print(
        f"{plural(repeated, 'question')} {verb} there more than once: without the repetitions "
        f"{len(records) - copies:,} of {plural(len(records), 'example')} would be left"
        if repeated
        else "no question is there more than once"
    )
    if not held_out:
        return
    with progress("comparing questions", len(held_out), console) as advance:
        pairs = near_duplicates(held_out, training, advance)
    same = sum(pair.similarity == 100 for pair in pairs)
    console.print(
        f"of {plural(len(held_out), 'validation question')} (seed {seed}), {same:,} repeated in "
        f"the {len(training):,} for training, and {len(pairs) - same:,} with a near copy there "
        "(90 % alike or more)"
    )
    near = sorted((p for p in pairs if p.similarity < 100), key=lambda p: -p.similarity)
    for pair in near[:MOST_PAIRS]:
        console.print(f"  {pair.similarity:.0f} % alike", style="dim")
        for record in (parts[1][pair.question], parts[0][pair.candidate]):
            console.print(f"    {shorten(whole_question(record), 110)}")


def describe_training(context: int, trained: TrainingSet, epoch: EpochBatches) -> str:
    """Return what a training run with these settings takes, in a line."""
    counts = trained.counts()
    return (
        f"context {context:,}, batches of {epoch.batch_size:,}: "
        f"{plural(counts['training'], 'example')} for training, {counts['validation']:,} for "
        f"validation; {plural(counts['prompt_tokens'], 'prompt token')}, "
        f"{plural(counts['answer_tokens'], 'answer token')}; an epoch has "
        f"{plural(epoch.steps, 'step')}"
    )


def row_table(epoch: EpochBatches) -> Table:
    """Return the rows that an epoch computes, padded, packed and as a forest."""
    rows = count_rows(tracked("counting rows", list(epoch.epoch())))
    names = ("", "rows", "of padded")
    table = new_table("\nRows computed in an epoch", *names)
    labels = ("padded to the longest of the batch", "packed, without padding", "the forest")
    for label, count in zip(labels, rows, strict=True):
        table.add_row(label, f"{count:,}", f"{count / rows.padded:.0%}")
    return table
