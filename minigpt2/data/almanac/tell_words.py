"""Telling words: lists of words and numbers, each told twice.

The second time every word is known from the first.  No other text says so plainly that a word
can be looked up where it stood before, and models learn that late, and all at once (Olsson et
al. 2022): with these lists a small model learns it early.

A byte-pair vocabulary spells a word differently after a space, at the start of a line, and with
a capital letter.  So some lists change from one form to another.
"""

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from minigpt2.data.almanac.arithmetic import kept_apart
from minigpt2.data.almanac.chance import pick
from minigpt2.data.almanac.tables import facts
from minigpt2.data.almanac.wordings import capital, fill, sections

FEWEST, MOST = 2, 7  # words in a list
SEPARATORS = (", ", " ", " and ")
FORMS = ("twice", "twice", "columns", "lines", "lines", "titles")


@cache
def words() -> tuple[str, ...]:
    """All subjects and values, names and things, each once."""
    cast = sections("cast")
    known = [text for fact in facts() for text in (fact.subject, fact.value)]
    return tuple(dict.fromkeys([*known, *cast["names"], *cast["things"]]))


def word(rng: np.random.Generator) -> str:
    """A word, or in one of four cases a number below 100."""
    return str(int(rng.random() * 100)) if rng.random() < 0.25 else pick(rng, words())


def word_list(rng: np.random.Generator) -> list[str]:
    """A few words; operands of an unseen sum or difference never stand in one list."""
    told: list[str] = []
    for _ in range(FEWEST + int(rng.random() * (MOST - FEWEST + 1))):
        new = word(rng)
        while new.isdigit() and any(kept_apart(int(new), int(n)) for n in told if n.isdigit()):
            new = word(rng)
        told.append(new)
    return told


def column(told: Iterable[str]) -> str:
    """The words on lines of their own."""
    return "\n" + "\n".join(told) + "\n"


def twice(rng: np.random.Generator, plain: bool = False) -> str:
    """A list of words told twice: side by side in plain text, else perhaps in another form."""
    told = word_list(rng)
    form = "twice" if plain else pick(rng, FORMS)
    return fill(
        pick(rng, sections("tell_words")[form]),
        words=pick(rng, SEPARATORS).join(told),
        lines=column(told),
        titles=column(map(capital, told)),
    )


def word_documents(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Documents without end, of four lists each."""
    while True:
        yield "\n".join(twice(rng, plain) for _ in range(4))
