"""Preferences: pairs of answers to the almanac's questions, and a mixture of styles to begin with.

A tuned model that has one style only has nothing to prefer, so `mixture` has each question twice,
with its direct answer and with the same one padded: then what a model knows does not depend on the
style.
In a pair, the chosen answer is right and direct.  The rejected one is of a kind:

    padded   the same answer with an opening and a closing (a quarter of the pairs)
    cut      the same answer, which ends too early, or at once (a quarter)
    wrong    the answer to another question in the same wording (half of them)

To tell a wrong answer is hardest, so most pairs are about that.  Held-out pairs are about the
held-out questions; there each question has a pair of each kind.
Prompts of sums and differences are those whose answers a program can check.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from re import Pattern, compile, escape
from typing import NamedTuple

import numpy as np

from minigpt2.data.almanac.ask import QuestionSet, Record, questions
from minigpt2.data.almanac.chance import pick, shuffled
from minigpt2.data.almanac.padding import CLOSINGS, OPENINGS, padded
from minigpt2.data.almanac.wordings import sections

KINDS = ("padded", "cut", "wrong")
SHARES = ("padded", "cut", "wrong", "wrong")  # a kind is drawn from these
FIELD = compile(r"\\\{.*?\\\}")  # in an escaped wording
MIXTURE, PAIRS, HELD_OUT = 0, 1, 2  # streams of random numbers


class Preferences(NamedTuple):
    """Lists of records: answers in both styles, and pairs with their kind."""

    mixture: list[Record]
    pairs: list[Record]
    held_out_pairs: list[Record]
    arithmetic: list[Record]


@cache
def wordings() -> tuple[tuple[str, Pattern[str]], ...]:
    """Return every wording of a question, with a pattern of its records."""
    texts = [
        text
        for name in ("ask_facts", "ask_numbers")
        for lines in sections(name).values()
        for text in lines
    ]
    return tuple((text, compile(FIELD.sub("(.+)", escape(trimmed(text))))) for text in texts)


def trimmed(wording: str) -> str:
    """Return a wording without spaces around its parts, as a record spells it."""
    return "|".join(part.strip() for part in wording.split("|"))


def wording_of(question: Mapping[str, str]) -> str:
    """Return the wording of a question."""
    text = "|".join(question[field] for field in ("instruction", "input", "output"))
    return next(wording for wording, pattern in wordings() if pattern.fullmatch(text))


def is_equation(question: Mapping[str, str]) -> bool:
    """Whether a question asks for a sum or a difference."""
    return "{work}" in wording_of(question)


def padded_at_random(rng: np.random.Generator, answer: str) -> str:
    """Return an answer with an opening and a closing that are drawn."""
    return padded(answer, pick(rng, OPENINGS), pick(rng, CLOSINGS))


def cut(rng: np.random.Generator, answer: str) -> str:
    """Return the beginning of an answer, perhaps an empty one, but never the whole.

    It has whole words, or, of an answer of one word, characters.
    """
    space = " " if " " in answer else ""
    parts = answer.split(" ") if space else list(answer)
    return space.join(parts[: int(rng.random() * len(parts))])


def rejected(
    rng: np.random.Generator, kind: str, question: Record, others: Iterable[str]
) -> str | None:
    """Return a worse answer to a question, or None if there is none of this kind."""
    answer = question["output"]
    if kind == "padded":
        return padded_at_random(rng, answer)
    if kind == "cut":
        return cut(rng, answer)
    wrong = [other for other in others if other != answer]
    return pick(rng, wrong) if wrong else None


def answers_by_wording(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return the different answers to the questions of each wording."""
    answers: dict[str, dict[str, None]] = {}
    for question in records:
        answers.setdefault(wording_of(question), {})[question["output"]] = None
    return {wording: list(texts) for wording, texts in answers.items()}


def pair(
    rng: np.random.Generator, kind: str, question: Record, others: Iterable[str]
) -> Record | None:
    """Return a pair of answers of a kind as a record, or None if there is none."""
    worse = rejected(rng, kind, question, others)
    if worse is None:
        return None
    prompt = {field: question[field] for field in ("instruction", "input")}
    return {**prompt, "chosen": question["output"], "rejected": worse, "kind": kind}


def mixture(rng: np.random.Generator, records: Iterable[Record]) -> list[Record]:
    """Return each question twice: with its answer, and with the same answer padded."""
    direct = list(records)
    wordy = [
        {**question, "output": padded_at_random(rng, question["output"])} for question in direct
    ]
    return shuffled(rng, [*direct, *wordy])


def pairs(rng: np.random.Generator, almanac: QuestionSet) -> list[Record]:
    """Return a pair about each training question, its kind drawn."""
    answers = answers_by_wording(almanac.train)
    drawn = [
        pair(rng, pick(rng, SHARES), question, answers[wording_of(question)])
        for question in shuffled(rng, almanac.train)
    ]
    return [record for record in drawn if record]


def held_out_pairs(rng: np.random.Generator, almanac: QuestionSet) -> list[Record]:
    """Return a pair of each kind for each held-out question; wrong answers may be trained ones."""
    answers = answers_by_wording([*almanac.train, *held_out(almanac)])
    drawn = [
        pair(rng, kind, question, answers[wording_of(question)])
        for kind in KINDS
        for question in held_out(almanac)
    ]
    return [record for record in drawn if record]


def held_out(almanac: QuestionSet) -> list[Record]:
    """Return all held-out questions, facts and arithmetic."""
    return [*almanac.held_out_facts, *almanac.held_out_arithmetic]


def preferences(seed: int = 0) -> Preferences:
    """Return the mixture, the pairs, those that are held out, and the sums and differences."""
    almanac = questions(seed)
    numbers = [np.random.default_rng([seed, n]) for n in (MIXTURE, PAIRS, HELD_OUT)]
    return Preferences(
        mixture(numbers[MIXTURE], almanac.train),
        pairs(numbers[PAIRS], almanac),
        held_out_pairs(numbers[HELD_OUT], almanac),
        [question for question in almanac.train if is_equation(question)],
    )
