"""Fake copies: numbers on their way to the host, as CuPy sends them with `get(blocking=False)`.

On a GPU such a copy ends at some time after it was queued; it has ended for sure when somebody has
waited for its stream, or for an event behind it.  Here it ends then, and not before: until then
every bit of the host's array is set, so that a program that lacks the wait reads NaN.
"""

from collections import deque

import numpy as np


class Copies:
    """The copies of a stream that are under way to the host, oldest first."""

    def __init__(self) -> None:
        self.under_way: deque[tuple[np.ndarray, np.ndarray]] = deque()  # numbers, host's array
        self.arrived = 0

    @property
    def sent(self) -> int:
        """The number of copies that were queued so far."""
        return self.arrived + len(self.under_way)

    def send(self, numbers: np.ndarray, host: np.ndarray) -> None:
        """Queue the copy of an array."""
        if host.shape != numbers.shape or host.dtype != numbers.dtype:
            raise ValueError(f"{numbers.dtype} {numbers.shape} does not fit the array on the host")
        set_bits(host)
        self.under_way.append((numbers.copy(), host))

    def wait_for(self, count: int) -> None:
        """Wait until so many copies have arrived, of all that were ever queued."""
        while self.arrived < count:
            numbers, host = self.under_way.popleft()
            host[...] = numbers
            self.arrived += 1


def set_bits(host: np.ndarray) -> None:
    """Set every bit of an array, which makes NaN, or -1 of integers."""
    host.reshape(-1).view(np.uint8)[...] = 0xFF
