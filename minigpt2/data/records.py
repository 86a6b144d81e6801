"""Records: one question with its answer, and what belongs to it.

Whatever format a data set has (data/formats), its entries become records.  The last
question of a conversation and its answer are the record; what was said before
stands in `earlier`.  A text that answers no question has an empty instruction.
"""

from typing import NamedTuple


class Exchange(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


class Record(NamedTuple):
    """A question, with an input or without, and its answer."""

    instruction: str
    input: str
    output: str
    system: str = ""  # what the model is told before everything else
    earlier: tuple[Exchange, ...] = ()  # what was said before the question
    rejected: str = ""  # a worse answer, in data about preferences

    @property
    def is_text(self) -> bool:
        """Whether this is a text that answers no question."""
        return not self.instruction

    def as_entry(self) -> dict[str, object]:
        """Return the fields as JSON holds them: Alpaca's, and the others that are not empty."""
        fields = self._asdict()
        alpaca = ("instruction", "input", "output")
        return {name: value for name, value in fields.items() if name in alpaca or value}
