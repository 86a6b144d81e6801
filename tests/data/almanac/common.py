"""What the tests of the almanac share: the first documents, and how to read them."""

import itertools
import re

import numpy as np

from minigpt2.data import almanac
from minigpt2.data.almanac import arithmetic, wordings

SIDE = r"\d+(?: [-+x] \d+)*"  # such as 27 + 10 + 5
CHAIN = re.compile(rf"{SIDE}(?: = {SIDE})+")
RESULT = {**arithmetic.RESULT, "x": lambda a, b: a * b}


def value_of(side):
    """The value of one side of an equation, computed from left to right."""
    total, *rest = side.split()
    total = int(total)
    for operation, number in zip(rest[::2], rest[1::2], strict=True):
        total = RESULT[operation](total, int(number))
    return total


def pairs_of(text):
    """(operation, a, b) of every side with two numbers."""
    sides = [side.split() for chain in CHAIN.findall(text) for side in chain.split(" = ")]
    return [(side[1], int(side[0]), int(side[2])) for side in sides if len(side) == 3]


def first_documents(count, seed=0):
    """The first documents of a seed."""
    return list(itertools.islice(almanac.documents(np.random.default_rng(seed)), count))


def is_given_away(sentence):
    """Whether a sentence states an unseen equation or sets an unseen pair side by side."""
    for operation, a, b in pairs_of(sentence):
        if operation != "x" and almanac.is_unseen(operation, a, b):
            return True
    numbers = [int(number) for number in re.findall(r"\d+", sentence)]
    return "=" not in sentence and len(numbers) == 2 and arithmetic.kept_apart(*numbers)


def sentences(document):
    """The sentences and lines of a text."""
    return re.split(r"(?<=[.?])\s|\n", document)


def first_line(wording):
    """A pattern of the first line of a list of words in this wording."""
    pattern = re.escape(re.split(r"{(?:lines|titles)}", wording)[0])
    return pattern.replace(r"\{words\}", "(?P<w>.+)", 1).replace(r"\{words\}", "(?P=w)")


def kind_of(document):
    """Which of the three streams a document comes from."""
    first = document.split("\n")[0]
    lists = itertools.chain.from_iterable(wordings.sections("tell_words").values())
    if any(re.fullmatch(first_line(wording), first) for wording in lists):
        return "words"
    return "numbers" if " = " in document else "facts"
