"""Lines of a docstring: what each of them is, by what it looks like and what stands before it.

a heading        starts at the margin behind an empty line, has one or two lines, and what
                 follows at once is indented
an equation      ends with its number, (4.20), set apart by two spaces; a kernel's may have several
an example       starts with >>> and ends at an empty line
a table, figure  is indented further than the text, or has columns: three spaces within a line,
                 or a word where the line next to it has a column
an item          starts with "1. " or "- "; its further lines are indented, and so may be
                     those of a paragraph
a formula        has an equals sign, and no word
a paragraph      is the rest
"""

import re
from itertools import pairwise

from book.formulas import FUNCTIONS, HAT

EQUATION = re.compile(r"(?P<text>.*?\S)\s\s+(?P<numbers>\(\d+\.\d+\)(?: \(\d+\.\d+\))*)")
ITEM = re.compile(r"(?P<mark>\d+\.|-) +(?P<text>\S.*)")
COLUMN = re.compile(r"(?<=\S)\s{2,}(?=\S)")
WORD = re.compile(r"[A-Za-z]{3,}")


def kinds_of(lines: list[str]) -> list[str]:
    """Return what each line is; what belongs together has the same name, in a row."""
    tabular = tabular_lines(lines)
    kinds: list[str] = []
    for place in range(len(lines)):
        before = kinds[-1] if kinds else "empty"
        kinds.append(kind_of(lines, place, before, place in tabular))
    return joined_figures(kinds)


def kind_of(lines: list[str], place: int, before: str, is_tabular: bool) -> str:
    """Return what a line is, by what it looks like and what stands before it."""
    line, text = lines[place], lines[place].strip()
    if not text:
        return "empty"
    if text.startswith(">>>") or before == "example":
        return "example"
    if is_heading(lines, place) or (before == "heading" and not line.startswith(" ")):
        return "heading"
    if EQUATION.fullmatch(text):
        return "equation"
    if ITEM.fullmatch(text) and before.split(":")[0] in ("empty", "item", "heading", "equation"):
        return "item:new"
    if before.startswith("item") and indent_of(line) > margin_of(lines, place):
        return "item"
    if is_formula(text) and not is_tabular:
        return "equation"
    is_further_in = indent_of(line) > margin_of(lines, place)
    hangs = is_further_in and before == "paragraph" and not lines[place - 1].endswith(":")
    return "figure" if is_tabular or (is_further_in and not hangs) else "paragraph"


def is_heading(lines: list[str], place: int) -> bool:
    """Whether one or two lines at the margin, with indented text right below, begin here."""
    if lines[place].startswith(" ") or (place and lines[place - 1].strip()):
        return False
    end = place
    while end < len(lines) and lines[end] and not lines[end].startswith(" "):
        end += 1
    below = end < len(lines) and lines[end].startswith(" ")
    return (
        below
        and end - place <= 2
        and lines[end - 1][-1] not in ".,:;"
        and not any(COLUMN.search(re.sub(r"[.:]  ", " ", line)) for line in lines[place:end])
    )


def margin_of(lines: list[str], place: int) -> int:
    """Return the indentation of the text around a line: 4 below a heading, or 0."""
    for above in range(place, -1, -1):
        if lines[above] and not lines[above].startswith(" "):
            return 4 if is_heading(lines, above) or is_second_of_heading(lines, above) else 0
    return 0


def is_second_of_heading(lines: list[str], place: int) -> bool:
    """Whether a line is the second of a heading of two."""
    return place > 0 and is_heading(lines, place - 1)


def tabular_lines(lines: list[str]) -> set[int]:
    """Return the lines with columns: three spaces in a line, or a column of the line next to it."""
    columns = [columns_in(line) for line in lines]
    found = {n for n, line in enumerate(lines) if has_wide_gap(line)}
    for way in (1, -1):
        for here, near in list(pairwise(range(len(lines))))[::way]:
            here, near = (here, near) if way == 1 else (near, here)
            if here in found and (shared := columns[here] & starts_in(lines[near])):
                found.add(near)
                columns[near] |= shared
    return found


def has_wide_gap(line: str) -> bool:
    """Whether a line, which is no equation, has three spaces within it."""
    is_equation = EQUATION.fullmatch(line.strip())
    return not is_equation and any(len(gap[0]) > 2 for gap in gaps_in(line))


def gaps_in(line: str) -> list[re.Match[str]]:
    """Return the gaps of a line, but the two spaces behind a sentence."""
    gaps = COLUMN.finditer(line.replace(HAT, ""))
    return [gap for gap in gaps if len(gap[0]) > 2 or gap.string[gap.start() - 1] not in ".?!:"]


def columns_in(line: str) -> set[int]:
    """Return the places where columns of a line begin; a hat takes no place."""
    return {gap.end() for gap in gaps_in(line)}


def starts_in(line: str) -> set[int]:
    """Return the places where a column may begin: also the first, and in a formula every word's."""
    if is_formula(line.strip()):
        return {match.start() for match in re.finditer(r"(?<!\S)\S", line.replace(HAT, ""))}
    return columns_in(line) | {indent_of(line)}


def is_formula(text: str) -> bool:
    """Whether a line is an equation without a number."""
    words = set(WORD.findall(text)) - FUNCTIONS
    behind = text.partition("=")[2]
    return bool(behind) and not words and text[-1] not in ".,:;" and "  " not in behind


def indent_of(line: str) -> int:
    """Return the number of spaces that a line begins with."""
    return len(line) - len(line.lstrip())


def joined_figures(kinds: list[str]) -> list[str]:
    """Let an empty line between two parts of a figure belong to it."""
    triples = zip(["", *kinds], kinds, [*kinds[1:], ""], strict=False)
    return ["figure" if (a, b, c) == ("figure", "empty", "figure") else b for a, b, c in triples]
