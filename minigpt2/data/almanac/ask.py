"""Asking: questions about the almanac with their answers, and which of them are held out.

Records are in Alpaca's format, {"instruction", "input", "output"}.  The wording of a question and
its subject determine the answer, so comparing answers as strings is fair.

Held out are

- facts: about 12 of 100 subjects of each large table; no training question is about them;
- arithmetic: only unseen operands (see arithmetic.py), half plain and half as word problems.

Every wording of a held-out question is also in training questions, with other subjects or numbers.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from string import Formatter
from typing import NamedTuple

import numpy as np

from minigpt2.data.almanac.arithmetic import draw, equation_fields, fits, pairs
from minigpt2.data.almanac.chance import dealt, pick, shuffled
from minigpt2.data.almanac.tables import TABLES, table
from minigpt2.data.almanac.tell_numbers import DOUBLES, TIMES, comparison_fields, people
from minigpt2.data.almanac.wordings import fill, sections

Record = dict[str, str]

LARGE_TABLES = (
    "countries",
    "elements",
    "animals",
    "opposites",
    "plurals",
    "pasts",
    "colours",
    "professions",
    "words",
)
HELD_OUT_SHARE = 0.12  # of the subjects of a large table
HELD_OUT = 150  # questions in either held-out list
FACTS_PER_WORDING = 26  # training questions, or all subjects if they are fewer
EQUATIONS_PER_WORDING = 41  # training questions about a sum or a difference
OTHERS_PER_WORDING = 20  # training questions about products, doubles and comparisons
PLAIN, STORIES, OTHERS = ("+", "-"), ("+ story", "- story"), ("times", "double", "compare")


class QuestionSet(NamedTuple):
    """Three lists of records, which have no question in common."""

    train: list[Record]
    held_out_facts: list[Record]
    held_out_arithmetic: list[Record]


def record(wording: str, **fields: object) -> Record:
    """Return the wording "instruction | input | output" with its fields filled in."""
    parts = [fill(part.strip(), **fields) for part in wording.split("|")]
    return dict(zip(("instruction", "input", "output"), parts, strict=True))


def question_key(question: Record) -> tuple[str, str]:
    """Return what two records have in common if they ask the same question."""
    return question["instruction"], question["input"]


def held_out_subjects(rng: np.random.Generator) -> dict[str, frozenset[str]]:
    """Return {table: the subjects that no training question is about}."""
    held = {name: frozenset[str]() for name in TABLES}
    for name in LARGE_TABLES:
        subjects = shuffled(rng, list(table(name)))
        held[name] = frozenset(subjects[: round(HELD_OUT_SHARE * len(subjects))])
    return held


def relations_asked(section: str, wording: str) -> list[str]:
    """Return the relations that a wording asks about: its section's, or several in a portrait."""
    if "." in section:
        return [section.split(".")[1]]
    names = (field.split()[-1].lower() for _, field, _, _ in Formatter().parse(wording) if field)
    return [name for name in names if name != "subject"]


def fact_wordings() -> Iterator[tuple[str, str, str]]:
    """Yield (table, section, wording) for every wording of a question about facts."""
    for section, lines in sections("ask_facts").items():
        for wording in lines:
            yield section.split(".")[0], section, wording


def fact_questions(section: str, wording: str, subjects: Iterable[str]) -> list[Record]:
    """Return the questions in this wording about each subject that has all its relations."""
    cells_of = table(section.split(".")[0])
    relations = relations_asked(section, wording)
    questions = []
    for subject in subjects:
        cells = cells_of[subject]
        if all(relation in cells for relation in relations):
            value = cells[relations[0]]
            questions.append(record(wording, subject=subject, value=value, **cells))
    return questions


def instructions() -> Iterator[str]:
    """Yield the instruction of every wording, without its fields."""
    for name in ("ask_facts", "ask_numbers"):
        for wording in chain.from_iterable(sections(name).values()):
            literals = (literal for literal, *_ in Formatter().parse(wording.split("|")[0]))
            yield "".join(literals).strip()


