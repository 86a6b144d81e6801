"""Evaluation: the loss on examples that were not trained on, and exact match.

Definition
    The validation losses are (19.1) and (19.2) over all examples: how they are batched
    changes nothing.
    exact match = answers equal to their reference / answers       (31.1)
    An answer is what greedy decoding gives before end-of-text, equal as text.
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
    """A question, the reference, and what the model answered."""

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
    """Return the losses of examples."""
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

    Of a prompt that is longer than the context, the end is kept.
    """
    texts = answer_questions(
        model, records, max_new_tokens=max_new, truncate=True, progress=progress
    )
    return [Answer(record, text) for record, text in zip(records, texts, strict=True)]


def longest_reference(tokenizer: Tokenizer, records: Sequence[Record]) -> int:
    """Return how many tokens the longest reference has with end-of-text: none needs more."""
    return 1 + max(len(tokenizer.encode(record.output)) for record in records)


def exact_match(answers: Sequence[Answer]) -> float:
    """Return the share of answers that equal their reference, from 0 to 1."""
    return sum(answer.exact for answer in answers) / len(answers)  # (31.1)
