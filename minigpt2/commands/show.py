"""Show: what a model is trained on, token by token.

This is `minigpt2 show`.  A prompt is grey, what is supervised is green, end-of-text and line
breaks are spelled.  Below each entry stands the shift: which token's row predicts which, since
the row that reads a token predicts the next one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from minigpt2.commands.dataset import DataSettings, Opened, open_examples
from minigpt2.data.examples import Example
from minigpt2.data.loss_weights import RESPONSE_ONLY
from minigpt2.data.truncation import fit_to_context
from minigpt2.errors import UserError, require_at_least
from minigpt2.reports.html import render
from minigpt2.reports.tokens import Token, tokens_of


@dataclass(frozen=True)
class ShowSettings(DataSettings):
    """Show what a model is trained on.

    Args:
        first: number of the first entry, counted from 0
        count: how many entries
        html: write a page of them to this file instead
    """

    first: int = 0
    count: int = 3
    html: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "first")
        require_at_least(1, self, "count")


def visible(text: str) -> str:
    """Spell line breaks and tabs out, beside themselves."""
    return text.replace("\n", "↵\n").replace("\t", "→\t")


def show(settings: ShowSettings) -> None:
    """Print the chosen entries, or write the page."""
    opened = open_examples(settings)
    entries = len(opened.examples)
    if settings.first >= entries:
        raise UserError(f"{settings.data} has {entries} entries: first must be below {entries}")
    chosen = islice(enumerate(opened.examples), settings.first, settings.first + settings.count)
    if settings.html is None:
        console = Console(highlight=False)
        for number, example in chosen:
            print_entry(console, number, example, opened, settings)
        return
    if settings.html.exists():
        raise UserError(f"{settings.html} exists already: choose another --html, or move it")
    parts = [page_entry(number, example, opened, settings) for number, example in chosen]
    title = f"{settings.data}, {opened.data.format.name}"
    page = render("show", title=title, entries=parts)
    settings.html.write_text(page, encoding="utf-8")
    print(f"{len(parts)} entries written to {settings.html}")


def cut_to_context(
    example: Example, opened: Opened, settings: ShowSettings
) -> tuple[Example | None, str]:
    """Return an example as it is trained on, None if it is dropped, and a line about it."""
    parts = fit_to_context(example, opened.context, settings.truncate)
    if not parts:
        return None, f"{len(example.ids)} tokens: over the context of {opened.context}, dropped"
    kept, more = parts[0], len(parts) - 1
    answer = sum(kept.is_answer)
    text = f"{len(kept.ids) - answer} prompt tokens, {answer} answer tokens"
    if more:
        text += f"; the first piece of {more + 1}"
    if kept.prompt_cut or kept.answer_cut:
        text += f"; cut: {kept.prompt_cut} of the prompt, {kept.answer_cut} of the answer"
    if settings.loss_weights() != RESPONSE_ONLY:
        weights = settings.loss_weights().of(kept)
        prompt, of_answer = weights[kept.first_answer - 1], weights[kept.first_answer]
        text += f"; weight of a prompt token {prompt:.4g}, of an answer token {of_answer:.4g}"
    return kept, text


def print_entry(
    console: Console, number: int, example: Example, opened: Opened, settings: ShowSettings
) -> None:
    """Print one entry in colour, and its shift."""
    kept, line = cut_to_context(example, opened, settings)
    console.print(f"\n[bold]entry {number}[/bold]  {line}")
    if kept is None:
        return
    tokens = tokens_of(kept, settings.loss_weights().of(kept), opened.tokenizer)
    body = Text()
    for token in tokens:
        style = "green" if token.weight and token.is_answer else "bright_black"
        style = "yellow" if token.weight and not token.is_answer else style
        body.append(visible(token.text), f"{style} reverse" if token.is_special else style)
    console.print(body)
    console.print(shift(tokens))


def shift(tokens: Sequence[Token]) -> Table:
    """Return a table of which row predicts what, around the beginnings and the end of answers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("row", "reads", "predicts", "weight"):
        table.add_column(name, justify="right" if name in ("row", "weight") else "left")
    shown = -1
    for place in places(tokens):
        if place != shown + 1:
            table.add_row("…")
        reads, target = tokens[place], tokens[place + 1]
        style = "green" if target.weight and target.is_answer else "bright_black"
        texts = (Text(token.quoted) for token in (reads, target))
        table.add_row(str(place), *texts, f"{target.weight:.4g}", style=style)
        shown = place
    return table


def places(tokens: Sequence[Token]) -> Iterator[int]:
    """Yield the rows that are near where answers begin or end."""
    for row in range(len(tokens) - 1):
        near = tokens[max(0, row - 1) : row + 3]
        if len({token.is_answer for token in near}) == 2 or row == len(tokens) - 2:
            yield row


def page_entry(
    number: int, example: Example, opened: Opened, settings: ShowSettings
) -> dict[str, Any]:
    """Return what the page shows of an entry."""
    kept, line = cut_to_context(example, opened, settings)
    tokens = kept and tokens_of(kept, settings.loss_weights().of(kept), opened.tokenizer)
    return {"number": number, "line": line, "tokens": tokens}
