"""The almanac's texts are the same to the letter: the base that ships, and what is told of it."""

from hashlib import sha256
from itertools import islice

import numpy as np
import pytest

from minigpt2.data import almanac
from minigpt2.data.almanac import (
    arithmetic,
    ask,
    chance,
    tables,
    tell_facts,
    tell_numbers,
    tell_words,
    wordings,
)


def digest(items):
    """The beginning of a digest of what is listed, each item as Python prints it."""
    return sha256("\n".join(map(repr, items)).encode()).hexdigest()[:16]


def drawn(function, *arguments, count=300, seed=0, **options):
    """What a function returns so many times, with one generator of random numbers."""
    rng = np.random.default_rng(seed)
    return [function(rng, *arguments, **options) for _ in range(count)]


def streamed(function, *arguments, count=300, seed=0, **options):
    """The first items of a stream."""
    return list(islice(function(np.random.default_rng(seed), *arguments, **options), count))


def all_of_one_kind(function):
    """What a function makes of each kind of equation."""
    kinds = ("+", "-", "+ story", "- story", "+ steps", "- steps")
    return [item for kind in kinds for item in drawn(function, kind, count=60)]


def fitting():
    """Which wordings fit which numbers, also those at the edge."""
    templates = ("{a} and {b}", "{tens} {ones}", "{name}", "{things}", "people", "{name} {tens}")
    numbers = [(a, b) for a in (2, 3, 13, 40) for b in (0, 1, 2, 10, 12) if b <= a]
    fields = [arithmetic.equation_fields(op, a, b) for op in "+-" for a, b in numbers]
    return [arithmetic.fits(template, f) for template in templates for f in fields]


CASES = {
    "documents": lambda: streamed(almanac.documents, count=1500),
    "plain documents": lambda: streamed(almanac.documents, plain=True, count=1500),
    "questions": lambda: almanac.questions(0),
    "questions of another seed": lambda: almanac.questions(1),
    "pairs": lambda: [arithmetic.pairs(op, unseen) for op in "+-" for unseen in (False, True)],
    "small pairs": lambda: map(arithmetic.small_pairs, "+-"),
    "graded pairs": lambda: map(arithmetic.graded_pairs, "+-"),
    "draws": lambda: [drawn(arithmetic.draw, op) for op in "+-"],
    "graded draws": lambda: [drawn(arithmetic.draw_graded, op) for op in "+-"],
    "what fits": fitting,
    "instructions": ask.instructions,
    "words that start lines": ask.line_words,
    "shuffled": lambda: drawn(chance.shuffled, list(range(20))),
    "dealt": lambda: streamed(chance.dealt, list(range(7))),
    "tables": lambda: map(tables.table, tables.TABLES),
    "facts": tables.facts,
    "sentences": lambda: [drawn(tell_facts.sentence, f, count=1) for f in tables.facts()[::9]],
    "entries": lambda: [drawn(tell_facts.entry, f, count=1) for f in tables.facts()[::9]],
    "portraits": lambda: streamed(tell_facts.portraits),
    "lists": lambda: streamed(tell_facts.lists),
    "all entries": lambda: streamed(tell_facts.entries),
    "documents of facts": lambda: streamed(tell_facts.fact_documents, count=900),
    "people": lambda: drawn(tell_numbers.people),
    "equations": lambda: all_of_one_kind(tell_numbers.equation),
    "families": lambda: drawn(tell_numbers.family),
    "comparisons": lambda: drawn(tell_numbers.comparison_fields),
    "drills": lambda: drawn(tell_numbers.drill),
    "number lore": lambda: streamed(tell_numbers.number_lore),
    "documents of numbers": lambda: streamed(tell_numbers.number_documents),
    "words": lambda: drawn(tell_words.word),
    "lists of words": lambda: drawn(tell_words.word_list),
    "words twice": lambda: drawn(tell_words.twice) + drawn(tell_words.twice, plain=True),
    "documents of words": lambda: streamed(tell_words.word_documents),
    "articles": lambda: map(wordings.article, ("apple", "Egg", "house", "hour", "", "USB", "owl")),
}
DIGESTS = {
    "documents": "a0efeef0d6eb6f90",
    "plain documents": "c17e5ce61d97f036",
    "questions": "bfb1bcbc4e292963",
    "questions of another seed": "fe865c2b61ad78b5",
    "pairs": "c60d34d73cff5ee0",
    "small pairs": "f6b410010cf3aeea",
    "graded pairs": "42689cb34530953b",
    "draws": "69186349e4a2e58d",
    "graded draws": "c2f24478ccd362ad",
    "what fits": "c1ff50858b99dbf1",
    "instructions": "7f9a66e4b028f808",
    "words that start lines": "4e2a5053ee5729e8",
    "shuffled": "2651a815632ff863",
    "dealt": "8c6b536a680e0d19",
    "tables": "21191f46b9dca349",
    "facts": "e1a08625d13c8b45",
    "sentences": "8b348a9e6df9a00a",
    "entries": "5e23b0ff90ceafcc",
    "portraits": "d1fe5c6cd20ea493",
    "lists": "1ab613ed6aecdf6b",
    "all entries": "9258f7f66a19de85",
    "documents of facts": "d5112b731cb89fe7",
    "people": "f36fcbfdbe931c64",
    "equations": "a362f3fac97218bc",
    "families": "45ffd36d4ac530e3",
    "comparisons": "e8a2ab59a01350b7",
    "drills": "dc33a9dc11935f81",
    "number lore": "88d90bfecf3007ad",
    "documents of numbers": "1fd744e8a2dbab44",
    "words": "7196e46905a2a033",
    "lists of words": "04584e02084a9a79",
    "words twice": "c521bddb09034dbb",
    "documents of words": "81af7c08ef378690",
    "articles": "83d81abc21340c91",
}


@pytest.mark.parametrize("name", CASES)
def test_texts_are_those_that_the_base_has_read(name):
    assert digest(CASES[name]()) == DIGESTS[name]
