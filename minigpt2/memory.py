"""Memory: freed arrays stay with the process; how much memory it has used, and what it may use.

Why
    A training step makes the same arrays again and again, uses each for a moment, and
    frees it.  By default the C library returns every large array to the operating system
    and requests the next one anew.  The system hands out memory page by page, and fills
    each page with zeros at its first use, a page fault.  In a step at 124M these page faults
    take a fifth of the time.

    So the C library is set to keep what is freed.  From the second step on, an array gets
    the memory of an earlier array of its kind, and a step has almost no page faults.  The
    price: the process holds its peak until it ends, and no other process can use the gaps
    between its arrays.

This is a setting of glibc, the C library of most Linux systems.  Elsewhere nothing changes.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from minigpt2.errors import UserError
from minigpt2.wording import size as in_words

try:
    import resource
except ModuleNotFoundError:  # not on Windows
    resource = None  # type: ignore[assignment]

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
STATUS = Path("/proc/self/status")
MACHINE = Path("/proc/meminfo")
GROUPS = Path("/proc/self/cgroup")  # the groups of processes that this one belongs to
LIMITS = Path("/sys/fs/cgroup")  # what Linux grants to each group: a container is one
PAD = 1 << 26  # bytes by which the heap grows at least


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for the next arrays; return whether it does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD))
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in settings)


def require_memory(needed: int, what: str) -> None:
    """Raise UserError if so many bytes are more than this machine, or its container, has.

    The swap counts: with it a model runs, if slowly.
    """
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    total, place = pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else 0, "this machine"
    smallest = min((limit for limit, _ in container_limits()), default=total)
    if smallest < total:
        total, place = smallest, "this container"
    if 0 < total + swap_memory() < needed:
        raise UserError(f"{what} would take {in_words(needed)}, but {place} has {in_words(total)}")


def swap_memory() -> int:
    """Return the bytes of this machine's swap; 0 if Linux does not say."""
    with suppress(OSError):
        swap_in_kb = re.search(r"SwapTotal:\s*(\d+) kB", MACHINE.read_text())
        return int(swap_in_kb[1]) * 1024 if swap_in_kb else 0
    return 0


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


def peak_memory() -> int | None:
    """Return the largest resident memory of this process so far, in bytes; None if unknown.

    Linux has it in the status of the process.  There getrusage would not do: it also counts what
    the process had before it ran this program, as a copy of its parent.
    """
    if STATUS.exists():
        peak_in_kb = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
        if peak_in_kb:
            return int(peak_in_kb[1]) * 1024
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
