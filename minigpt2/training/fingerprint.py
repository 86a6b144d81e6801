"""Fingerprint: what a run's numbers depend on, to compare a run with the one that continues.

With other examples, or other test questions, it is another run.  With another version of this
program or of NumPy, another CPU or another number of cores it is the same run, but its numbers
are rounded differently.
"""

import platform
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigpt2 import __version__
from minigpt2.data.examples import Example
from minigpt2.data.records import Record
from minigpt2.parallel import cores
from minigpt2.shipped import shipped


class Fingerprint(NamedTuple):
    """What a run's numbers depend on, by what a reader calls it."""

    contents: dict[str, str]  # digests: with another one it is another run
    rounding: dict[str, str]  # with another value it is the same run, but not bit for bit


CPU = Path("/proc/cpuinfo")
SOURCES = ("*.py", "*.cu", "*.cuh", "*.h", "*.cpp")


def digest_of_examples(parts: Iterable[Sequence[Example]]) -> str:
    """Return the SHA-256 of all ids and marks of examples, in their order and their parts."""
    digest = sha256()
    for examples in parts:
        digest.update(np.array([len(examples)], "<i8").tobytes())
        for example in examples:
            digest.update(np.array([len(example.ids), *example.ids], "<i8").tobytes())
            digest.update(bytes(example.is_answer))
    return digest.hexdigest()


def digest_of_records(parts: Iterable[Sequence[Record]]) -> str:
    """Return the SHA-256 of questions and answers, in their order and their parts."""
    digest = sha256()
    for records in parts:
        digest.update(repr([fields_of(record) for record in records]).encode())
    return digest.hexdigest()


def fields_of(record: Record) -> tuple[object, ...]:
    """Return a record's fields; those of one without a preference as before there were any."""
    *fields, rejected, kind = record
    preference = (kind, rejected) if kind or rejected == "" else ()
    return *fields, rejected or "", *preference


def digest_of_code() -> str:
    """Return the SHA-256 of this program: of its modules and its kernels."""
    digest = sha256()
    for folder in (Path(__file__).parent.parent, shipped("kernels")):
        for path in sorted(path for pattern in SOURCES for path in folder.rglob(pattern)):
            digest.update(f"{path.relative_to(folder)}".encode() + path.read_bytes())
    return digest.hexdigest()


def versions(device: str) -> dict[str, str]:
    """Return what the rounding of a run's numbers depends on, by what a reader calls it."""
    return {
        "version": f"{__version__} ({digest_of_code()[:12]})",
        "NumPy": np.__version__,
        "device": device,
        "CPU": cpu(),
        "cores": str(cores()),
    }


def cpu() -> str:
    """Return the name of this machine's CPU."""
    match = re.search(r"model name\s*: (.*)", CPU.read_text()) if CPU.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def changes(now: dict[str, str], before: dict[str, str]) -> list[str]:
    """Return what has changed since a run began, each as a part of a sentence.

    >>> changes({"cores": "4", "NumPy": "2.4"}, {"cores": "2", "NumPy": "2.4"})
    ['cores: 4, was 2']
    """
    return [
        f"{name}: {value}, was {before[name]}"
        for name, value in now.items()
        if before.get(name, value) != value
    ]
