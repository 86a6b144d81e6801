"""Available memory: what this machine, its container or its GPU has, and has free."""

from types import ModuleType
from typing import NamedTuple

import numpy as np
import psutil

from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError
from minigpt2.memory import container_limits, swap_memory


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
    """Return the memory of this machine, or of the container if that has less, with the swap.

    What is free is without swap: from there a step would take hours.
    """
    memory, swap = psutil.virtual_memory(), swap_memory()
    available = Available("this machine", int(memory.total) + swap, int(memory.available))
    for limit, used in container_limits():
        if limit + swap < available.whole:
            available = available._replace(place="this container", whole=limit + swap)
        available = available._replace(free=max(0, min(available.free, limit - used)))
    return available
