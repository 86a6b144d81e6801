"""Tables: the facts, in one CSV file for each table, with a row for each subject.

The first column names the subject.  Each other column is a relation, and each of its cells that is
not empty is one fact (table, subject, relation, value).  A cell is empty if no single value is
beyond dispute.  All values are text, including atomic numbers and counts of letters.  Seasons are
those of the northern hemisphere.
"""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from minigpt2.wording import plural

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
    """Return {subject: {relation: value}} of a table in the order of its file."""
    text = (files(__package__) / "tables" / f"{name}.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    subjects: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{name}.csv line {line} has {plural(len(row), 'cell')}, expected {len(header)}"
            )
        if row[0] in subjects:
            raise ValueError(f"{name}.csv line {line} repeats the subject {row[0]!r}")
        cells = zip(header[1:], row[1:], strict=True)
        subjects[row[0]] = {relation: value for relation, value in cells if value}
    return subjects


@cache
def facts() -> tuple[Fact, ...]:
    """Return every fact of every table."""
    return tuple(
        Fact(name, subject, relation, value)
        for name in TABLES
        for subject, cells in table(name).items()
        for relation, value in cells.items()
    )
