"""Files: the entries of a data set, each with its place for error messages.

A data set is a file or a folder of files: JSON (a list of entries), JSONL (one entry on each line)
or, if the name ends in .txt, plain text (one entry).  Entries of a list are counted from 0, as
programs count them; lines are counted from 1, as editors do.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.errors import UserError

ENDINGS = (".json", ".jsonl", ".txt")
JSON_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


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
    text = read_text(path)
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


def read_text(path: Path) -> str:
    """Read a file as UTF-8, with or without a byte-order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}, byte {error.start}") from None


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


def parse_json(text: str, path: Path, line: int | None = None) -> Any:
    """Parse the JSON text of a file, or of one `line` of it; errors name the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error.msg}, line {line or error.lineno}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def json_kind(value: Any) -> str:
    """Return JSON's word for the type of a value, for errors."""
    return JSON_KINDS.get(type(value), type(value).__name__)
