"""Available memory: what this machine, its container or its GPU has free."""

from pathlib import Path

import psutil

from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError

LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def available_memory(device: Device, gigabytes: float | None = None) -> int | None:
    """Return the bytes that a run may take: so many gigabytes, or what is free on its device.

    None if that is a GPU, and there is none that works.
    """
    if gigabytes:
        return int(gigabytes * 1e9)
    return memory_of_gpu() if device == "cuda" else memory_of_machine()


def memory_of_gpu() -> int | None:
    """Return the free bytes of this machine's GPU; None if there is none that works."""
    try:
        return int(open_device("cuda").cuda.runtime.memGetInfo()[0])
    except UserError:
        return None


def memory_of_machine() -> int:
    """Return the free bytes of this machine, or of the container if it has a limit."""
    available = int(psutil.virtual_memory().available)
    limit = LIMIT.read_text().strip() if LIMIT.exists() else "max"
    return available if limit == "max" else min(available, int(limit))
