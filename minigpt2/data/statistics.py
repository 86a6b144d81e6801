"""Statistics: how long questions and answers are, and what that means for training.

Definition
    A data set has E examples; example i has Qᵢ prompt tokens and Aᵢ answer tokens.  With ⟨·⟩
    for the mean over the examples,
    N_Q = Σᵢ Qᵢ,  N_A = Σᵢ Aᵢ,  ⟨Q⟩ = N_Q / E,  ⟨A⟩ = N_A / E      (28.1)
    The last token of an example is only a target and needs no row of the model, so the example
    takes Qᵢ + Aᵢ − 1 rows.  A trainer that pads each example of a batch S to the longest computes
    rows = |S| · maxᵢ (Qᵢ + Aᵢ − 1),  of which Σᵢ (Qᵢ + Aᵢ − 1) hold tokens   (28.2)
    The forest (data/forest) has no padding, and what prompts share takes its rows once.

    Two questions are near-duplicates if their similarity is 0.9 or more.  Let m and n be the
    lengths of the two texts in characters, and d the smallest number of characters that must be
    deleted and inserted to turn one into the other:
    similarity = 1 − d / (m + n)                                   (28.3)
    This is the normalised Indel similarity of the library rapidfuzz, which computes it.

Numbers to check by hand
    Three examples with 3, 4 and 2 prompt tokens, none of them shared, and 2, 1 and 6 answer
    tokens, in one batch.  N_Q = 9, N_A = 9, and both means are 3.  The examples take 4, 4 and 7
    rows: 15 with tokens, and 3 · 7 = 21 when padded.

    >>> sizes = [(3, 2), (4, 1), (2, 6)]
    >>> examples = [
    ...     Example(ids=[10 * i + k for k in range(q + a)], is_answer=[False] * q + [True] * a)
    ...     for i, (q, a) in enumerate(sizes)
    ... ]
    >>> lengths = lengths_of(examples)
    >>> Summary.of(lengths.prompt).total, Summary.of(lengths.prompt).mean
    (9, 3.0)
    >>> count_rows([examples])
    RowCounts(padded=21, packed=15, forest=15)

    "cats" becomes "carts" by one insertion: 1 − 1 / (4 + 5) = 0.889, no near-duplicate.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.data.records import Record

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
NEAR = 90.0  # per cent: the smallest similarity of near-duplicates
CHUNK = 64  # questions that are compared with all candidates at a time


class Lengths(NamedTuple):
    """The tokens of prompts and of answers, example by example."""

    prompt: Array  # (E,)
    answer: Array  # (E,)

    @property
    def both(self) -> Array:
        """The tokens of each example (E,)."""
        return self.prompt + self.answer


def lengths_of(examples: Sequence[Example]) -> Lengths:
    """Count the tokens of prompts and answers; an answer's end-of-text is one of its tokens."""
    answer = np.array([sum(e.is_answer) for e in examples])
    return Lengths(np.array([len(e.ids) for e in examples]) - answer, answer)


class Summary(NamedTuple):
    """The sum, the mean and the QUANTILES of some lengths."""

    total: int
    mean: float
    quantiles: list[int]

    @classmethod
    def of(cls, lengths: Array) -> "Summary":
        """Summarise lengths (E,)."""
        quantiles = np.quantile(lengths, QUANTILES, method="inverted_cdf")
        return cls(int(lengths.sum()), float(lengths.mean()), [int(q) for q in quantiles])  # (28.1)


class RowCounts(NamedTuple):
    """The rows of some micro-batches, in three ways."""

    padded: int  # each example padded to the longest of its micro-batch
    packed: int  # without padding
    forest: int  # without padding, and what prompts share computed once


def count_rows(batches: Iterable[Sequence[Example]]) -> RowCounts:
    """Count the rows of micro-batches."""
    padded = packed = forest = 0
    for batch in batches:
        sizes = [len(example.ids) - 1 for example in batch]
        padded += len(sizes) * max(sizes)  # (28.2)
        packed += sum(sizes)  # (28.2)
        forest += len(batch_of(batch).ids)
    return RowCounts(padded, packed, forest)


def whole_question(record: Record) -> str:
    """Return all text before a record's last answer; of a record that is a plain text, the text."""
    return record.output if record.is_text else " ".join(filter(None, record.texts_before_answer))


def normalised_question(record: Record) -> str:
    """Return the whole question of a record, in lower case and with single spaces."""
    return " ".join(whole_question(record).lower().split())


def count_repeated(questions: Sequence[str]) -> tuple[int, int]:
    """Return how many questions are there more than once, and how many of their copies to remove.

    >>> count_repeated(["first?", "first?", "first?", "second?"])
    (1, 2)
    """
    counts = Counter(questions)
    return sum(count > 1 for count in counts.values()), len(questions) - len(counts)


class NearDuplicate(NamedTuple):
    """A question and the candidate most similar to it, by their numbers."""

    question: int
    candidate: int
    similarity: float  # per cent


def near_duplicates(
    questions: Sequence[str],
    candidates: Sequence[str],
    progress: Callable[[int], None] = lambda finished: None,
) -> list[NearDuplicate]:
    """Return the questions that have a near-duplicate among the candidates, each with the nearest.

    `progress` is called with the number of questions that were compared since its last call.
    """
    from rapidfuzz import fuzz  # they take time to load
    from rapidfuzz.process import cdist

    duplicates = []
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        scores = cdist(
            chunk,
            candidates,
            scorer=fuzz.ratio,  # (28.3)
            score_cutoff=NEAR,
            dtype=np.float32,
            workers=-1,
        )  # a row for each question of the chunk, a column for each candidate; 0 below NEAR
        for row, column in enumerate(scores.argmax(-1).tolist()):
            if scores[row, column]:
                duplicates.append(NearDuplicate(start + row, column, float(scores[row, column])))
        progress(len(chunk))
    return duplicates
