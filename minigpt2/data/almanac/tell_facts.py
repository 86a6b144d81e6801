"""Telling facts: documents of portraits of subjects, lists of one relation, and entries.

One round goes through all facts three times, once in each kind of document, so that all are
told equally often.  A document has about 30 to 100 words.

Portraits and entries stand under headings that what follows takes up: from them a model learns
to carry a word along, which it needs when it is asked about one.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from minigpt2.data.almanac.chance import pick, shuffled
from minigpt2.data.almanac.tables import TABLES, Fact, facts, table
from minigpt2.data.almanac.wordings import capital, fill, marked, sections

ALONE = re.compile(r": (\{.*\})$")  # the word at the end of a heading
SHORTEST, LONGEST = 30, 90  # words; a document ends with the unit that reaches its drawn length


def sentence(rng: np.random.Generator, fact: Fact, mark: str = "") -> str:
    """The fact in one of its wordings."""
    wordings = marked(sections("tell_facts")[f"{fact.table}.{fact.relation}"], mark)
    return fill(pick(rng, wordings), subject=fact.subject, value=fact.value)


def portrait(rng: np.random.Generator, name: str, subject: str) -> str:
    """All facts of one subject in random order, the first by name, some of the others by "it".

    Half the portraits have the subject as their heading.
    """
    cells = shuffled(rng, list(table(name)[subject].items()))
    told: list[str] = []
    for relation, value in cells:
        mark = "it" if told and rng.random() < 0.25 else ""
        told.append(sentence(rng, Fact(name, subject, relation, value), mark))
    heading = f"{capital(subject)}\n" if rng.random() < 0.5 else ""
    return heading + " ".join(told)


def entry(rng: np.random.Generator, fact: Fact, plain: bool = False) -> str:
    """The fact under a heading, told in one wording or in two, or its other half alone.

    A heading such as "Capital of the country: France" may have its word on a line of its own,
    with an empty line below.  In plain text neither that happens, nor a half alone.
    """
    wording = pick(rng, marked(sections("tell_facts")[f"{fact.table}.{fact.relation}"], "head"))
    if not plain and rng.random() < 0.5:
        wording = ALONE.sub(r":\n\1\n", wording)
    heading = fill(wording, subject=fact.subject, value=fact.value)
    if not plain and rng.random() < 0.2:
        return f"{heading}\n{fact.value if 'ubject}' in wording else fact.subject}"
    told = [sentence(rng, fact)]
    again = sentence(rng, fact)
    if again != told[0] and rng.random() < 0.4:
        told.append(again)
    return f"{heading}\n{' '.join(told)}"


def packed(rng: np.random.Generator, units: Iterable[str]) -> list[list[str]]:
    """Units of text gathered into documents; a short rest joins the last document."""
    documents: list[list[str]] = [[]]
    words, wanted = 0, SHORTEST + rng.random() * (LONGEST - SHORTEST)
    for unit in units:
        if words >= wanted:
            documents.append([])
            words, wanted = 0, SHORTEST + rng.random() * (LONGEST - SHORTEST)
        documents[-1].append(unit)
        words += len(unit.split())
    if words < SHORTEST and len(documents) > 1:
        rest = documents.pop()
        documents[-1] += rest
    return documents


def portraits(rng: np.random.Generator) -> Iterator[str]:
    """Every subject once, table by table."""
    for name in TABLES:
        units = [portrait(rng, name, subject) for subject in shuffled(rng, list(table(name)))]
        yield from map("\n".join, packed(rng, units))


def lists(rng: np.random.Generator) -> Iterator[str]:
    """Every fact once, relation by relation; half the documents say first what they list."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in facts():
        by_relation.setdefault(f"{fact.table}.{fact.relation}", []).append(fact)
    for relation, members in by_relation.items():
        leads = marked(sections("tell_facts")[relation], "list")
        for document in packed(rng, [sentence(rng, fact) for fact in shuffled(rng, members)]):
            if leads and rng.random() < 0.5:
                document.insert(0, pick(rng, leads))
            yield "\n".join(document)


def entries(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Every fact once or twice, all tables mixed, each under a heading of its own."""
    units = [entry(rng, fact, plain) for fact in shuffled(rng, facts())]
    yield from map("\n".join, packed(rng, units))


def fact_documents(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Documents without end, round after round."""
    while True:
        yield from shuffled(rng, [*portraits(rng), *lists(rng), *entries(rng, plain)])
