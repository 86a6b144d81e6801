"""Evaluation: the loss on held-out examples, and exact match.

Definition
    The validation losses are (19.1) and (19.2) over all examples; the batch size
    changes only rounding.
    exact match = answers equal to their reference / answers       (31.1)
    An answer is the text that greedy decoding writes before end-of-text.  It equals
    its reference if every character does.

Example: the second answer is right in substance, but does not equal its reference
    >>> question = Record("What is 2 + 3?", "", "5")
    >>> answers = [Answer(question, "5"), Answer(question, "It is 5.")]
    >>> exact_match(answers)
    0.5
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.data.records import Record
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.inference.answers import answer_questions
from minigpt2.inference.model import Model
from minigpt2.model.gpt2 import loss_of
from minigpt2.model.parameters import Parameters
from minigpt2.training.losses import Losses


class Answer(NamedTuple):
    """A question with its reference, and the model's answer."""

    record: Record
    answer: str

    @property
    def exact(self) -> bool:
        """Whether the answer is the reference."""
        return self.answer == self.record.output


def validation_losses(
    parameters: Parameters,
    examples: Sequence[Example],
    micro_batch: int,
    progress: Callable[[int], None] = lambda finished: None,
) -> Losses:
    """Return the losses of examples, computed `micro_batch` at a time."""
    losses = Losses()
    for start in range(0, len(examples), micro_batch):
        batch = batch_of(examples[start : start + micro_batch])
        losses.add(batch, loss_of(parameters, batch)[1])
        progress(min(micro_batch, len(examples) - start))
    return losses


def answer_all(
    model: Model,
    records: Sequence[Record],
    max_new: int,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[Answer]:
    """Answer every record's question by greedy decoding, with at most max_new tokens each.

    A prompt that is longer than the context loses its beginning.
    """
    texts = answer_questions(
        model, records, max_new_tokens=max_new, truncate=True, progress=progress
    )
    return [Answer(record, text) for record, text in zip(records, texts, strict=True)]


def longest_reference(tokenizer: Tokenizer, records: Sequence[Record]) -> int:
    """Return the tokens of the longest reference, end-of-text included."""
    return 1 + max(len(tokenizer.encode(record.output)) for record in records)


def exact_match(answers: Sequence[Answer]) -> float:
    """Return the share of answers that equal their reference, from 0 to 1."""
    return sum(answer.exact for answer in answers) / len(answers)  # (31.1)
