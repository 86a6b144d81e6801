"""Evaluation: the loss on examples that were not trained on, and exact match.

Definition
    validation loss = Σ nll / Σ tokens                             (43.1)
    over all supervised tokens of all examples: never a mean of means, which would
    depend on how the examples were batched.
    exact match = answers equal to their reference / answers       (43.2)
    An answer is what greedy decoding gives before end-of-text, equal as text.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from minigpt2.data.batches import Example, batch_of
from minigpt2.data.records import Record
from minigpt2.data.template import prompt_of
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.inference.generate import generate
from minigpt2.model.gpt2 import loss_of
from minigpt2.model.parameters import Parameters


class Answer(NamedTuple):
    """A question, the reference, and what the model answered."""

    record: Record
    answer: str

    @property
    def exact(self) -> bool:
        """Whether the answer is the reference."""
        return self.answer == self.record.output


def validation_loss(
    parameters: Parameters,
    examples: Sequence[Example],
    micro_batch: int,
    progress: Callable[[int], None] = lambda finished: None,
) -> tuple[float, int]:
    """Return the loss per supervised token, and how many tokens there are."""
    nll, tokens = 0.0, 0
    for start in range(0, len(examples), micro_batch):
        batch = batch_of(examples[start : start + micro_batch])
        _, each = loss_of(parameters, batch)
        nll += float(each.sum())  # (43.1)
        tokens += len(batch.targets)
        progress(min(micro_batch, len(examples) - start))
    return nll / tokens, tokens  # (43.1)


def answer_all(
    parameters: Parameters,
    tokenizer: Tokenizer,
    records: Sequence[Record],
    max_new: int,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[Answer]:
    """Answer every record's question by greedy decoding, with at most max_new tokens each.

    Of a prompt that is longer than the context, the end is kept.
    """
    context = parameters.config.n_positions
    prompts = [tokenizer.encode(prompt_of(record))[-context:] for record in records]
    ids = generate(parameters, prompts, tokenizer.end_of_text, max_new, progress=progress)
    return [Answer(r, tokenizer.decode(i)) for r, i in zip(records, ids, strict=True)]


def longest_reference(tokenizer: Tokenizer, records: Sequence[Record]) -> int:
    """Return how many tokens the longest reference has with end-of-text: none needs more."""
    return 1 + max(len(tokenizer.encode(record.output)) for record in records)


def exact_match(answers: Sequence[Answer]) -> float:
    """Return the share of answers that equal their reference, from 0 to 1."""
    return sum(answer.exact for answer in answers) / len(answers)  # (43.2)
