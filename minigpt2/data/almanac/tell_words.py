"""Telling words: lists of words and numbers, each given twice.

When a list is repeated, each word can be copied from where it was before.  No other text shows this
so plainly.  Models usually learn to copy late, and all at once (induction heads: Olsson et al.
2022); with these lists a small model learns it early.

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
    """Return all subjects and values, names and things, each once."""
    cast = sections("cast")
    of_facts = [text for fact in facts() for text in (fact.subject, fact.value)]
    return tuple(dict.fromkeys([*of_facts, *cast["names"], *cast["things"]]))


def word(rng: np.random.Generator) -> str:
    """Return a word, or in one of four cases a number below 100."""
    return str(int(rng.random() * 100)) if rng.random() < 0.25 else pick(rng, words())


def word_list(rng: np.random.Generator) -> list[str]:
    """Return a few words; the operands of an unseen sum or difference never share a list."""
    chosen: list[str] = []
    for _ in range(FEWEST + int(rng.random() * (MOST - FEWEST + 1))):
        new = word(rng)
        while new.isdigit() and any(kept_apart(int(new), int(n)) for n in chosen if n.isdigit()):
            new = word(rng)
        chosen.append(new)
    return chosen


def column(items: Iterable[str]) -> str:
    """Return each item on a line of its own."""
    return "\n" + "\n".join(items) + "\n"


def twice(rng: np.random.Generator, plain: bool = False) -> str:
    """Return a list of words twice: in plain text in the same form, else perhaps in another."""
    chosen = word_list(rng)
    form = "twice" if plain else pick(rng, FORMS)
    return fill(
        pick(rng, sections("tell_words")[form]),
        words=pick(rng, SEPARATORS).join(chosen),
        lines=column(chosen),
        titles=column(map(capital, chosen)),
    )


def word_documents(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Yield documents of four lists each, without end."""
    while True:
        yield "\n".join(twice(rng, plain) for _ in range(4))
