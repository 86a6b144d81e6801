"""Examples: a record as token ids, and which of them belong to an answer.

Prompts and answers are encoded separately and their ids joined, so a question has the same ids
whether its answer is known or not.  Each answer ends with end-of-text, which belongs to it.  This
token is recognised by its place, not by its value, so text that spells the special token does not
become it.  A plain text, which answers no question, follows an end-of-text, which predicts its
first token.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, Piece, Template, parts_of
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.data.vocabulary import END_OF_TEXT


class Span(NamedTuple):
    """A run of an example's tokens, and what it is.

    It is the opening (or system message), the instruction or the input of a prompt, or an earlier
    exchange, which is a question with its answer.
    """

    field: str
    start: int
    stop: int


class Removed(NamedTuple):
    """What was cut from an example that is longer than the context, in tokens (data/truncation)."""

    exchanges: int = 0  # earlier questions with their answers
    input: int = 0
    instruction: int = 0
    template: int = 0  # the template's texts, or the system message
    answer: int = 0
    no_question: bool = False  # nothing is left of the instruction

    @property
    def prompt(self) -> int:
        """The tokens of the last prompt that were cut."""
        return self.input + self.instruction + self.template


NOTHING = Removed()


class Example(NamedTuple):
    """Token ids, and whether each belongs to an answer."""

    ids: list[int]
    is_answer: list[bool]
    spans: tuple[Span, ...] = ()  # of what can be cut, in the order of the ids
    removed: Removed = NOTHING
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
    spans: list[Span] = []
    parts = parts_of(record, template)
    begin = 0  # of the exchange
    for number, part in enumerate(parts):
        start, last = len(ids), number >= len(parts) - 2
        new = tokenizer.encode(part.text) + [tokenizer.end_of_text] * part.is_answer
        ids += new
        is_answer += [part.is_answer and part.is_learned] * len(new)
        if not part.is_answer:
            located = locate(part.pieces, new, tokenizer, start)
            spans += [span for span in located if last or span.field == "opening"]
            begin = begin or spans[0].stop
        elif not last:
            spans.append(Span("exchange", begin, len(ids)))
            begin = len(ids)
    return Example(ids, is_answer, tuple(spans), is_text=record.is_text)


def locate(
    pieces: Sequence[Piece], ids: Sequence[int], tokenizer: Tokenizer, start: int
) -> list[Span]:
    """Return the span of each piece that has a name; `start` is the place of the first id.

    A token that reaches beyond its piece belongs to no span.
    """
    spans = []
    ends = [0, *accumulate(map(tokenizer.length_of, ids))]  # in bytes, after each token
    end = 0
    for piece in pieces:
        begin, end = end, end + len(piece.text.encode("utf-8", "surrogatepass"))
        if piece.field:
            first, last = bisect_left(ends, begin), bisect_right(ends, end) - 1
            spans.append(Span(piece.field, start + first, start + max(first, last)))
    return spans


def spells_end_of_text(record: Record) -> bool:
    """Whether a record's text has the characters of end-of-text, which do not become the token."""
    return any(END_OF_TEXT in text for text in (*record.texts_before_answer, record.output))
