"""Blocks of a docstring: headings, paragraphs, equations, examples, lists and tables.

Docstrings are plain text; what a line is can be seen in it (book/lines).  No word is lost and none
is added: the blocks of a docstring have its words, in its order.
"""

import re
from itertools import groupby, pairwise
from typing import NamedTuple

from book.lines import EQUATION, ITEM, indent_of, kinds_of

ROOM = 72  # characters that every text fills, if its sentence goes on
SHORT = ("Definition", "Derivation", "Example", "Forward", "In plain NumPy", "Symbols", "Rule")


class Heading(NamedTuple):
    """A heading, and what its line says besides: 'Example', 'two tokens of one answer'."""

    text: str
    rest: str


class Paragraph(NamedTuple):
    """Lines that flow."""

    text: str


class Item(NamedTuple):
    """An item of a list, with its mark: '1.' or '-'."""

    mark: str
    text: str


class Row(NamedTuple):
    """An equation with its number, such as '4.20', or a formula without one."""

    text: str
    number: str | None


class Display(NamedTuple):
    """Equations one below the other, aligned as they stand in the source."""

    rows: tuple[Row, ...]


class Example(NamedTuple):
    """Python at the prompt, with what it prints."""

    text: str


class Figure(NamedTuple):
    """A table or a drawing of characters, each in its place."""

    text: str


Block = Heading | Paragraph | Item | Display | Example | Figure


class Title(NamedTuple):
    """The first sentence of a module's docstring: 'Layer normalisation', and what it says of it."""

    name: str
    summary: str


def title_of(docstring: str) -> Title:
    """Return the title of a docstring, which ends at the first colon, and what follows it."""
    name, _, rest = title_sentence(docstring).partition(": ")
    return Title(name, rest) if rest else Title(name.rstrip("."), "")


def title_sentence(docstring: str) -> str:
    """Return the text of a docstring up to its first empty line."""
    return flowed(docstring.partition("\n\n")[0].split("\n"))


def blocks_of(docstring: str) -> list[Block]:
    """Return the blocks of a module's docstring, behind its title."""
    lines = docstring.partition("\n\n")[2].split("\n")
    kinds = kinds_of(lines)
    blocks: list[Block] = []
    for name, run in groupby(
        zip(kinds, lines, strict=True), key=lambda pair: pair[0].split(":")[0]
    ):
        pairs = list(run)
        blocks += assembled(name, [kind for kind, _ in pairs], [line for _, line in pairs])
    return blocks


def assembled(name: str, kinds: list[str], lines: list[str]) -> list[Block]:
    """Return the blocks of lines of one kind."""
    if name == "empty":
        return []
    if name == "heading":
        return [split_heading(flowed(lines))]
    if name == "paragraph":
        return [Paragraph(flowed(group)) for group in paragraphs_in(lines)]
    if name == "item":
        return [*items_of(kinds, lines)]
    if name == "equation":
        return [Display(tuple(row_of(line) for line in dedented(lines)))]
    text = "\n".join(dedented(lines))
    return [Example(text) if name == "example" else Figure(text)]


def paragraphs_in(lines: list[str]) -> list[list[str]]:
    """Cut lines where one ends a sentence though it had room for the next line's first word.

    The first line that is no longer indented further begins a paragraph, too.
    """
    groups = [lines[:1]]
    for above, line in pairwise(lines):
        had_room = len(above) + 1 + len(line.split()[0]) <= ROOM
        ends = had_room and above.rstrip().endswith((".", ".)"))
        if ends or indent_of(line) < indent_of(above):
            groups.append([])
        groups[-1].append(line)
    return groups


def items_of(kinds: list[str], lines: list[str]) -> list[Item]:
    """Return the items of a list."""
    items: list[Item] = []
    for kind, line in zip(kinds, lines, strict=True):
        if kind == "item:new":
            match = ITEM.fullmatch(line.strip())
            assert match
            items.append(Item(match["mark"], flowed([match["text"]])))
        else:
            mark, text = items.pop()
            items.append(Item(mark, f"{text} {flowed([line])}"))
    return items


def row_of(line: str) -> Row:
    """Return the equation of a line, with its number."""
    match = EQUATION.fullmatch(line)
    return Row(match["text"], match["number"]) if match else Row(line, None)


def dedented(lines: list[str]) -> list[str]:
    """Return lines without the indentation that all have, and without spaces at their ends."""
    margin = min(indent_of(line) for line in lines if line.strip())
    return [line[margin:].rstrip() for line in lines]


def flowed(lines: list[str]) -> str:
    """Return lines as one, with one space between two words."""
    return " ".join(" ".join(lines).split())


def split_heading(text: str) -> Heading:
    """Return a heading cut at its first comma or colon, if it starts as many do or is long.

    >>> split_heading("Example: two tokens of one answer")
    Heading(text='Example', rest='two tokens of one answer')
    >>> split_heading("Who sees whom")
    Heading(text='Who sees whom', rest='')
    """
    match = re.match(r"([^,:(;]+)[,:;] (.*)", text)
    cut = match and (match[1] in SHORT or len(text) > 80)
    return Heading(match[1], match[2]) if match and cut else Heading(text, "")
