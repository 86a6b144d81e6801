"""Telling numbers: equations such as "27 + 5 = 32" in changing surroundings.

Where the second number has tens and ones, the text works in two steps, 27 + 15 = 27 + 10 + 5 =
37 + 5 = 42: a small model learns each step from few examples, but hardly ever both in one.

Pairs that are held out never occur, in no kind of sentence (see arithmetic.py).
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
    """Two different names and something to count."""
    name, other = pick(rng, NAMES), pick(rng, NAMES)
    while other == name:
        other = pick(rng, NAMES)
    return {"name": name, "other": other, "things": pick(rng, THINGS)}


def equation(rng: np.random.Generator, kind: str) -> str:
    """A sum or a difference told in one wording of a kind such as "+", "- story", "+ steps"."""
    template = pick(rng, sections("tell_numbers")[kind])
    fields = equation_fields(kind[0], *draw_graded(rng, kind[0]))
    while not fits(template, fields):
        fields = equation_fields(kind[0], *draw_graded(rng, kind[0]))
    return fill(template, **fields, **people(rng))


def family(rng: np.random.Generator) -> str:
    """A sum together with the differences that undo it."""
    a, b = draw(rng, "+")
    while kept_apart(a + b, a) or kept_apart(a + b, b):
        a, b = draw(rng, "+")
    return fill(pick(rng, sections("tell_numbers")["family"]), a=a, b=b, c=a + b)


def comparison_fields(rng: np.random.Generator) -> dict[str, int]:
    """Two numbers, larger a and smaller b, and the same as p and q in random order."""
    p, q = draw(rng, "+")
    while p == q:
        p, q = draw(rng, "+")
    return {"a": max(p, q), "b": min(p, q), "p": p, "q": q}


def drill(rng: np.random.Generator) -> str:
    """Nothing but work: sums, differences, or both."""
    mix = pick(rng, ("+", "-", "+-"))
    equations = []
    for _ in range(6 + int(rng.random() * 6)):
        operation = pick(rng, mix)
        fields = equation_fields(operation, *draw_graded(rng, operation))
        equations.append(f"{fields['work']}.")
    return "\n".join(equations)


def lines(rng: np.random.Generator, kind: str, count: int) -> str:
    """Several sums and differences told in the same kind of wording."""
    return "\n".join(equation(rng, pick(rng, "+-") + kind) for _ in range(count))


def number_lore(rng: np.random.Generator) -> Iterator[str]:
    """Products, doubles, comparisons and neighbours, each told equally often within its kind."""
    times, doubles = dealt(rng, TIMES), dealt(rng, DOUBLES)
    neighbours = dealt(rng, NEIGHBOURS)
    wordings = sections("tell_numbers")
    while True:
        told = []
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
            told.append(fill(pick(rng, wordings[kind]), **fields, **people(rng)))
        yield "\n".join(told)


def number_documents(rng: np.random.Generator) -> Iterator[str]:
    """Documents without end; about a third of them drills."""
    lore = number_lore(rng)
    while True:
        chance = rng.random()
        if chance < 0.35:
            yield drill(rng)
        elif chance < 0.5:
            yield lines(rng, "", 5)
        elif chance < 0.75:
            yield lines(rng, " story", 3)
        elif chance < 0.85:
            yield lines(rng, " steps", 3)
        elif chance < 0.9:
            yield "\n".join(family(rng) for _ in range(5))
        else:
            yield next(lore)
