"""Tokens: an example token by token, with what each is for."""

from collections.abc import Sequence
from typing import NamedTuple

from minigpt2.data.examples import Example
from minigpt2.data.tokenizer import Tokenizer


class Token(NamedTuple):
    """A token as it is shown."""

    place: int
    id: int
    text: str
    is_answer: bool
    weight: float  # as a target
    is_special: bool
    predicts: str  # what its row does

    @property
    def quoted(self) -> str:
        """The text in quotation marks, but for a special token's."""
        return self.text if self.is_special else repr(self.text)


def tokens_of(example: Example, weights: Sequence[float], tokenizer: Tokenizer) -> list[Token]:
    """Return an example's tokens; the bytes of a character stand with the token that ends it."""
    spelled = list(tokenizer.decode_stream(example.ids))
    held_back = spelled.pop()
    spelled[-1] += held_back
    columns = zip(example.ids, spelled, example.is_answer, weights, strict=True)
    stop, nothing = tokenizer.end_of_text, "predicts nothing"
    tokens = [Token(k, *column, column[0] == stop, nothing) for k, column in enumerate(columns)]
    for k, target in enumerate(tokens[1:]):
        tokens[k] = tokens[k]._replace(predicts=f"predicts {target.quoted}")
    return tokens
