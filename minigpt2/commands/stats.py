"""Stats: what is told of a data set before it is trained on.

This is `minigpt2 stats`: tables of lengths, of what each context would cut, of what is repeated
across the split, and of the rows that an epoch computes; and the lengths as a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from minigpt2.backend import Array
from minigpt2.commands.dataset import DataSettings, Opened, open_examples, split_records
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
    total_cuts,
)
from minigpt2.errors import UserError, require_at_least, require_picture, require_share
from minigpt2.reports.tables import table_of

BINS, WIDTH = 10, 30  # of a histogram in the terminal
SHOWN = 3  # near-duplicates that are printed


@dataclass(frozen=True)
class StatsSettings(DataSettings):
    """Measure a data set: lengths, what is cut, what is repeated, what is computed.

    Args:
        contexts: lengths of context for which cuts are counted
        batch_size: examples in one optimiser step
        validation: share of the examples that a training run would hold back
        seed: of the split and of the order, as of a training run
        figure: draw the lengths into this PNG, too
    """

    contexts: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 1024])
    batch_size: int = 8
    validation: float = 0.05
    seed: int = 0
    figure: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "batch_size")
        require_at_least(0, self, "seed")
        require_share(self, "validation")
        require_picture(self, "figure")
        if min(self.contexts, default=1) < 1:
            raise UserError("contexts must be at least 1 each")


def stats(settings: StatsSettings) -> None:
    """Print the tables; draw the picture."""
    if settings.figure and settings.figure.exists():
        raise UserError(f"{settings.figure} exists already: choose another --figure, or move it")
    console = Console(highlight=False, soft_wrap=True)
    with console.status(f"reading {settings.data}"):
        opened = open_examples(settings)
    lengths = lengths_of(opened.examples)
    console.print(
        f"{settings.data}: {len(opened.examples):,} examples, {opened.data.format.name}, "
        f"vocabulary of {settings.model}",
        markup=False,
    )
    console.print(length_table(lengths))
    for name, counts in (("prompt", lengths.prompt), ("answer", lengths.answer)):
        console.print(histogram(name, counts))
    console.print(cut_table(opened, settings))
    print_repetitions(console, opened.data.records, settings)
    console.print(row_table(opened.examples, settings))
    if settings.figure:
        draw_lengths(settings.figure, lengths, settings)
        console.print(f"lengths drawn in {settings.figure}", markup=False)


def length_table(lengths: Lengths) -> Table:
    """Return totals, means and quantiles."""
    names = [{0.0: "min", 0.5: "median", 1.0: "max"}.get(q, f"{q:.0%}") for q in QUANTILES]
    table = table_of("\nTokens", "", "total", "mean", *names)
    kinds = {"prompt Q": lengths.prompt, "answer A": lengths.answer, "both": lengths.both}
    for name, counts in kinds.items():
        total, mean, quantiles = Summary.of(counts)
        table.add_row(name, f"{total:,}", f"{mean:.1f}", *(f"{q:,}" for q in quantiles))
    return table


def histogram(name: str, counts: Array) -> Table:
    """Return bars of how many examples have which length; the last bin has all longer ones."""
    table = table_of(f"\nLength of the {name}", "tokens", "examples", "")
    table.columns[2].justify = "left"
    top = float(np.quantile(counts, 0.99))
    edges = np.unique(np.round(np.linspace(counts.min(), max(top, counts.min() + 1), BINS + 1)))
    edges = edges.astype(int)
    numbers = [np.sum((counts >= a) & (counts < b)) for a, b in pairwise(edges)]
    numbers[-1] += np.sum(counts >= edges[-1])
    for k, number in enumerate(numbers):
        last = k == len(numbers) - 1
        label = f"{edges[k]}+" if last else f"{edges[k]}-{edges[k + 1] - 1}"
        table.add_row(label, f"{number:,}", "█" * round(WIDTH * number / max(numbers)))
    return table


def cut_table(opened: Opened, settings: StatsSettings) -> Table:
    """Return what each context would cut."""
    title = f"\nOver the context, cutting by the policy {settings.truncate!r}"
    names = ("prompts cut", "answers cut", "dropped", "prompt tokens lost", "answer tokens lost")
    table = table_of(title, "context", *names)
    for context in sorted({*settings.contexts, opened.context}):
        cuts = total_cuts(opened.examples, context, settings.truncate)
        counts = (cuts.prompts, cuts.answers, cuts.dropped, cuts.prompt_tokens, cuts.answer_tokens)
        table.add_row(f"{context:,}", *(f"{count:,}" for count in counts))
    return table


def print_repetitions(console: Console, records: Sequence[Record], settings: StatsSettings) -> None:
    """Print how many questions are repeated, and how many of those held back are known."""
    kept, held = split_records(records, settings.validation, settings.seed)
    known, asked = ([normalised_question(record) for record in part] for part in (kept, held))
    console.print("\n[bold]Repetitions[/bold]")
    console.print(f"{count_repeated([*known, *asked]):,} questions are in the data more than once")
    if not held:
        return
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("comparing questions", total=len(asked))
        pairs = near_duplicates(asked, known, lambda count: bar.advance(task, count))
    same = sum(pair.similarity == 100 for pair in pairs)
    console.print(
        f"of {len(held):,} that would be held back (seed {settings.seed}) {same:,} are also among "
        f"the {len(kept):,} to train on, and {len(pairs) - same:,} nearly so"
    )
    near = [pair for pair in pairs if pair.similarity < 100]
    for pair in sorted(near, key=lambda pair: -pair.similarity)[:SHOWN]:
        console.print(f"  {pair.similarity:.0f} % alike", style="dim")
        for text in (asked[pair.question], known[pair.candidate]):
            console.print(f"    {text[:110]}", markup=False)


def row_table(examples: Sequence[Example], settings: StatsSettings) -> Table:
    """Return the rows that an epoch computes, padded, packed and as a forest."""
    rows = count_rows(examples, settings.batch_size, np.random.default_rng([settings.seed, 1, 0]))
    table = table_of(f"\nRows of an epoch, {settings.batch_size} a batch", "", "rows", "beside")
    labels = ("padded to the longest of the batch", "without padding", "the forest: shared once")
    for label, count in zip(labels, rows, strict=True):
        table.add_row(label, f"{count:,}", f"{count / rows.padded:.0%}")
    return table


def draw_lengths(path: Path, lengths: Lengths, settings: StatsSettings) -> None:
    """Write a PNG of the histograms; raises UserError where there is no library to draw it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a figure needs matplotlib: pip install 'minigpt2[plot]'") from None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    kinds = {"prompt": lengths.prompt, "answer": lengths.answer}
    for axes, (name, counts) in zip(figure.subplots(1, 2), kinds.items(), strict=True):
        axes.hist(counts, bins=40, color="#3b7ea1")
        axes.axvline(counts.mean(), color="#b33", linewidth=1)
        axes.annotate(
            f"mean {counts.mean():.1f}",
            (counts.mean(), 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color="#b33",
            va="top",
        )
        axes.set(xlabel=f"tokens of the {name}", ylabel="examples")
        axes.grid(alpha=0.3)
    figure.suptitle(f"{Path(settings.data).name}, vocabulary of {settings.model}", fontsize=10)
    figure.savefig(path, dpi=120)
