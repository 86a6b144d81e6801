"""Sanitizer: what the emulator's checks and counters report, by line of the source.

The machine reports addresses in its own code; addr2line, which comes with the compiler, finds their
lines.  An access in an inlined function has several source lines: its own and those of its callers
up to the kernel.  A finding names its own line and the kernel's.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

KINDS = (
    "race: two writes",
    "race: a read and a write",
    "shared memory is read before it is written",
    "out of bounds",
    "a write to a const array",
    "a misaligned access",
    "an asynchronous copy is read before it has arrived",
    "an asynchronous copy is never waited for",
)


class Finding(NamedTuple):
    """What is wrong with an access."""

    kind: str
    kernel: str
    line: str  # "attention.cu:120"; for an inlined function followed by ", from" the kernel's line
    other: str | None  # the earlier access of a race
    times: int
    block: int  # where it was seen first
    threads: tuple[int, int]

    def __str__(self) -> str:
        other = f" and {self.other}" if self.other else ""
        return (
            f"{self.kernel}: {self.kind}: {self.line}{other}, {self.times} times, first in block "
            f"{self.block}, threads {self.threads[0]} and {self.threads[1]}"
        )


class Traffic(NamedTuple):
    """What one access in the source moved."""

    kernel: str
    line: str
    space: str  # "global" or "shared"
    kind: str  # "load" or "store"
    bytes: int  # of a thread's access
    requests: int  # of warps
    actual: int  # sectors of 32 bytes, or passes through the banks
    ideal: int


def lines_of(library: Path, addresses: Iterable[int]) -> list[str]:
    """Return the source lines of addresses in a library that is loaded."""
    mappings = Path("/proc/self/maps").read_text().splitlines()
    base = next((int(m.split("-")[0], 16) for m in mappings if m.endswith(str(library))), 0)
    offsets = [hex(max(0, address - base - 1)) for address in addresses]
    command = ["addr2line", "-a", "-i", "-e", str(library), *offsets]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    frames = re.split(r"^(?=0x)", output, flags=re.M)[1:]
    return [inner_and_outer(frame.splitlines()[1:]) for frame in frames]


def inner_and_outer(frames: list[str]) -> str:
    """Return the innermost frame, and the outermost if that is another line."""
    places = [Path(frame.split(" ")[0]).name for frame in frames]
    return places[0] if places[0] == places[-1] else f"{places[0]}, from {places[-1]}"


def counts_of(library: Path, write: Callable[[], Any]) -> Counter[tuple[str, int]]:
    """Return how often each source line has run; `write` makes the library write its counters."""
    with tempfile.TemporaryDirectory() as folder:
        with environment(GCOV_PREFIX=folder, GCOV_PREFIX_STRIP="99"):
            write()
        shutil.copy(library.with_name("kernel.gcno"), folder)
        command = ["gcov", "--json-format", "--stdout", "kernel.gcda"]
        gcov = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    counts: Counter[tuple[str, int]] = Counter()
    for file in json.loads(gcov.stdout)["files"]:
        for line in file["lines"]:
            counts[file["file"], line["line_number"]] += line["count"]
    return counts


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set variables of the environment, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
