"""Tables: the facts, one CSV file a table, one subject a row, one relation a column.

The first column names the subject; every other cell that is not empty is one fact
(table, subject, relation, value).  An empty cell means that no single value is beyond dispute.
Values are text, atomic numbers and letter counts included; seasons are those of the north.
"""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

TABLES = (
    "countries",
    "elements",
    "months",
    "weekdays",
    "animals",
    "opposites",
    "plurals",
    "pasts",
    "colours",
    "shapes",
    "professions",
    "letters",
    "words",
    "numbers",
)


class Fact(NamedTuple):
    """One value of one subject, such as ("countries", "France", "capital", "Paris")."""

    table: str
    subject: str
    relation: str
    value: str


@cache
def table(name: str) -> dict[str, dict[str, str]]:
    """subject -> {relation: value} in the order of the file, without empty cells."""
    text = (files(__package__) / "tables" / f"{name}.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    found: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{name}.csv line {line} has {len(row)} cells, expected {len(header)}")
        if row[0] in found:
            raise ValueError(f"{name}.csv line {line} repeats the subject {row[0]!r}")
        cells = zip(header[1:], row[1:], strict=True)
        found[row[0]] = {relation: value for relation, value in cells if value}
    return found


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact of every table."""
    return tuple(
        Fact(name, subject, relation, value)
        for name in TABLES
        for subject, cells in table(name).items()
        for relation, value in cells.items()
    )
