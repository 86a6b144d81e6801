"""The almanac: its counts, and the same text for the same seed."""

import re

import numpy as np

from minigpt2.data import almanac
from minigpt2.data.almanac import tables
from tests.data.almanac.common import first_documents


def test_the_docstring_states_the_true_counts(question_set, held):
    rows = dict(re.findall(r"^    (\w+) +([\d ]+\d)(?: questions)?$", almanac.__doc__, re.M))
    counts = {name: [int(cell) for cell in row.split()] for name, row in rows.items()}
    total = np.zeros(3, int)
    for name in tables.TABLES:
        cells = tables.table(name)
        expected = [len(cells), sum(map(len, cells.values())), len(held[name])]
        assert counts.pop(name) == expected, name
        total += expected
    assert counts.pop("all") == total.tolist()
    assert counts == {name: [len(getattr(question_set, name))] for name in question_set._fields}


def test_the_same_seed_gives_the_same_text():
    assert first_documents(50) == first_documents(50) != first_documents(50, seed=1)


def test_the_package_has_what_it_offers():
    assert {name: getattr(almanac, name).__name__ for name in almanac.__all__} == {
        name: name
        for name in ("Fact", "QuestionSet", "documents", "facts", "is_unseen", "questions")
    }
