"""Telling numbers: equations such as "27 + 5 = 32" in many kinds of sentences.

If the second number has tens and ones, the text works in two steps, 27 + 15 = 27 + 10 + 5 =
37 + 5 = 42.  A small model learns each step from few examples, but hardly ever both in one.

Pairs that are held out occur in no kind of sentence (see arithmetic.py).
"""

from collections.abc import Iterator

import numpy as np

from minigpt2.data.almanac.arithmetic import draw, draw_graded, equation_fields, fits, kept_apart
from minigpt2.data.almanac.chance import dealt, pick
from minigpt2.data.almanac.wordings import fill, sections

NAMES = sections("cast")["names"]
THINGS = sections("cast")["things"]
TIMES = tuple((a, b) for a in range(1, 13) for b in range(1, 13))
DOUBLES = tuple(a for a in range(51) if not kept_apart(a, 2 * a))
NEIGHBOURS = tuple(
    b
    for b in range(1, 99)
    if not (kept_apart(b - 1, b) or kept_apart(b, b + 1) or kept_apart(b - 1, b + 1))
)


def people(rng: np.random.Generator) -> dict[str, str]:
    """Return two different names and something to count."""
    name, other = pick(rng, NAMES), pick(rng, NAMES)
    while other == name:
        other = pick(rng, NAMES)
    return {"name": name, "other": other, "things": pick(rng, THINGS)}


def equation(rng: np.random.Generator, kind: str) -> str:
    """Return a sum or a difference in a wording of a kind such as "+", "- story", "+ steps"."""
    template = pick(rng, sections("tell_numbers")[kind])
    fields = equation_fields(kind[0], *draw_graded(rng, kind[0]))
    while not fits(template, fields):
        fields = equation_fields(kind[0], *draw_graded(rng, kind[0]))
    return fill(template, **fields, **people(rng))


def family(rng: np.random.Generator) -> str:
    """Return a sum together with the differences that undo it."""
    a, b = draw(rng, "+")
    while kept_apart(a + b, a) or kept_apart(a + b, b):
        a, b = draw(rng, "+")
    return fill(pick(rng, sections("tell_numbers")["family"]), a=a, b=b, c=a + b)


def comparison_fields(rng: np.random.Generator) -> dict[str, int]:
    """Return two numbers, the larger as a, the smaller as b, and both as p and q in any order."""
    p, q = draw(rng, "+")
    while p == q:
        p, q = draw(rng, "+")
    return {"a": max(p, q), "b": min(p, q), "p": p, "q": q}


def drill(rng: np.random.Generator) -> str:
    """Return a document of work alone: sums, differences, or both."""
    mix = pick(rng, ("+", "-", "+-"))
    lines = []
    for _ in range(6 + int(rng.random() * 6)):
        operation = pick(rng, mix)
        fields = equation_fields(operation, *draw_graded(rng, operation))
        lines.append(f"{fields['work']}.")
    return "\n".join(lines)


def equations(rng: np.random.Generator, kind: str, count: int) -> str:
    """Return several sums and differences in the same kind of wording."""
    return "\n".join(equation(rng, pick(rng, "+-") + kind) for _ in range(count))


def number_lore(rng: np.random.Generator) -> Iterator[str]:
    """Yield documents of products, doubles, comparisons and neighbours, without end.

    Within its kind, each of them comes equally often.
    """
    times, doubles = dealt(rng, TIMES), dealt(rng, DOUBLES)
    neighbours = dealt(rng, NEIGHBOURS)
    wordings = sections("tell_numbers")
    while True:
        sentences = []
        for _ in range(8):
            kind = pick(rng, ("times", "times", "double", "compare", "between"))
            fields: dict[str, int] = {}
            if kind == "times":
                a, b = next(times)
                fields = {"a": a, "b": b, "c": a * b}
            elif kind == "double":
                a = next(doubles)
                fields = {"a": a, "c": 2 * a}
            elif kind == "compare":
                fields = comparison_fields(rng)
            else:
                b = next(neighbours)
                fields = {"a": b - 1, "b": b, "c": b + 1}
            sentences.append(fill(pick(rng, wordings[kind]), **fields, **people(rng)))
        yield "\n".join(sentences)


def number_documents(rng: np.random.Generator) -> Iterator[str]:
    """Yield documents without end; about a third of them are drills."""
    lore = number_lore(rng)
    while True:
        chance = rng.random()
        if chance < 0.35:
            yield drill(rng)
        elif chance < 0.5:
            yield equations(rng, "", 5)
        elif chance < 0.75:
            yield equations(rng, " story", 3)
        elif chance < 0.85:
            yield equations(rng, " steps", 3)
        elif chance < 0.9:
            yield "\n".join(family(rng) for _ in range(5))
        else:
            yield next(lore)