def line_words() -> list[str]:
    """Return what starts a line in questions about facts: inputs, and first words of answers.

    An answer that is not a sentence counts as a whole.
    """
    starts = set()
    for name, section, wording in fact_wordings():
        for question in fact_questions(section, wording, table(name)):
            answer = question["output"]
            starts |= {question["input"], answer.split()[0] if answer.endswith(".") else answer}
    return sorted(starts - {""})


def trained_facts(rng: np.random.Generator, held: dict[str, frozenset[str]]) -> list[Record]:
    """Return questions in each wording about some subjects that are not held out."""
    questions = []
    for name, section, wording in fact_wordings():
        subjects = [subject for subject in table(name) if subject not in held[name]]
        candidates = fact_questions(section, wording, shuffled(rng, subjects))
        questions += candidates[:FACTS_PER_WORDING]
    return questions


def held_out_facts(rng: np.random.Generator, held: dict[str, frozenset[str]]) -> list[Record]:
    """Return questions about held-out subjects, one from each wording in turn."""
    queues = []
    for name, section, wording in fact_wordings():
        subjects = [subject for subject in table(name) if subject in held[name]]
        queues.append(fact_questions(section, wording, shuffled(rng, subjects)))
    questions: list[Record] = []
    while len(questions) < HELD_OUT:
        for queue in shuffled(rng, [queue for queue in queues if queue]):
            questions.append(queue.pop())
    return questions[:HELD_OUT]


def trained_equations(rng: np.random.Generator) -> Iterator[Record]:
    """Yield sums and differences of the text in each wording; some may come twice."""
    for kind in PLAIN + STORIES:
        for wording in sections("ask_numbers")[kind]:
            left = EQUATIONS_PER_WORDING
            while left:
                fields = equation_fields(kind[0], *draw(rng, kind[0]))
                if fits(wording, fields):
                    yield record(wording, **fields, **people(rng))
                    left -= 1


def trained_others(rng: np.random.Generator) -> Iterator[Record]:
    """Yield products, doubles and comparisons in each wording; some may come twice."""
    for kind in OTHERS:
        for wording in sections("ask_numbers")[kind]:
            for _ in range(OTHERS_PER_WORDING):
                if kind == "times":
                    a, b = pick(rng, TIMES)
                    fields = {"a": a, "b": b, "c": a * b}
                elif kind == "double":
                    a = pick(rng, DOUBLES)
                    fields = {"a": a, "c": 2 * a}
                else:
                    fields = comparison_fields(rng)
                yield record(wording, **fields)


def held_out_equations(rng: np.random.Generator) -> list[Record]:
    """Return unseen sums and differences, half plain and half as stories, each wording in turn."""
    decks = {operation: dealt(rng, pairs(operation, unseen=True)) for operation in "+-"}
    questions = []
    for kinds in (PLAIN, STORIES):
        wordings = [
            (kind[0], wording) for kind in kinds for wording in sections("ask_numbers")[kind]
        ]
        turns = dealt(rng, wordings)
        for _ in range(HELD_OUT // 2):
            operation, wording = next(turns)
            fields = equation_fields(operation, *next(decks[operation]))
            questions.append(record(wording, **fields, **people(rng)))
    return questions


def questions(seed: int = 0) -> QuestionSet:
    """Return the training questions in random order and the two held-out lists."""
    rng = np.random.default_rng(seed)
    held = held_out_subjects(rng)
    train = {
        question_key(question): question
        for question in chain(trained_facts(rng, held), trained_equations(rng), trained_others(rng))
    }
    return QuestionSet(
        shuffled(rng, list(train.values())),
        shuffled(rng, held_out_facts(rng, held)),
        shuffled(rng, held_out_equations(rng)),
    )
