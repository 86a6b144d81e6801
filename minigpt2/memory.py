"""Memory: freed arrays stay with the process, and how much it has held.

Why
    A training step makes the same arrays again and again: each is wanted for a moment and
    freed.  By default the C library gives every large array back to the operating system and
    asks for it anew, and the system hands out memory page by page, each filled with zeros at
    its first touch.  For a step at 124M those page faults are a fifth of its time.

    So the C library is told to keep what is freed.  From the second step on the next array
    lies where an earlier one of its kind did, and a step takes no page faults to speak of.
    The price: the process holds its peak until it ends, and gaps between arrays that are in
    use cannot be given to anyone else.

This is a setting of glibc, the C library of most Linux systems.  Elsewhere nothing is changed.
"""

import ctypes
import re
import sys
from pathlib import Path

try:
    import resource
except ModuleNotFoundError:  # not on Windows
    resource = None  # type: ignore[assignment]

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
STATUS = Path("/proc/self/status")
PAD = 1 << 26  # bytes by which the heap grows at least


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed arrays for the next ones; return whether it does."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD))
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in settings)


def peak_memory() -> int | None:
    """Return the largest resident memory of this process so far, in bytes, where known.

    Linux tells it of the program itself; getrusage would count what the process that started it
    held, too.
    """
    if STATUS.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
        if found:
            return int(found[1]) * 1024
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
