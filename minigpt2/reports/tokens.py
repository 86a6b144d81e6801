"""Tokens: an example token by token, each with its weight and what its row predicts."""

from collections.abc import Sequence
from typing import NamedTuple

from minigpt2.data.examples import Example
from minigpt2.data.tokenizer import Tokenizer


class Token(NamedTuple):
    """A token, ready to print."""

    place: int
    id: int
    text: str
    is_answer: bool
    weight: float  # as a target
    is_special: bool
    predicts: str  # "predicts 'x'": the target of its row

    @property
    def quoted(self) -> str:
        """The text in quotation marks; a special token's without them."""
        return self.text if self.is_special else repr(self.text)


def tokens_of(example: Example, weights: Sequence[float], tokenizer: Tokenizer) -> list[Token]:
    """Return an example's tokens; a character in several tokens belongs to the last of them."""
    spelled = list(tokenizer.decode_stream(example.ids))
    incomplete = spelled.pop()
    spelled[-1] += incomplete
    columns = zip(example.ids, spelled, example.is_answer, weights, strict=True)
    stop, nothing = tokenizer.end_of_text, "predicts nothing"
    tokens = [Token(k, *column, column[0] == stop, nothing) for k, column in enumerate(columns)]
    for k, target in enumerate(tokens[1:]):
        tokens[k] = tokens[k]._replace(predicts=f"predicts {target.quoted}")
    return tokens
