"""Batch profile: the sizes of a run's micro-batches, and settings that fit a given memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from minigpt2.data.batches import FIRST_EPOCHS, EpochBatches, batch_of, training_set
from minigpt2.data.examples import Example
from minigpt2.data.loss_weights import RESPONSE_ONLY, LossWeights
from minigpt2.data.truncation import Policy, require_examples
from minigpt2.errors import UserError
from minigpt2.model.adapters import LoRA
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, PartsOf, peak

SHORTEST = 64  # context that `choices` yields
LAID_OUT = 32  # micro-batches of the first epochs, at most, whose rows are counted one by one


class RunShape(NamedTuple):
    """The settings of a run that its memory and time depend on."""

    context: int
    batch_size: int
    micro_batch: int
    recompute: bool = False
    dropout: bool = False
    truncate: Policy = "answer"
    loss_weights: LossWeights = RESPONSE_ONLY
    validation: float = 0.0  # share of the examples
    seed: int = 0
    lora: LoRA | None = None  # only adapters are trained

    @property
    def memory_options(self) -> MemoryOptions:
        """The settings that change the memory of a step."""
        return MemoryOptions(self.recompute, self.dropout, self.lora)


class BatchProfile(NamedTuple):
    """Every micro-batch of an epoch, or of one step if all steps are alike."""

    micro_batches: list[MicroBatch]
    steps: int  # to which they belong
    length: int  # of a sequence, on average
    times: Sequence[int] = ()  # that each occurs; once if this is empty
    longest: Sequence[MicroBatch] = ()  # of the first epochs: each has another order

    @property
    def all_micro_batches(self) -> int:
        """The number of micro-batches."""
        return sum(self.times) or len(self.micro_batches)

    @property
    def largest(self) -> MicroBatch:
        """The most rows and the most supervised triples of a micro-batch."""
        all_sizes = [*self.micro_batches, *self.longest]
        rows = max(batch.rows for batch in all_sizes)
        return MicroBatch(rows, max(batch.supervised for batch in all_sizes))

    @property
    def typical(self) -> MicroBatch:
        """The average micro-batch."""
        columns = zip(*self.micro_batches, strict=True)
        rows, supervised = (np.average(c, weights=self.times or None) for c in columns)
        return MicroBatch(max(1, round(rows)), max(1, round(supervised)))


class Choice(NamedTuple):
    """A run's shape with its peak memory in bytes."""

    shape: RunShape
    bytes: int


def profile(shape: RunShape, examples: Sequence[Example]) -> BatchProfile:
    """Count the rows of the micro-batches; without data, each example fills the context.

    >>> counted = profile(RunShape(context=5, batch_size=7, micro_batch=2), [])
    >>> print(*counted.micro_batches, counted.times)
    MicroBatch(rows=10, supervised=10) MicroBatch(rows=5, supervised=5) [3, 1]
    """
    if examples:
        return profile_of_examples(shape, examples)
    full, rest = divmod(shape.batch_size, shape.micro_batch)
    rows = [size * shape.context for size in (shape.micro_batch, rest) if size]
    return BatchProfile([MicroBatch(n, n) for n in rows], 1, shape.context, [full, 1][: len(rows)])


def profile_of_examples(shape: RunShape, examples: Sequence[Example]) -> BatchProfile:
    """Count the rows of the micro-batches of an epoch, and of the longest ones of the first epochs.

    Raises UserError if no example is left to train on.
    """
    fitting, _, cuts = training_set(
        examples, shape.context, shape.truncate, validation=shape.validation, seed=shape.seed
    )
    require_examples(fitting, cuts, shape.context)
    epoch = EpochBatches(
        fitting,
        batch_size=shape.batch_size,
        micro_batch=shape.micro_batch,
        seed=shape.seed,
        loss_weights=shape.loss_weights,
    )
    sizes = [size_of(batch_of(part, shape.loss_weights)) for part in epoch.epoch()]
    lengths = [len(example.ids) for example in fitting]
    parts = epoch.longest(lengths, FIRST_EPOCHS * epoch.steps, LAID_OUT)
    longest = [size_of(epoch.lay_out(part)) for part in parts]
    return BatchProfile(sizes, epoch.steps, max(1, round(np.mean(lengths))), longest=longest)


def size_of(batch: Batch) -> MicroBatch:
    """Return the size of a micro-batch that is laid out."""
    return MicroBatch(len(batch.ids), int(np.count_nonzero(batch.weights)))


def choices(
    config: GPT2Config,
    shape: RunShape,
    count: Callable[[RunShape], BatchProfile],
    parts_for: Callable[[RunShape], PartsOf],
) -> Iterator[Choice]:
    """Yield shapes with their peak memory.

    `count` counts the rows of a shape, and `parts_for` returns what counts their memory.  The best
    come first: a long context, then no recomputation, then large micro-batches.
    """
    contexts = [shape.context >> k for k in range(11)]
    sizes = [max(1, shape.micro_batch >> k) for k in range(shape.micro_batch.bit_length())]
    for context in (c for c in contexts if c >= min(SHORTEST, shape.context)):
        shapes = [shape._replace(micro_batch=size, context=context) for size in sizes]
        try:
            largest = [count(smaller).largest for smaller in shapes]
        except UserError:  # all examples are longer, and dropped
            return
        for recompute in (False, True):
            for smaller, batch in zip(shapes, largest, strict=True):
                candidate = smaller._replace(recompute=recompute)
                parts = parts_for(candidate)(config, batch, candidate.memory_options)
                yield Choice(candidate, peak(parts))
