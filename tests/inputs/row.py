"""Row: a command line, the files that it reads, and what must come of it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

GOOD = [
    {"instruction": f"Count to {n}.", "input": "" if n % 3 else "slowly", "output": f"1 to {n}"}
    for n in range(1, 13)
]
LITTLE = "--steps 1 --samples 0 --batch-size 2"  # of a run that takes a moment


class Row(NamedTuple):
    """A command with its files, and the words that it prints.

    `files` has for each name its text or bytes, what is written as JSON, or a function that makes
    it.  Next to them is always ok.json, a data set without faults.
    """

    name: str
    command: str  # after `minigpt2`, as in a shell
    words: str  # in the error, or among what is printed
    files: Mapping[str, Any]
    code: int = 2
    makes: str = ""  # the files and folders that it leaves, at the top
    typed: str | bytes = ""  # on standard input
    closed: tuple[int, ...] = ()  # streams that are closed from the beginning
    printed: str = ""  # a device that standard output goes to
    largest: int = 0  # bytes of a file; 0 for any size
    variables: Mapping[str, str] = {}


def refused(name: str, command: str, words: str, files: Any = None, **rest: Any) -> Row:
    """A command that ends with one line, which has these words, and changes nothing."""
    return Row(name, command, words, files or {}, **rest)


def works(name: str, command: str, words: str, files: Any = None, **rest: Any) -> Row:
    """A command that prints these words, and ends well."""
    return Row(name, command, words, files or {}, code=0, **rest)


def write_files(files: Mapping[str, Any], folder: Path) -> None:
    """Write the files of a row."""
    for name, content in {"ok.json": GOOD, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Callable):
            content(path)
        else:
            path.write_bytes(as_bytes(content))


def as_bytes(content: Any) -> bytes:
    """The bytes of a file: a text or bytes as they are, all else as JSON."""
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()
