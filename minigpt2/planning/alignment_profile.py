"""Batch profile of alignment: the sizes of micro-batches of pairs, and of drawn answers."""

from collections.abc import Callable, Sequence

from minigpt2.alignment.pair_batches import PairBatches
from minigpt2.alignment.pairs import Pair, split_pairs
from minigpt2.data.batches import FIRST_EPOCHS
from minigpt2.errors import UserError
from minigpt2.planning.alignment_operations import length_of
from minigpt2.planning.batch_profile import LAID_OUT, BatchProfile, RunShape
from minigpt2.planning.memory_and_flops import MicroBatch


def repeated(shape: RunShape, rows: int, supervised: int, length: float) -> BatchProfile:
    """Return the micro-batches of a step of items that have all the same size."""
    full, rest = divmod(shape.batch_size, shape.micro_batch)
    counts = [count for count in (shape.micro_batch, rest) if count]
    sizes = [MicroBatch(count * rows, count * supervised) for count in counts]
    return BatchProfile(sizes, 1, round(length), [full, 1][: len(sizes)])


def profile_of_pairs(
    shape: RunShape, read: Callable[[int], Sequence[Pair]] | None = None
) -> BatchProfile:
    """Count the rows of the micro-batches of an epoch of pairs; `read` reads those for a context.

    And of the longest ones of the first epochs.  Without pairs, all have a prompt of half of the
    context, and two answers that fill it.  Raises UserError if no pair fits.

    >>> profile_of_pairs(RunShape(context=8, batch_size=4, micro_batch=4)).micro_batches
    [MicroBatch(rows=40, supervised=32)]
    """
    if not read:
        prompt = max(1, shape.context // 2)
        answer = [0] * max(1, shape.context - prompt)
        pair = Pair([0] * prompt, answer, answer)
        return repeated(shape, pair.rows, supervised(pair), length_of_pair(pair))
    fitting = read(shape.context)
    places, _ = split_pairs(fitting, shape.validation, shape.seed)
    pairs = [fitting[place] for place in places]
    if not pairs:
        raise UserError(f"no pair fits the context of {shape.context:,}")
    epoch = PairBatches(
        pairs, batch_size=shape.batch_size, micro_batch=shape.micro_batch, seed=shape.seed
    )
    rows = [pair.rows for pair in pairs]  # (34.1)
    parts = epoch.longest(rows, FIRST_EPOCHS * epoch.steps, LAID_OUT)
    longest = [size_of_pairs([pairs[place] for place in part]) for part in parts]
    length = sum(pair.rows * length_of_pair(pair) for pair in pairs) / sum(rows)  # (53.2)
    sizes = [size_of_pairs(part) for part in epoch.epoch()]
    return BatchProfile(sizes, epoch.steps, round(length), longest=longest)


def size_of_pairs(pairs: Sequence[Pair]) -> MicroBatch:
    """Return the size of a micro-batch of pairs none of which share a beginning."""
    return MicroBatch(sum(pair.rows for pair in pairs), sum(map(supervised, pairs)))  # (34.1)


def length_of_pair(pair: Pair) -> float:
    """Return the length of packed sequences whose rows see as many as those of a pair."""
    return length_of(len(pair.prompt), [len(pair.chosen), len(pair.rejected)])


def supervised(pair: Pair) -> int:
    """Return the triples of a pair: the tokens of both answers."""
    return len(pair.chosen) + len(pair.rejected)


def profile_of_answers(
    shape: RunShape, prompt: int, answer: int, samples: int, shared: bool = True
) -> BatchProfile:
    """Count the rows of a step on prompts of a size, each with so many answers.

    If a prompt is not `shared`, its answers may be in other micro-batches: it counts for each.

    >>> counted = profile_of_answers(RunShape(99, batch_size=4, micro_batch=2), 10, 5, 3)
    >>> counted.micro_batches, counted.times  # 2 · (10 + 3 · 4) rows
    ([MicroBatch(rows=44, supervised=30)], [2])
    """
    rows = prompt * (1 if shared else samples) + samples * (answer - 1)  # (52.2)
    length = length_of(prompt, [answer] * (samples if shared else 1))
    return repeated(shape, rows, samples * answer, length)
