"""Records: a question with its answer, and what belongs to it.

Every entry of a data set becomes a record, whatever its format (data/formats).  In a
conversation, the last question and its answer make the record, and the exchanges before them
are in `earlier`.  A plain text, which answers no question, has an empty instruction.
"""

from typing import NamedTuple


class Exchange(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str
    is_learned: bool = True  # else the answer is only read, as a prompt is


def same_text(text: str, other: str) -> bool:
    """Whether two texts are equal, but for white space at their ends."""
    return text.strip() == other.strip()


class Record(NamedTuple):
    """A question, its input if it has one, and its answer."""

    instruction: str
    input: str
    output: str
    system: str = ""  # the system's message, which comes before everything else
    earlier: tuple[Exchange, ...] = ()  # the exchanges before the question
    rejected: str | None = None  # a worse answer, in preference data; it may be empty
    kind: str = ""  # of a preference: what is wrong with the rejected answer

    @property
    def is_text(self) -> bool:
        """Whether this is a plain text that answers no question."""
        return not self.instruction

    @property
    def texts_before_answer(self) -> list[str]:
        """The texts before the answer, in their order; some may be empty."""
        exchanges = [text for e in self.earlier for text in (e.question, e.answer)]
        return [self.system, *exchanges, self.instruction, self.input]

    def as_entry(self) -> dict[str, object]:
        """Return the fields as JSON holds them: Alpaca's, and the others that are not empty."""
        alpaca: dict[str, object] = {
            "instruction": self.instruction,
            "input": self.input,
            "output": self.output,
        }
        others: dict[str, object] = {
            "system": self.system,
            "history": [[exchange.question, exchange.answer] for exchange in self.earlier],
            "kind": self.kind,
        }
        present = {name: value for name, value in others.items() if value}
        return alpaca | present | ({} if self.rejected is None else {"rejected": self.rejected})
