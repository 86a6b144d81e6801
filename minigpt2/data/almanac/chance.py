"""Chance: choosing and shuffling with one seeded generator, the same on every machine.

Only `Generator.random()` is called.  The seed fixes its stream of doubles, whereas the algorithms
of `choice` and `permutation` may change from one NumPy release to the next.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one of the items, each equally likely."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
    """Return the items in random order."""
    return [items[i] for i in np.argsort(rng.random(len(items)), kind="stable")]


def dealt(rng: np.random.Generator, items: Sequence[T]) -> Iterator[T]:
    """Yield the items without end, shuffled anew in each round, so each comes equally often."""
    while True:
        yield from shuffled(rng, items)
