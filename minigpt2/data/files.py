"""Files: the entries of a data set, and where each of them stands.

A data set is a file or a folder of files: JSON (a list of entries), JSONL (an entry
a line) or, with the ending .txt, plain text (one entry).  Entries of a list are
counted from 0, as the list counts; lines from 1, as editors do.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.errors import UserError

ENDINGS = (".json", ".jsonl", ".txt")


class Entry(NamedTuple):
    """What a data set holds at one place; `where` names the place in errors."""

    value: Any
    where: str


def read_entries(path: Path) -> list[Entry]:
    """Read a file, or all files of a folder in the order of their names.

    Raises UserError when one cannot be read, or holds nothing.
    """
    if not path.is_dir():
        return entries_of(path)
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
    if not files:
        raise UserError(f"the folder {path} has no file that ends in {', '.join(ENDINGS)}")
    return [entry for file in files for entry in entries_of(file)]


def entries_of(path: Path) -> list[Entry]:
    """Read the entries of one file."""
    text = text_of(path)
    if path.suffix == ".txt":
        return [Entry({"text": text}, str(path))]
    if is_lines(path, text):
        return lines_of(path, text)
    entries = parse(text, path)
    if not isinstance(entries, list):
        kind = type(entries).__name__
        raise UserError(f"{path} holds {kind}, not a list of entries; JSONL has one entry a line")
    if not entries:
        raise UserError(f"{path} is an empty list: there is nothing to learn from")
    return [Entry(entry, f"entry {i} of {path}") for i, entry in enumerate(entries)]


def text_of(path: Path) -> str:
    """Read a file as UTF-8, with a byte-order mark or without."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}, byte {error.start}") from None


def is_lines(path: Path, text: str) -> bool:
    """Whether a file has one entry a line: by its ending, or since its first line is an object."""
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


def lines_of(path: Path, text: str) -> list[Entry]:
    """Parse a file that has one entry a line; empty lines do not count."""
    lines = [
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    ]
    if not lines:
        raise UserError(f"{path} is empty: there is nothing to learn from")
    return [Entry(parse(line, path, n), f"line {n} of {path}") for n, line in lines]


def parse(text: str, path: Path, line: int | None = None) -> Any:
    """Parse JSON; errors name the line, that of the file where the text is one line of it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error.msg}, line {line or error.lineno}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
