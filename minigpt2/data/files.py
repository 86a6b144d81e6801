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

LINES = (".jsonl", ".ndjson")  # endings of files with one entry on each line
ENDINGS = (".json", *LINES, ".txt")
LARGEST = 4 << 30  # bytes of a data file: all of it is held in memory


class Entry(NamedTuple):
    """What a data set holds at one place; `where` names the place in errors.

    A line that cannot be read has a fault, the sentence of its error, and no value.
    """

    value: Any
    where: str
    fault: str = ""


def files_of(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files of a data set, and the names of what else its folder holds, in order.

    Raises UserError if a folder holds no data.
    """
    if not path.is_dir():
        return [path], []
    inside = sorted(path.iterdir())
    files = [file for file in inside if file.suffix.lower() in ENDINGS and not file.is_dir()]
    if not files:
        raise UserError(f"the folder {path} has no file that ends in {', '.join(ENDINGS)}")
    others = [f"{p.name} (a folder)" if p.is_dir() else p.name for p in inside if p not in files]
    return files, others


def read_entries(path: Path) -> list[Entry]:
    """Read the entries of one file; raises UserError if it cannot be read, or is empty."""
    ending = path.suffix.lower()
    try:
        text = read_text(path, LARGEST)
        if ending == ".txt":
            fault = "" if text.strip() else f"{path} is empty: there is nothing to learn from"
            text = text.replace("\r\n", "\n")  # line ends of Windows
            return [Entry({"text": text}, str(path), fault)]
        if ending in LINES or not text.strip() or has_entry_per_line(text):
            return parse_lines(path, text)
        entries = parse_json(text, path)
    except UserError as error:
        is_other = path.is_file() and ending not in ENDINGS
        hint = f"; a data set is {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}" if is_other else ""
        raise UserError(f"{error}{hint}") from None
    if not isinstance(entries, list):
        raise UserError(
            f"{path} holds {json_kind(entries)}, not a list of entries; "
            "write a JSON list, or JSONL with one entry on each line"
        )
    if not entries:
        raise UserError(f"{path} is an empty list: there is nothing to learn from")
    return [Entry(entry, f"entry {i} of {path}") for i, entry in enumerate(entries)]


def has_entry_per_line(text: str) -> bool:
    """Whether the first of several lines is a JSON object, whatever the file is called."""
    first, _, rest = text.lstrip().partition("\n")
    if not (first.startswith("{") and rest.strip()):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def parse_lines(path: Path, text: str) -> list[Entry]:
    """Parse a file that has one entry on each line; empty lines do not count."""
    lines = enumerate(text.split("\n"), start=1)
    entries = [parse_line(path, number, line) for number, line in lines if line.strip()]
    if not entries:
        raise UserError(f"{path} is empty: there is nothing to learn from")
    return entries


def parse_line(path: Path, number: int, line: str) -> Entry:
    """Return the entry on a line."""
    where = f"line {number} of {path}"
    try:
        return Entry(parse_json(line, path, number), where)
    except UserError as error:
        return Entry(None, where, str(error))
