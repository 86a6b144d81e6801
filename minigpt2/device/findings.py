"""Findings: what the emulator's checks saw, by the line of the source.

The machine knows addresses of its own code; addr2line, which comes with the compiler, knows their
lines.  An access in a function that was put into its caller has several: the innermost one, and
those of the callers up to the kernel.  A finding tells the innermost and the kernel's own.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

KINDS = (
    "race: two writes",
    "race: a read and a write",
    "shared memory is read before it is written",
    "out of bounds",
    "a write to a const array",
    "a misaligned access",
)


class Finding(NamedTuple):
    """What is wrong with an access."""

    kind: str
    kernel: str
    line: str  # "attention.cu:120"; after a comma, the kernel's line that led there
    other: str | None  # the earlier access of a race
    times: int
    block: int  # where it was seen first
    threads: tuple[int, int]

    def __str__(self) -> str:
        beside = f" and {self.other}" if self.other else ""
        return (
            f"{self.kernel}: {self.kind}: {self.line}{beside}, {self.times} times, first in block "
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
    got: int  # sectors of 32 bytes, or passes through the banks
    ideal: int


def lines_of(library: Path, addresses: Iterable[int]) -> list[str]:
    """Return the source lines of addresses in a library that is loaded."""
    mapped = Path("/proc/self/maps").read_text().splitlines()
    base = next((int(m.split("-")[0], 16) for m in mapped if m.endswith(str(library))), 0)
    offsets = [hex(max(0, address - base - 1)) for address in addresses]
    command = ["addr2line", "-a", "-i", "-e", str(library), *offsets]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [chain(part.splitlines()[1:]) for part in re.split(r"^(?=0x)", told, flags=re.M)[1:]]


def counts_of(library: Path, write: Callable[[], Any]) -> Counter[tuple[str, int]]:
    """Return how often each source line has run; `write` makes the library write it down."""
    with tempfile.TemporaryDirectory() as folder:
        place = {"GCOV_PREFIX": folder, "GCOV_PREFIX_STRIP": "99"}
        with mock.patch.dict(os.environ, place):
            write()
        shutil.copy(library.with_name("kernel.gcno"), folder)
        command = ["gcov", "--json-format", "--stdout", "kernel.gcda"]
        told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    counts: Counter[tuple[str, int]] = Counter()
    for file in json.loads(told.stdout)["files"]:
        for line in file["lines"]:
            counts[file["file"], line["line_number"]] += line["count"]
    return counts


def chain(frames: list[str]) -> str:
    """Return the innermost frame, and the outermost if that is another."""
    places = [Path(frame.split(" ")[0]).name for frame in frames]
    return places[0] if places[0] == places[-1] else f"{places[0]}, from {places[-1]}"
