"""Reading: files from outside, up to a bound, and JSON whose every fault is one sentence.

A file is read only if its size is known to be small enough.  What has no size, a pipe, is read up
to the bound; a device, such as /dev/zero, and a pipe that no program writes to are refused.
"""

import codecs
import json
import os
import select
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from minigpt2.errors import UserError
from minigpt2.wording import shorten

SMALL = 1 << 20  # bytes: more than any settings file or template has
CHUNK = 1 << 16  # bytes read at once
KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file or a pipe of at most `limit` bytes; raises UserError if it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read: {reason}") from None
    try:
        return read_open(file, path, limit)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(file)


def read_open(file: int, path: Path, limit: int) -> bytes:
    """Read an open file, which is called `path`, to its end."""
    status = os.fstat(file)
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder, not a file")
    is_pipe = stat.S_ISFIFO(status.st_mode)
    if not (is_pipe or stat.S_ISREG(status.st_mode)):
        raise UserError(f"{path} is a device, not a file")
    if status.st_size > limit:
        raise UserError(f"{path} has {status.st_size:,} bytes; at most {limit:,} are read")
    content = bytearray()
    while chunk := next_chunk(file):
        content += chunk
        if len(content) > limit:
            raise UserError(f"{path} has more than the {limit:,} bytes that are read")
    if is_pipe and not content:
        raise UserError(f"{path} is a pipe that no program writes to")
    return bytes(content)


def next_chunk(file: int) -> bytes:
    """Read what comes next in an open file; nothing at its end."""
    while True:
        try:
            return os.read(file, CHUNK)
        except BlockingIOError:  # a pipe whose writer has not written yet
            select.select([file], [], [])


def read_text(path: Path, limit: int = SMALL) -> str:
    """Read a file as UTF-8, with or without a byte-order mark, or as UTF-16 with one.

    Raises UserError if it cannot be read, is larger than `limit` bytes, or is not text.
    """
    content = read_bytes(path, limit)
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding, name = ("utf-16", "UTF-16") if is_utf16 else ("utf-8-sig", "UTF-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not {name} text: {error.reason}, byte {error.start}") from None


def parse_json(text: str, path: Path, line: int | None = None) -> Any:
    """Parse the JSON text of a file, or of one `line` of it; errors name the line.

    Raises UserError if it is not JSON, or if an object has a field twice.
    """
    repeated: list[tuple[dict[str, Any], str]] = []

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated.append((values, next(name for name in counts if counts[name] > 1)))
        return values

    place = f"{path}" if line is None else f"line {line} of {path}"
    if not text.strip():
        raise UserError(f"{path} is not JSON: it is empty")
    try:
        value = json.loads(text, object_pairs_hook=to_dict)
    except json.JSONDecodeError as error:
        where = f"line {line or error.lineno}, column {error.colno}"
        raise UserError(f"{path} is not JSON: {error.msg}, {where}") from None
    except RecursionError:
        raise UserError(f"{place} cannot be read as JSON: it is nested too deeply") from None
    except ValueError:
        raise UserError(f"{place} cannot be read as JSON: a number has too many digits") from None
    if repeated:  # the last of them is in the value: only one that ends later could drop it
        holder, name = repeated[-1]
        if isinstance(value, list):
            number = next(i for i, entry in enumerate(value) if holds(entry, holder))
            place = f"entry {number} of {path}"
        raise UserError(f"{place} has the field {quoted(name)} twice")
    return value


def holds(value: Any, part: object) -> bool:
    """Whether a JSON value is a part, or has it somewhere inside."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value is part:
            return True
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return False


def json_kind(value: Any) -> str:
    """Return JSON's word for the type of a value, for errors."""
    return KINDS.get(type(value), type(value).__name__)


def quoted(value: Any) -> str:
    """Return a value as an error shows it: a text in quotes, shortened; else the kind of value.

    >>> quoted("user"), quoted(["user"])
    ("'user'", 'a list')
    """
    return repr(shorten(value, width=60)) if isinstance(value, str) else json_kind(value)
