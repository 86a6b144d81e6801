"""Batches of pairs: pairs in epochs, each with its two answers in one micro-batch."""

from collections.abc import Callable, Sequence

import numpy as np

from minigpt2.alignment.log_probs import Answer, batch_of_answers, with_columns
from minigpt2.alignment.pairs import Pair
from minigpt2.backend import Array
from minigpt2.data.batches import Epochs
from minigpt2.model.batch import Batch


def answers_of(pairs: Sequence[Pair]) -> list[Answer]:
    """Return the answers of pairs in turn: chosen, rejected, chosen, rejected, ..."""
    return [Answer(pair.prompt, ids) for pair in pairs for ids in (pair.chosen, pair.rejected)]


def by_pair(of_answers: Array) -> Array:
    """Return numbers of answers (2B,), which are in turn, pair by pair (B, 2)."""
    return of_answers.reshape(-1, 2)


def pairs_in(batch: Batch) -> int:
    """Return the number of pairs in a batch."""
    return (batch.answers.max(initial=-1) + 1) // 2


class PairBatches(Epochs[Pair]):
    """Pairs in epochs; answers 2k and 2k + 1 of a micro-batch are chosen and rejected of pair k.

    `lay_out` makes a batch of answers.  `reference` (pairs, 2) has ln π of each answer by the
    reference; then batches have a column "reference", whose sum over an answer is this number.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int,
        micro_batch: int,
        seed: int = 0,
        reference: Array | None = None,
        lay_out: Callable[[Sequence[Answer]], Batch] = batch_of_answers,
    ):
        def batch(indices: Sequence[int]) -> Batch:
            answers = answers_of([pairs[i] for i in indices])
            laid_out = lay_out(answers)
            return laid_out if reference is None else with_reference(laid_out, reference[indices])

        sizes = {"batch_size": batch_size, "micro_batch": micro_batch}
        super().__init__(pairs, batch, **sizes, seed=seed)


def with_reference(batch: Batch, reference: Array) -> Batch:
    """Return a batch of pairs with a column "reference" that sums to `reference` (B, 2)."""
    lengths = np.bincount(batch.answers)
    numbers = reference.ravel().tolist()
    tokens = [[number] + [0.0] * (n - 1) for number, n in zip(numbers, lengths, strict=True)]
    return with_columns(batch, reference=tokens)
