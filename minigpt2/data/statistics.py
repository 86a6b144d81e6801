"""Statistics: how long questions and answers are, and what follows for training.

Definition, over the N examples of a data set, with Qᵢ prompt tokens and Aᵢ answer tokens
    N_Q = Σ Qᵢ,  N_A = Σ Aᵢ,  E[Q] = N_Q / N,  E[A] = N_A / N      (27.1)
A trainer that pads computes, for a batch of B examples,
    B · maxᵢ (Qᵢ + Aᵢ) rows, of which Σᵢ (Qᵢ + Aᵢ) hold tokens     (27.2)
and the forest (data/forest) as many rows as it has tokens, what prompts share counted once.

A question is a near-duplicate of another if their texts are alike by 90 % or more: 1 − d / (m + n),
where d is the fewest characters to take out and to put in that make one of the other, and m and n
are their lengths (Indel similarity, from the library rapidfuzz).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.data.records import Record
from minigpt2.data.truncation import Cuts, Policy, fit, lost

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
ALIKE = 90.0  # per cent
AT_ONCE = 64  # questions compared with all others at a time


class Lengths(NamedTuple):
    """The tokens of prompts and of answers, example by example."""

    prompt: Array  # (N,)
    answer: Array  # (N,)

    @property
    def whole(self) -> Array:
        """The tokens of each example."""
        return self.prompt + self.answer


def lengths_of(examples: Sequence[Example]) -> Lengths:
    """Count the tokens of prompts and answers; an answer's end-of-text is one of its tokens."""
    answer = np.array([sum(e.is_answer) for e in examples])
    return Lengths(np.array([len(e.ids) for e in examples]) - answer, answer)


class Summary(NamedTuple):
    """What is told of one kind of length."""

    total: int
    mean: float
    quantiles: list[int]

    @classmethod
    def of(cls, lengths: Array) -> "Summary":
        """Summarise lengths (N,)."""
        quantiles = np.quantile(lengths, QUANTILES, method="inverted_cdf")
        return cls(int(lengths.sum()), float(lengths.mean()), [int(q) for q in quantiles])  # (27.1)


def cuts_at(examples: Sequence[Example], context: int, policy: Policy) -> Cuts:
    """Count what a context would cut."""
    return sum((lost(e, fit(e, context, policy)) for e in examples), Cuts())


class Rows(NamedTuple):
    """The rows that one epoch computes, in three ways."""

    padded: int
    tokens: int  # without padding
    forest: int  # and with what prompts share computed once


def rows_of(examples: Sequence[Example], batch_size: int, rng: np.random.Generator) -> Rows:
    """Count the rows of one shuffled epoch; a sequence's last token needs none."""
    padded = tokens = forest = 0
    order = rng.permutation(len(examples))
    for start in range(0, len(order), batch_size):
        batch = [examples[i] for i in order[start : start + batch_size]]
        sizes = [len(example.ids) - 1 for example in batch]
        padded += len(sizes) * max(sizes)  # (27.2)
        tokens += sum(sizes)  # (27.2)
        forest += len(batch_of(batch).ids)
    return Rows(padded, tokens, forest)


def question_of(record: Record) -> str:
    """Return all that is before a record's answer, or a text, without capitals and extra spaces."""
    said = [text for exchange in record.earlier for text in exchange]
    texts = [record.system, *said, record.instruction, record.input]
    return " ".join(" ".join([record.output] if record.is_text else texts).lower().split())


def repeated(questions: Sequence[str]) -> int:
    """Return how many questions stand there before."""
    return len(questions) - len(set(questions))


class Pair(NamedTuple):
    """A question, by its number, the one most like it, and how alike they are, in per cent."""

    one: int
    other: int
    alike: float


def near_duplicates(
    ones: Sequence[str],
    others: Sequence[str],
    progress: Callable[[int], None] = lambda finished: None,
) -> list[Pair]:
    """Return those of `ones` that have a near-duplicate among `others`, with the nearest."""
    from rapidfuzz import fuzz  # they take time to load
    from rapidfuzz.process import cdist

    pairs = []
    for start in range(0, len(ones), AT_ONCE):
        some = ones[start : start + AT_ONCE]
        scores = cdist(
            some, others, scorer=fuzz.ratio, score_cutoff=ALIKE, dtype=np.float32, workers=-1
        )  # (B, N)
        nearest = scores.argmax(-1)
        for row, column in enumerate(nearest.tolist()):
            if scores[row, column]:
                pairs.append(Pair(start + row, column, float(scores[row, column])))
        progress(len(some))
    return pairs
