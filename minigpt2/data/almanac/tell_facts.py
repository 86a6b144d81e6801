"""Telling facts: documents of portraits of subjects, lists of one relation, and entries.

One round goes through all facts three times, once in each kind of document, so the text states
every fact equally often.  A document has about 30 to 100 words.

Portraits and entries have headings, and the text below repeats a heading's words.  From this a
model learns to copy a word from earlier text, as it must when a question asks about that word.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from minigpt2.data.almanac.chance import pick, shuffled
from minigpt2.data.almanac.tables import TABLES, Fact, facts, table
from minigpt2.data.almanac.wordings import capital, fill, marked, sections

ALONE = re.compile(r": (\{.*\})$")  # the word at the end of a heading
SHORTEST, LONGEST = 30, 90  # words; each document draws its length between the two


def sentence(rng: np.random.Generator, fact: Fact, mark: str = "") -> str:
    """Return the fact in one of its wordings."""
    wordings = marked(sections("tell_facts")[f"{fact.table}.{fact.relation}"], mark)
    return fill(pick(rng, wordings), subject=fact.subject, value=fact.value)


def portrait(rng: np.random.Generator, name: str, subject: str) -> str:
    """Return all facts of one subject in random order.

    The first sentence names the subject; some of the others call it "it".  Half the portraits have
    the subject as their heading.
    """
    cells = shuffled(rng, list(table(name)[subject].items()))
    sentences: list[str] = []
    for relation, value in cells:
        mark = "it" if sentences and rng.random() < 0.25 else ""
        sentences.append(sentence(rng, Fact(name, subject, relation, value), mark))
    heading = f"{capital(subject)}\n" if rng.random() < 0.5 else ""
    return heading + " ".join(sentences)


def entry(rng: np.random.Generator, fact: Fact, plain: bool = False) -> str:
    """Return the fact under a heading: in one or two sentences, or only what the heading lacks.

    A heading such as "Capital of the country: France" may have its last word on a line of its own,
    with an empty line below it.  Plain text has only sentences, and headings of one line.
    """
    wording = pick(rng, marked(sections("tell_facts")[f"{fact.table}.{fact.relation}"], "head"))
    if not plain and rng.random() < 0.5:
        wording = ALONE.sub(r":\n\1\n", wording)
    heading = fill(wording, subject=fact.subject, value=fact.value)
    if not plain and rng.random() < 0.2:
        return f"{heading}\n{fact.value if 'ubject}' in wording else fact.subject}"
    sentences = [sentence(rng, fact)]
    second = sentence(rng, fact)
    if second != sentences[0] and rng.random() < 0.4:
        sentences.append(second)
    return f"{heading}\n{' '.join(sentences)}"


def pack(rng: np.random.Generator, units: Iterable[str]) -> list[list[str]]:
    """Gather units of text into documents; a short rest joins the last document."""
    documents: list[list[str]] = [[]]
    words, length = 0, SHORTEST + rng.random() * (LONGEST - SHORTEST)
    for unit in units:
        if words >= length:
            documents.append([])
            words, length = 0, SHORTEST + rng.random() * (LONGEST - SHORTEST)
        documents[-1].append(unit)
        words += len(unit.split())
    if words < SHORTEST and len(documents) > 1:
        rest = documents.pop()
        documents[-1] += rest
    return documents


def portraits(rng: np.random.Generator) -> Iterator[str]:
    """Yield documents with every subject once, table by table."""
    for name in TABLES:
        units = [portrait(rng, name, subject) for subject in shuffled(rng, list(table(name)))]
        yield from map("\n".join, pack(rng, units))


def lists(rng: np.random.Generator) -> Iterator[str]:
    """Yield documents with every fact once, relation by relation.

    Half the documents begin by stating what they list.
    """
    by_relation: dict[str, list[Fact]] = {}
    for fact in facts():
        by_relation.setdefault(f"{fact.table}.{fact.relation}", []).append(fact)
    for relation, members in by_relation.items():
        leads = marked(sections("tell_facts")[relation], "list")
        for document in pack(rng, [sentence(rng, fact) for fact in shuffled(rng, members)]):
            if leads and rng.random() < 0.5:
                document.insert(0, pick(rng, leads))
            yield "\n".join(document)


def entries(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Yield documents with every fact once or twice under its own heading, all tables mixed."""
    units = [entry(rng, fact, plain) for fact in shuffled(rng, facts())]
    yield from map("\n".join, pack(rng, units))


def fact_documents(rng: np.random.Generator, plain: bool = False) -> Iterator[str]:
    """Yield documents without end, round after round."""
    while True:
        yield from shuffled(rng, [*portraits(rng), *lists(rng), *entries(rng, plain)])
