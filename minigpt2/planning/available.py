"""Available memory: what this machine, its container or its GPU has, and has free."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import psutil

from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError

GROUPS = Path("/proc/self/cgroup")  # the groups of processes that this one belongs to
LIMITS = Path("/sys/fs/cgroup")  # what Linux grants to each group: a container is one


class Available(NamedTuple):
    """The bytes that a machine, a container or a GPU has in all, and has free."""

    place: str
    whole: int
    free: int


def available_memory(device: Device, gigabytes: float | None = None) -> int | None:
    """Return the bytes that a run may take: so many gigabytes, or what is free on its device.

    None if that is a GPU, and there is none that works.
    """
    if gigabytes:
        return int(gigabytes * 1e9)
    available = memory_of_gpu() if device == "cuda" else memory_of_machine()
    return available.free if available else None


def memory_of_gpu() -> Available | None:
    """Return the memory of this machine's GPU; None if there is none that works."""
    try:
        return memory_of_device(open_device("cuda"))
    except UserError:
        return None


def memory_of_device(library: ModuleType) -> Available | None:
    """Return the memory of an array library's device; None if that is emulated."""
    if library is np:
        return memory_of_machine()
    if hasattr(library, "machine"):
        return None
    free, whole = library.cuda.runtime.memGetInfo()
    return Available("the GPU", int(whole), int(free))


def memory_of_machine() -> Available:
    """Return the memory of this machine with its swap, or of the container if that has less.

    What is free is without swap: from there a step would take hours.
    """
    memory = psutil.virtual_memory()
    whole = int(memory.total) + int(psutil.swap_memory().total)
    available = Available("this machine", whole, int(memory.available))
    for limit, used in container_limits():
        if limit < available.whole:
            available = available._replace(place="this container", whole=limit)
        available = available._replace(free=max(0, min(available.free, limit - used)))
    return available


def container_limits() -> Iterator[tuple[int, int]]:
    """Yield the bytes that each group around this process may take, and has taken.

    Memory that holds copies of files counts as free.
    """
    try:
        lines = GROUPS.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if not kinds:  # the groups of today, then those of old systems
            names, top = ("memory.max", "memory.current", "inactive_file "), LIMITS
        elif "memory" in kinds.split(","):
            names, top = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
                LIMITS / "memory",
            )
        else:
            continue
        folder = top / group.lstrip("/")
        for above in (folder, *folder.parents):
            if above.is_relative_to(top):
                with suppress(OSError, ValueError):  # no such group here, or "max"
                    yield limit_of(above, *names)


def limit_of(folder: Path, limit: str, used: str, of_files: str) -> tuple[int, int]:
    """Return the bytes that a group may take, and has taken without copies of files.

    Raises OSError or ValueError if it has no limit.
    """
    most, taken = (int((folder / name).read_text()) for name in (limit, used))
    lines = (folder / "memory.stat").read_text().splitlines()
    copies = sum(int(line.split()[1]) for line in lines if line.startswith(of_files))
    return most, taken - copies
