"""Attempt: one input for a reader, and what becomes of it."""

import re
import resource
import shutil
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from minigpt2.errors import UserError
from minigpt2.terminal import LONGEST_ERROR
from tests.fuzz.readers import Reader, unpacked

SECONDS = 5.0  # of the processor, for an input
MEMORY = 1 << 30  # bytes that an input may take
PACKAGE = "minigpt2"


class TooSlow(BaseException):
    """An input takes longer than it may."""


class Outcome(NamedTuple):
    """What became of an input: accepted, refused or a finding; which one; and in words.

    `place` is the same for all that is refused for the same reason, and for the same fault.
    """

    kind: str
    place: str
    text: str


def limit_memory() -> None:
    """Limit what this process may take from here on."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def limited_time() -> Iterator[None]:
    """Raise TooSlow if the block takes too long: it cannot end a call of a library."""

    def be_slow(number: int, frame: object) -> None:
        raise TooSlow(f"more than {SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, be_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def place_of(error: BaseException) -> str:
    """The line of the package at which an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"/{PACKAGE}/" in frame.filename] or frames
    return f"{ours[-1].filename.rpartition(f'/{PACKAGE}/')[2]}:{ours[-1].lineno}"


def reason_of(text: str, folder: Path) -> str:
    """The beginning of an error without names of files, numbers and what is in quotes."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|\d[\d,]*", "", text.replace(str(folder), ""))
    return re.sub(r"/\S*", "", bare)[:50]


def attempt(reader: Reader, content: bytes, folder: Path) -> Outcome:
    """Write the files of an input into a new folder, read them and use what they hold."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    choice = reader.write(unpacked(content), folder)
    if not any(folder.iterdir()):
        return Outcome("refused", "", "no file")
    try:
        with limited_time():
            reader.use(folder, choice)
    except UserError as error:
        if fault := fault_of(str(error), folder):
            return Outcome("finding", f"UserError {place_of(error)}", fault)
        return Outcome("refused", reason_of(str(error), folder), str(error))
    except BaseException as error:
        text = f"{type(error).__name__}: {str(error)[:300]}"
        return Outcome("finding", f"{type(error).__name__} {place_of(error)}", text)
    return Outcome("accepted", "", "")


def fault_of(text: str, folder: Path) -> str:
    """What is wrong with the text of an error; "" if nothing."""
    if "\n" in text:
        return f"more than one line: {text[:300]!r}"
    if len(text) > LONGEST_ERROR:
        return f"{len(text)} characters: {text[:300]!r}"
    if str(folder) not in text:
        return f"names no file: {text[:300]!r}"
    return ""
