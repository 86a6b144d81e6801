"""Tables: they are well formed, and what is asked backwards has one answer."""

from collections import Counter

import pytest

from minigpt2.data import almanac
from minigpt2.data.almanac import tables


def test_tables_are_well_formed():
    assert 1000 <= len(almanac.facts()) <= 1800
    assert len(set(almanac.facts())) == len(almanac.facts())
    for name in tables.TABLES:
        for subject, cells in tables.table(name).items():
            assert all(
                text == text.strip() and text.isascii() for text in (subject, *cells.values())
            )


@pytest.mark.parametrize(
    ("name", "relation"),
    [
        ("countries", "capital"),
        ("elements", "symbol"),
        ("elements", "number"),
        ("opposites", "opposite"),
        ("professions", "work"),
        ("months", "number"),
    ],
)
def test_what_is_asked_backwards_has_one_answer(name, relation):
    values = [cells[relation] for cells in tables.table(name).values() if relation in cells]
    assert len(set(values)) == len(values)


def test_a_row_that_does_not_fit_or_repeats_a_subject_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "files", lambda package: tmp_path)
    (tmp_path / "tables").mkdir()
    for rows, words in (
        ("gold,Au,79\nzinc,Zn", "made-up.csv line 3 has 2 cells, expected 3"),
        ("gold,Au,79\ngold,Au,79", "made-up.csv line 3 repeats the subject 'gold'"),
    ):
        (tmp_path / "tables" / "made-up.csv").write_text(f"name,symbol,number\n{rows}\n")
        with pytest.raises(ValueError, match=words):
            tables.table("made-up")


def test_an_opposite_stands_in_one_pair_only():
    words = Counter(
        word for fact in almanac.facts() if fact.table == "opposites" for word in fact[1::2]
    )
    assert max(words.values()) == 1
