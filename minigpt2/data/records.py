"""Records: questions and answers as they come, in Alpaca's format.

A data set is a JSON list of objects with the text fields `instruction` (what to
do), `input` (what to do it with; may be empty or absent) and `output` (the
answer).  Whatever cannot be used is refused with the number of its entry,
counted from 0 as the list counts.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.errors import UserError

EXPECTED = "expected Alpaca: instruction, input (may be empty), output, all text"


class Record(NamedTuple):
    """One question with its answer."""

    instruction: str
    input: str
    output: str


def load_records(path: Path) -> list[Record]:
    """Read a data set; raises UserError when it, or one of its entries, cannot be used."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}, byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error.msg}, line {error.lineno}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(entries, list):
        raise UserError(f"{path} holds {type(entries).__name__}, not a list of entries; {EXPECTED}")
    if not entries:
        raise UserError(f"{path} is an empty list: there is nothing to learn from")
    return [as_record(entry, f"entry {i} of {path}") for i, entry in enumerate(entries)]


def as_record(entry: Any, where: str) -> Record:
    """Check one entry; `where` names it in errors."""
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {type(entry).__name__}, not an object; {EXPECTED}")
    entry = {"input": "", **entry}
    for field in Record._fields:
        if field not in entry:
            raise UserError(f"{where} has no field '{field}'; {EXPECTED}")
        if not isinstance(entry[field], str):
            raise UserError(f"{where}: field '{field}' is not text; {EXPECTED}")
        if any("\ud800" <= character <= "\udfff" for character in entry[field]):
            raise UserError(f"{where}: field '{field}' is no text: half a surrogate pair")
    for field in ("instruction", "output"):
        if not entry[field].strip():
            raise UserError(f"{where}: field '{field}' is empty")
    return Record(*(entry[field] for field in Record._fields))
