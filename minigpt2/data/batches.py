"""Batches: records become examples, examples become shuffled micro-batches.

An example is a prompt and an answer, encoded apart, their ids joined; the answer
ends with end-of-text.  A row of the model predicts the next token, so T rows
hold T + 1 tokens, the last of which is a target only.  When an example has more,
the prompt is cut first, at its start, down to one token; then the answer, at its
end, and a cut answer gets no end-of-text, since it does not end there.  Both
cuts are counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from minigpt2.data.forest import Segment, grow, lay_out
from minigpt2.data.records import Record
from minigpt2.data.template import prompt_of
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.model.gpt2 import Batch

Item = TypeVar("Item")


class Example(NamedTuple):
    """The ids of a prompt and of its answer, and what each lost to the context's limit."""

    prompt: list[int]
    answer: list[int]
    prompt_cut: int = 0
    answer_cut: int = 0


@dataclass
class Cuts:
    """How many of the examples lost a part of their prompt, and of their answer."""

    examples: int = 0
    prompts: int = 0
    answers: int = 0

    def __add__(self, other: "Cuts") -> "Cuts":
        """Return the cuts of both."""
        return Cuts(
            self.examples + other.examples,
            self.prompts + other.prompts,
            self.answers + other.answers,
        )


def encode(record: Record, tokenizer: Tokenizer, context: int) -> Example:
    """Encode a record for a context of `context` rows, cutting the prompt before the answer."""
    prompt = tokenizer.encode(prompt_of(record))
    answer = [*tokenizer.encode(record.output), tokenizer.end_of_text]
    room = context + 1
    kept_prompt = min(len(prompt), max(1, room - len(answer)))
    kept_answer = min(len(answer), room - kept_prompt)
    prompt_cut, answer_cut = len(prompt) - kept_prompt, len(answer) - kept_answer
    return Example(prompt[prompt_cut:], answer[:kept_answer], prompt_cut, answer_cut)


def encode_all(
    records: Sequence[Record], tokenizer: Tokenizer, context: int
) -> tuple[list[Example], Cuts]:
    """Encode all records, and count the cuts."""
    examples = [encode(record, tokenizer, context) for record in records]
    prompts = sum(e.prompt_cut > 0 for e in examples)
    answers = sum(e.answer_cut > 0 for e in examples)
    return examples, Cuts(len(examples), prompts, answers)


def batch_of(examples: Sequence[Example]) -> Batch:
    """Lay examples out as a forest; the answers' tokens are supervised, each with weight 1."""
    answers = [Segment(e.answer, [1.0] * len(e.answer)) for e in examples]
    return lay_out(grow([(e.prompt, a) for e, a in zip(examples, answers, strict=True)]))


def split(
    items: Sequence[Item], share: float, rng: np.random.Generator
) -> tuple[list[Item], list[Item]]:
    """Split items at random into those kept and those held back, a `share` of all.

    At least one is kept; at least one is held back if share > 0 and there are two or more.
    """
    order = rng.permutation(len(items))
    held = min(len(items) - 1, max(1, round(share * len(items)))) if share > 0 else 0
    return [items[i] for i in sorted(order[held:])], [items[i] for i in sorted(order[:held])]


def windows(
    examples: Sequence[Example], batch_size: int, micro_batch: int, rng: np.random.Generator
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of one optimiser step after the other, for ever.

    Each epoch is a new permutation; its last window holds what is left.
    """
    while True:
        order = rng.permutation(len(examples))
        for start in range(0, len(order), batch_size):
            window = order[start : start + batch_size]
            parts = (window[i : i + micro_batch] for i in range(0, len(window), micro_batch))
            yield [batch_of([examples[i] for i in part]) for part in parts]
