"""World: the processes that share a run, and the sums over them.

A world of one process has nothing to add.  A world of several sums the normaliser before the
micro-batches and the flat gradient after them; a step sends nothing else between processes.
"""

from minigpt2.backend import Array


class World:
    """A world of one process."""

    def sum(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        return number

    def sum_in_place(self, array: Array) -> None:
        """Replace an array by its sum over all processes."""


ONE_PROCESS = World()
