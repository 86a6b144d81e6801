"""Show: what a model is trained on, token by token.

This is `minigpt2 show`.  A prompt is grey, answer tokens that are supervised are green, and prompt
tokens with a weight yellow; end-of-text and line breaks are spelled out.  Below each entry is the
shift by one: the row that reads a token predicts the next one.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from minigpt2.commands.dataset import (
    Dataset,
    WeightedDataSettings,
    open_dataset,
    open_reader,
)
from minigpt2.data.examples import Example, Removed, spells_end_of_text
from minigpt2.data.loss_weights import RESPONSE_ONLY, LossWeights
from minigpt2.data.truncation import fit_to_context
from minigpt2.data.vocabulary import END_OF_TEXT
from minigpt2.errors import UserError, require_at_least
from minigpt2.outputs import require_new_file, write_texts
from minigpt2.reports.html import render
from minigpt2.reports.screen import Screen
from minigpt2.reports.tokens import GAP, Token, tokens_of
from minigpt2.terminal import say
from minigpt2.wording import plural


@dataclass(frozen=True, kw_only=True)
class ShowSettings(WeightedDataSettings):
    """Show what a model is trained on, token by token.

    Examples:
        minigpt2 show questions.json --count 1
        minigpt2 show questions.json --model gpt2 --html entries.html

    Args:
        first: number of the first entry to show, counted from 0 in the file
        count: number of entries to show
        html: write the entries to this HTML file instead
    """

    first: int = 0
    count: int = 3
    html: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "first")
        require_at_least(1, self, "count")


class Entry(NamedTuple):
    """An entry as the model is trained on it: a line about it, and its tokens unless dropped."""

    number: int
    line: str
    tokens: list[Token] | None


def show(settings: ShowSettings) -> None:
    """Print the entries, or write the page."""
    require_new_file(settings.html, "--html")
    dataset = open_dataset(settings, open_reader(settings.model))
    total = dataset.numbers[-1] + 1
    if settings.first >= total:
        raise UserError(
            f"{settings.data} has {plural(total, 'entry')}: first must be below {total}"
        )
    start = bisect_left(dataset.numbers, settings.first)
    places = range(start, min(start + settings.count, len(dataset.records)))
    entries = [entry(dataset, place, settings.loss_weights()) for place in places]
    if settings.html is None:
        console = Screen(wrap=True)
        for shown in entries:
            print_entry(console, shown)
        return
    page = render("show", title=f"{dataset.name}, {dataset.format}", entries=entries)
    write_texts({settings.html: page})
    say(f"{plural(len(entries), 'entry')} written to {settings.html}")


def entry(dataset: Dataset, place: int, loss_weights: LossWeights) -> Entry:
    """Return an entry of a data set as the model is trained on it; its place is among the records.

    Its number is that of the file: it counts the entries that were left out.
    """
    number, record = dataset.numbers[place], dataset.records[place]
    (example,) = dataset.encode([record])
    parts = fit_to_context(example, dataset.context, dataset.truncate)
    if not parts:
        tokens = plural(len(example.ids), "token")
        line = f"{tokens}: longer than the context of {dataset.context:,}, dropped"
        return Entry(number, line, None)
    piece = parts[0]
    line = describe(piece, loss_weights)
    if spells_end_of_text(record):
        line += f"; the text spells {END_OF_TEXT} (with a {GAP} here): no end, but ordinary tokens"
    if len(parts) > 1:
        line += f"; the first piece of {len(parts)}"
    return Entry(number, line, tokens_of(piece, loss_weights.of(piece), dataset.tokenizer))


def describe(example: Example, loss_weights: LossWeights) -> str:
    """Return a line about an example."""
    answer = sum(example.is_answer)
    prompt = len(example.ids) - answer
    line = f"{plural(prompt, 'prompt token')}, {plural(answer, 'answer token')}"
    cut = [f"{count} of the {name}" for name, count in parts_cut(example.removed) if count]
    if cut:
        line += f"; cut: {', '.join(cut)}"
    if example.removed.no_question:
        line += "; nothing of the question is left"
    if loss_weights != RESPONSE_ONLY:
        weights = loss_weights.of(example)
        first = example.first_answer
        line += f"; weight of a prompt token {weights[first - 1]:.4g}"
        line += f", of an answer token {weights[first]:.4g}"
    return line


def parts_cut(removed: Removed) -> list[tuple[str, int]]:
    """Return the parts of an example, each with the number of its tokens that were cut."""
    return [
        ("earlier exchanges", removed.exchanges),
        ("input", removed.input),
        ("instruction", removed.instruction),
        ("template", removed.template),
        ("answer", removed.answer),
    ]


def print_entry(console: Screen, shown: Entry) -> None:
    """Print one entry in colour, and its shift."""
    console.print(Text.assemble("\n", (f"entry {shown.number}", "bold"), f"  {shown.line}"))
    if shown.tokens is None:
        return
    body = Text()
    for token in shown.tokens:
        style = "green" if token.weight and token.is_answer else "bright_black"
        style = "yellow" if token.weight and not token.is_answer else style
        text = token.spelled.replace("\n", "↵\n").replace("\t", "→\t")
        body.append(text, f"{style} reverse" if token.is_special else style)
    console.print(body)
    console.print(shift(shown.tokens))


def shift(tokens: Sequence[Token]) -> Table:
    """Return a table of rows, each with the token it reads and the one it predicts.

    It has the rows around the beginning and the end of answers.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("row", "reads", "predicts", "weight"):
        table.add_column(name, justify="right" if name in ("row", "weight") else "left")
    last = -1
    for place in places(tokens):
        if place != last + 1:
            table.add_row("…")
        reads, target = tokens[place], tokens[place + 1]
        style = "green" if target.weight and target.is_answer else "bright_black"
        texts = (Text(token.quoted) for token in (reads, target))
        table.add_row(str(place), *texts, f"{target.weight:.4g}", style=style)
        last = place
    return table


def places(tokens: Sequence[Token]) -> Iterator[int]:
    """Yield the rows near the beginning or the end of an answer."""
    for row in range(len(tokens) - 1):
        near = tokens[max(0, row - 1) : row + 3]
        if len({token.is_answer for token in near}) == 2 or row == len(tokens) - 2:
            yield row
