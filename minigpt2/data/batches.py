"""Batches: examples become forests, shuffled anew in each epoch and cut into micro-batches."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TypeVar

import numpy as np

from minigpt2.backend import Array
from minigpt2.data.examples import Example
from minigpt2.data.forest import NO_ANSWER, Branch, Segment, build_prefix_trees, lay_out
from minigpt2.data.loss_weights import RESPONSE_ONLY, LossWeights
from minigpt2.model.batch import Batch

Item = TypeVar("Item")


def batch_of(examples: Sequence[Example], loss_weights: LossWeights = RESPONSE_ONLY) -> Batch:
    """Lay examples out as a forest; an answer's tokens are marked with the example's number.

    What is before an example's first answer may be shared with others.
    """
    branches = []
    for number, example in enumerate(examples):
        weights, shared = loss_weights.of(example), example.first_answer
        answers = [number if part else NO_ANSWER for part in example.is_answer]
        rest = Segment(example.ids[shared:], weights[shared:], [], answers[shared:])
        branches.append(Branch(example.ids[:shared], rest, prompt_weights=weights[:shared]))
    return lay_out(build_prefix_trees(branches))


def split(
    items: Sequence[Item], share: float, rng: np.random.Generator
) -> tuple[list[Item], list[Item]]:
    """Split items at random into those kept and those held back, a `share` of all.

    At least one is kept; at least one is held back if share > 0 and there are two or more.
    """
    order = rng.permutation(len(items))
    held = min(len(items) - 1, max(1, round(share * len(items)))) if share > 0 else 0
    return [items[i] for i in sorted(order[held:])], [items[i] for i in sorted(order[:held])]


def epoch_order(examples: int, seed: int, epoch: int) -> Array:
    """Return the order in which an epoch, counted from 0, takes the examples."""
    return np.random.default_rng([seed, 1, epoch]).permutation(examples)


def windows(
    examples: Sequence[Example],
    batch_size: int,
    micro_batch: int,
    seed: int,
    loss_weights: LossWeights = RESPONSE_ONLY,
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of one optimiser step after the other, for ever.

    Each epoch is a new permutation, which follows from the seed and the epoch's number; its last
    window holds what is left.
    """
    for epoch in count():
        order = epoch_order(len(examples), seed, epoch)
        for start in range(0, len(order), batch_size):
            window = order[start : start + batch_size]
            parts = (window[i : i + micro_batch] for i in range(0, len(window), micro_batch))
            yield [batch_of([examples[i] for i in part], loss_weights) for part in parts]
