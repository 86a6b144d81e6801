"""Wordings: every relation has many, and a template takes its fields in four forms."""

import pytest

from minigpt2.data import almanac
from minigpt2.data.almanac import wordings


def test_every_relation_has_eight_wordings_at_least():
    relations = {f"{fact.table}.{fact.relation}" for fact in almanac.facts()}
    assert relations == set(wordings.sections("tell_facts"))
    for relation in relations:
        lines = wordings.marked(wordings.sections("tell_facts")[relation], "")
        assert len(set(lines)) == len(lines) >= 8, relation
        assert all("subject}" in line.lower() and "value}" in line.lower() for line in lines)


def test_a_section_that_is_there_twice_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(wordings, "files", lambda package: tmp_path)
    (tmp_path / "wordings").mkdir()
    (tmp_path / "wordings" / "made-up.txt").write_text("[pets]\nThe owl\n[pets]\n")
    with pytest.raises(ValueError, match=r"made-up.txt line 3 repeats the section \[pets\]"):
        wordings.sections("made-up")


def test_a_field_has_a_capital_letter_and_an_article_on_request():
    template = "{pet}, {Pet}, {a pet}, {A pet}"
    assert wordings.fill(template, pet="owl") == "owl, Owl, an owl, An owl"
    assert wordings.fill(template, pet="cat") == "cat, Cat, a cat, A cat"


def test_marked_lines_are_apart_from_the_others():
    lines = ("head: The owl", "It is grey.", "it: It flies.")
    assert wordings.marked(lines, "head") == ["The owl"]
    assert wordings.marked(lines, "it") == ["It flies."]
    assert wordings.marked(lines, "list") == []
    assert wordings.marked(lines, "") == ["It is grey."]
