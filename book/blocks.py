"""Blocks of a docstring: headings, paragraphs, equations, examples, lists and tables.

Docstrings are plain text; what a line is can be seen in it (book/lines).  No word is lost and none
is added: the blocks of a docstring have its words, in its order.
"""

import re
from itertools import groupby
from typing import NamedTuple

from book.lines import EQUATION, ITEM, indent_of, kinds_of
from book.symbols import pieces_of

ROOM = 72  # characters that every text fills, if its sentence continues
NUMBER = re.compile(r"\d+\.\d+")
LABEL = re.compile(r"\[\w+\] |\w+: |Bytes\b|The tile\. ")  # begins a paragraph of its own
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
    """An equation with its numbers, such as '4.20', or a formula without one."""

    text: str
    numbers: tuple[str, ...]


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

    Behind a sentence a label begins a paragraph, too, and so does a line whose next one is indented
    further; and so does the first line that is not.
    """
    groups = [lines[:1]]
    for above, line, below in zip(lines, lines[1:], [*lines[2:], ""], strict=False):
        is_end = above.rstrip().endswith((".", ".)"))
        had_room = len(above) + 1 + len(line.split()[0]) <= ROOM
        begins = had_room or LABEL.match(line.lstrip()) or indent_of(below) > indent_of(line)
        if (is_end and begins) or indent_of(line) < indent_of(above):
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
    """Return the equation of a line, with its numbers."""
    match = EQUATION.fullmatch(line)
    return Row(match["text"], tuple(NUMBER.findall(match["numbers"]))) if match else Row(line, ())


def dedented(lines: list[str]) -> list[str]:
    """Return lines without the indentation that all have, and without spaces at their ends."""
    margin = min(indent_of(line) for line in lines if line.strip())
    return [line[margin:].rstrip() for line in lines]


def flowed(lines: list[str]) -> str:
    """Return lines as one, with one space between two words."""
    return " ".join(" ".join(lines).split())


def split_heading(text: str) -> Heading:
    """Return a heading cut at its first comma or colon, if it starts as many do or is long.

    It is cut as well if a formula or a number follows, which its title cannot show.

    >>> split_heading("Example: two tokens of one answer")
    Heading(text='Example', rest='two tokens of one answer')
    >>> split_heading("Who sees whom")
    Heading(text='Who sees whom', rest='')
    """
    match = re.match(r"((?:[^,:(;]|\([^()]*\))+)[,:;] (.*)", text)
    if not match:
        return Heading(text, "")
    title, rest = match.groups()
    is_cut = title in SHORT or len(text) > 80 or has_mathematics(rest)
    return Heading(title, rest) if is_cut else Heading(text, "")


def has_mathematics(text: str) -> bool:
    """Whether a text has a formula or a number."""
    return bool(re.search(r"\d", text)) or any(is_formula for _, is_formula in pieces_of(text))
