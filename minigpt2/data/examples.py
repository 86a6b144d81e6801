"""Examples: a record as token ids, with what in them is answer.

Prompts and answers are encoded apart and their ids joined, so that a question has the same ids
whether its answer is known or not.  Each answer ends with end-of-text, which belongs to it and is
known by its place: text that spells the special token never becomes it.  A text that answers no
question stands behind an end-of-text, which predicts its first token.
"""

from typing import NamedTuple

from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, Template, parts_of
from minigpt2.data.tokenizer import Tokenizer


class Example(NamedTuple):
    """Token ids, whether each belongs to an answer, and how many were cut off (data/truncation)."""

    ids: list[int]
    is_answer: list[bool]
    prompt_cut: int = 0  # tokens
    answer_cut: int = 0
    is_text: bool = False  # no question, and as long as it comes

    @property
    def first_answer(self) -> int:
        """The place where the first answer begins."""
        return self.is_answer.index(True)

    @property
    def last_answer(self) -> int:
        """The place where the last answer begins."""
        return len(self.ids) - next(
            (n for n, part in enumerate(reversed(self.is_answer)) if not part), len(self.ids)
        )


def encode(record: Record, tokenizer: Tokenizer, template: Template = ALPACA) -> Example:
    """Return a record's ids, of any length."""
    ids, is_answer = ([tokenizer.end_of_text], [False]) if record.is_text else ([], [])
    for part in parts_of(record, template):
        new = tokenizer.encode(part.text) + [tokenizer.end_of_text] * part.is_answer
        ids += new
        is_answer += [part.is_answer] * len(new)
    return Example(ids, is_answer, is_text=record.is_text)


def encode_prompt(record: Record, tokenizer: Tokenizer, template: Template = ALPACA) -> list[int]:
    """Return the ids of all that comes before a record's last answer."""
    example = encode(record, tokenizer, template)
    return example.ids[: example.last_answer]
