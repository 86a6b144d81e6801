"""Examples: a record as token ids, and which of them belong to an answer.

Prompts and answers are encoded separately and their ids joined, so a question has the same ids
whether its answer is known or not.  Each answer ends with end-of-text, which belongs to it.  This
token is recognised by its place, not by its value, so text that spells the special token does not
become it.  A plain text, which answers no question, follows an end-of-text, which predicts its
first token.
"""

from typing import NamedTuple

from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, Template, parts_of
from minigpt2.data.tokenizer import Tokenizer


class Example(NamedTuple):
    """Token ids, whether each belongs to an answer, and how many were cut (data/truncation)."""

    ids: list[int]
    is_answer: list[bool]
    prompt_cut: int = 0  # tokens
    answer_cut: int = 0
    is_text: bool = False  # no question, and not cut but split

    @property
    def first_answer(self) -> int:
        """The index of the first answer's first token."""
        return self.is_answer.index(True)

    @property
    def last_answer(self) -> int:
        """The index of the last answer's first token."""
        return len(self.ids) - next(
            (n for n, part in enumerate(reversed(self.is_answer)) if not part), len(self.ids)
        )


def encode(record: Record, tokenizer: Tokenizer, template: Template = ALPACA) -> Example:
    """Return a record as an example of any length: nothing is cut."""
    ids = [tokenizer.end_of_text] if record.is_text else []
    is_answer = [False] * len(ids)
    for part in parts_of(record, template):
        new = tokenizer.encode(part.text) + [tokenizer.end_of_text] * part.is_answer
        ids += new
        is_answer += [part.is_answer and part.is_learned] * len(new)
    return Example(ids, is_answer, is_text=record.is_text)


def encode_prompt(record: Record, tokenizer: Tokenizer, template: Template = ALPACA) -> list[int]:
    """Return the ids of everything before a record's last answer."""
    example = encode(record, tokenizer, template)
    return example.ids[: example.last_answer]
