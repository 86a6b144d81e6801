"""Tokens: an example token by token, each with its weight and what its row predicts."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from minigpt2.data.examples import Example
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.data.vocabulary import END_OF_TEXT
from minigpt2.terminal import spell

GAP = "·"  # in end-of-text that is spelled by ordinary tokens


class Token(NamedTuple):
    """A token, ready to print."""

    place: int
    id: int
    text: str
    is_answer: bool
    weight: float  # as a target
    is_special: bool
    predicts: str = "predicts nothing"  # "predicts 'x'": the target of its row
    spelled: str = ""  # the text as it is shown: nothing invisible but spaces and line breaks

    @property
    def quoted(self) -> str:
        """The text in quotation marks; a special token's without them."""
        return self.text if self.is_special else repr(self.text)


def tokens_of(example: Example, weights: Sequence[float], tokenizer: Tokenizer) -> list[Token]:
    """Return an example's tokens; a character in several tokens belongs to the last of them."""
    texts = list(tokenizer.decode_stream(example.ids))
    incomplete = texts.pop()
    texts[-1] += incomplete
    columns = zip(example.ids, texts, example.is_answer, weights, strict=True)
    stop = tokenizer.end_of_text
    tokens = [Token(k, *column, is_special=column[0] == stop) for k, column in enumerate(columns)]
    for k, target in enumerate(tokens[1:]):
        tokens[k] = tokens[k]._replace(predicts=f"predicts {target.quoted}")
    gaps = gaps_of(tokens)
    for k, token in enumerate(tokens):
        characters = (GAP * ((k, n) in gaps) + legible(c) for n, c in enumerate(token.text))
        tokens[k] = token._replace(spelled=token.text if token.is_special else "".join(characters))
    return tokens


def legible(character: str) -> str:
    r"""Return a character, or its escape if it is invisible.

    >>> [legible(character) for character in ("a", " ", "\n", "\r", "\u200b", "\xa0")]
    ['a', ' ', '\n', '\\r', '\\u200b', '\\xa0']
    """
    return character if character.isprintable() or character in "\n\t" else spell(character)


def gaps_of(tokens: Sequence[Token]) -> set[tuple[int, int]]:
    """Return the places, token and character, of the second character of each spelled END_OF_TEXT.

    A gap there tells it from the token.
    """
    places = [
        (k, n)
        for k, token in enumerate(tokens)
        for n in range(len(token.text) if not token.is_special else 1)
    ]
    text = "".join(" " if token.is_special else token.text for token in tokens)
    return {places[match.start() + 1] for match in re.finditer(re.escape(END_OF_TEXT), text)}
