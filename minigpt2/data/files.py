"""Files: the entries of a data set, each with its place for error messages.

A data set is a file or a folder of files: JSON (a list of entries), JSONL (one entry on each line)
or, if the name ends in .txt, plain text (one entry).  Entries of a list are counted from 0, as
programs count them; lines are counted from 1, as editors do.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.errors import UserError
from minigpt2.reading import json_kind, parse_json, read_text

ENDINGS = (".json", ".jsonl", ".txt")
LARGEST = 4 << 30  # bytes of a data file: all of it is held in memory


class Entry(NamedTuple):
    """What a data set holds at one place; `where` names the place in errors."""

    value: Any
    where: str


def read_entries(path: Path) -> list[Entry]:
    """Read a file, or all files of a folder in the order of their names.

    Raises UserError if a file cannot be read or is empty.
    """
    if not path.is_dir():
        return read_file(path)
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
    if not files:
        raise UserError(f"the folder {path} has no file that ends in {', '.join(ENDINGS)}")
    return [entry for file in files for entry in read_file(file)]


def read_file(path: Path) -> list[Entry]:
    """Read the entries of one file."""
    text = read_text(path, LARGEST)
    if path.suffix == ".txt":
        return [Entry({"text": text}, str(path))]
    if has_entry_per_line(path, text):
        return parse_lines(path, text)
    entries = parse_json(text, path)
    if not isinstance(entries, list):
        raise UserError(
            f"{path} holds {json_kind(entries)}, not a list of entries; "
            "write a JSON list, or JSONL with one entry on each line"
        )
    if not entries:
        raise UserError(f"{path} is an empty list: there is nothing to learn from")
    return [Entry(entry, f"entry {i} of {path}") for i, entry in enumerate(entries)]


def has_entry_per_line(path: Path, text: str) -> bool:
    """Whether each line is an entry: by the file's name, or because the first line is an object."""
    if path.suffix == ".jsonl":
        return True
    first, _, rest = text.lstrip().partition("\n")
    if not (first.startswith("{") and rest.strip()):
        return False
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def parse_lines(path: Path, text: str) -> list[Entry]:
    """Parse a file that has one entry on each line; empty lines do not count."""
    lines = [
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    ]
    if not lines:
        raise UserError(f"{path} is empty: there is nothing to learn from")
    return [Entry(parse_json(line, path, n), f"line {n} of {path}") for n, line in lines]
