"""Batches: examples become forests, shuffled anew in each epoch and cut into micro-batches."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from heapq import nlargest
from math import ceil
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from minigpt2.backend import Array
from minigpt2.data.examples import Example
from minigpt2.data.forest import NO_ANSWER, Branch, Segment, build_prefix_trees, lay_out
from minigpt2.data.loss_weights import RESPONSE_ONLY, LossWeights
from minigpt2.data.truncation import Cuts, Policy, truncate_all
from minigpt2.model.batch import Batch

Item = TypeVar("Item")
FIRST_EPOCHS = 10  # among whose micro-batches the longest are looked for
ORDER = 1  # the stream of random numbers for the order of examples
SPLIT = 3  # the stream of random numbers that choose the validation examples


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


def split(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Split items at random into those to train on and those for validation, a `share` of all.

    At least one is to train on; at least one is for validation if share > 0 and there are two or
    more.
    """
    order = np.random.default_rng([seed, SPLIT]).permutation(len(items))
    held = min(len(items) - 1, max(1, round(share * len(items)))) if share > 0 else 0
    return [items[i] for i in sorted(order[held:])], [items[i] for i in sorted(order[:held])]


class TrainingSet(NamedTuple):
    """Examples that fit the context, and the counts of what was cut from all of them."""

    training: list[Example]
    validation: list[Example]
    cuts: Cuts

    def repeated_in_validation(self) -> int:
        """Return how many prompts for validation are also among those to train on."""
        held_out = [prompt_of(example) for example in self.validation]
        trained = (set(held_out) - {()}).intersection(map(prompt_of, self.training))
        return sum(prompt in trained for prompt in held_out)

    def counts(self) -> dict[str, Any]:
        """Return the numbers of examples to train on and for validation, and of their tokens."""
        examples = self.training + self.validation
        answer_tokens = sum(sum(example.is_answer) for example in examples)
        return {
            "training": len(self.training),
            "validation": len(self.validation),
            "prompt_tokens": sum(len(example.ids) for example in examples) - answer_tokens,
            "answer_tokens": answer_tokens,
        }


def prompt_of(example: Example) -> tuple[int, ...]:
    """Return the ids before an example's last answer; none for a text without a prompt."""
    return tuple(example.ids[: example.last_answer]) if example.last_answer > 1 else ()


def training_set(
    examples: Sequence[Example], context: int, policy: Policy, *, validation: float, seed: int
) -> TrainingSet:
    """Split examples of any length, and cut them; a share `validation` is for validation."""
    (training, cuts), (held_out, more_cuts) = (
        truncate_all(part, context, policy) for part in split(examples, validation, seed)
    )
    return TrainingSet(training, held_out, cuts + more_cuts)


@lru_cache(maxsize=2)  # every step of an epoch asks for the same one
def epoch_order(examples: int, seed: int, epoch: int) -> Array:
    """Return the order in which an epoch, counted from 0, takes the examples; it is read-only."""
    order = np.random.default_rng([seed, ORDER, epoch]).permutation(examples)
    order.flags.writeable = False
    return order


class StepBatches(NamedTuple):
    """The micro-batches of one optimiser step, and the place where the next step begins."""

    batches: list[Batch]
    epoch: int  # counted from 0
    position: int  # examples of that epoch that were taken before


class Epochs(Generic[Item]):
    """Examples in epochs, cut into steps of `batch_size` and these into micro-batches.

    The order of an epoch follows from the seed and its number, so the step at any place can be
    made without those before it.  The last step of an epoch takes the examples that are left; a
    place behind its end, where a run has lost examples, is the beginning of the next one.
    `lay_out` makes a batch of the examples with some numbers.
    """

    def __init__(
        self,
        examples: Sequence[Item],
        lay_out: Callable[[Sequence[int]], Batch],
        *,
        batch_size: int,
        micro_batch: int,
        seed: int,
    ):
        self.examples = examples
        self.lay_out = lay_out
        self.batch_size = batch_size
        self.micro_batch = micro_batch
        self.seed = seed

    @property
    def steps(self) -> int:
        """The number of steps in an epoch."""
        return ceil(len(self.examples) / self.batch_size)

    def place(self, epoch: int, position: int) -> tuple[int, int]:
        """Return the epoch and the position of a place, which may be behind the end of an epoch."""
        return (epoch + 1, 0) if position >= len(self.examples) else (epoch, position)

    def indices_at(self, epoch: int, position: int) -> list[list[int]]:
        """Return which examples each micro-batch of the step takes that begins at a place."""
        epoch, position = self.place(epoch, position)
        order = epoch_order(len(self.examples), self.seed, epoch)
        chosen = order[position : position + self.batch_size].tolist()
        starts = range(0, len(chosen), self.micro_batch)
        return [chosen[start : start + self.micro_batch] for start in starts]

    def taken_first(self, steps: int, epoch: int = 0) -> list[list[int]]:
        """Return which examples each micro-batch of an epoch's first steps takes; at most all."""
        positions = range(0, len(self.examples), self.batch_size)[:steps]
        return [part for position in positions for part in self.indices_at(epoch, position)]

    def longest(self, rows: Sequence[int], steps: int, count: int) -> list[list[int]]:
        """Return the micro-batches of the first steps whose examples have most rows together.

        `rows` are those of each example.  There are `count` of them at most, and of later epochs
        than FIRST_EPOCHS there are none.
        """
        longest: list[list[int]] = []
        for epoch in range(min(ceil(steps / self.steps), FIRST_EPOCHS)):
            parts = self.taken_first(steps - epoch * self.steps, epoch)
            longest = nlargest(count, longest + parts, key=lambda part: sum(rows[i] for i in part))
        return longest

    def examples_at(self, epoch: int, position: int) -> list[list[Item]]:
        """Return the examples of each micro-batch of the step that begins at a place."""
        parts = self.indices_at(epoch, position)
        return [[self.examples[i] for i in part] for part in parts]

    def at(self, epoch: int, position: int) -> StepBatches:
        """Return the step that begins at a place."""
        epoch, position = self.place(epoch, position)
        parts = self.indices_at(epoch, position)
        batches = [self.lay_out(part) for part in parts]
        position += sum(map(len, parts))
        if position == len(self.examples):
            return StepBatches(batches, epoch + 1, 0)
        return StepBatches(batches, epoch, position)

    def epoch(self, number: int = 0) -> Iterator[list[Item]]:
        """Yield the examples of each micro-batch of a whole epoch."""
        for position in range(0, len(self.examples), self.batch_size):
            yield from self.examples_at(number, position)


class EpochBatches(Epochs[Example]):
    """Questions with their answers in epochs, laid out as forests with these loss weights."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        batch_size: int,
        micro_batch: int,
        seed: int = 0,
        loss_weights: LossWeights = RESPONSE_ONLY,
    ):
        def lay_out(indices: Sequence[int]) -> Batch:
            return batch_of([examples[i] for i in indices], loss_weights)

        sizes = {"batch_size": batch_size, "micro_batch": micro_batch}
        super().__init__(examples, lay_out, **sizes, seed=seed)
