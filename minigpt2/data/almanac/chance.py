"""Chance: choosing and shuffling with one seeded generator, the same on every machine.

Only `Generator.random()` is called: its stream of doubles is fixed by the seed, while the
algorithms behind `choice` and `permutation` may change from one NumPy release to the next.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of the items, each equally likely."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    return [items[i] for i in np.argsort(rng.random(len(items)), kind="stable")]


def dealt(rng: np.random.Generator, items: Sequence[T]) -> Iterator[T]:
    """The items for ever, shuffled anew each time round, so that each comes equally often."""
    while True:
        yield from shuffled(rng, items)
