"""Telling facts: every fact comes equally often, and an entry repeats its heading."""

from collections import Counter

import numpy as np
import pytest

from minigpt2.data import almanac
from minigpt2.data.almanac import tell_facts, wordings
from tests.data.almanac.common import first_documents


def test_every_fact_is_stated_equally_often(monkeypatch):
    exposure = Counter()
    original = tell_facts.sentence

    def counting(rng, fact, mark=""):
        exposure[fact] += 1
        return original(rng, fact, mark)

    monkeypatch.setattr(tell_facts, "sentence", counting)
    rng = np.random.default_rng(0)
    for kind in (tell_facts.portraits, tell_facts.lists):
        assert list(kind(rng))
    assert exposure == dict.fromkeys(almanac.facts(), 2)


def test_an_entry_repeats_the_words_of_its_heading():
    rng = np.random.default_rng(0)
    seen = Counter()
    for fact in almanac.facts():
        heading, *lines = tell_facts.entry(rng, fact).split("\n")
        if apart := lines[1:2] == [""]:  # the word of the heading is on a line of its own
            heading, lines = f"{heading} {lines[0]}", lines[2:]
        (body,) = lines
        named = [text for text in fact[1::2] if text.lower() in heading.lower()]
        assert named and not heading.endswith("."), heading
        if body.endswith("."):
            assert all(text.lower() in body.lower() for text in fact[1::2]), heading
        else:
            assert {body, *named} >= set(fact[1::2]), heading
        seen += Counter(twice=body.count(". "), apart=apart, alone=not body.endswith("."))
    shares = {what: count / len(almanac.facts()) for what, count in seen.items()}
    assert shares == pytest.approx({"twice": 0.3, "apart": 0.18, "alone": 0.2}, abs=0.06)


def test_every_fact_reaches_the_text():
    round_text = "\n".join(first_documents(2000, seed=1)).lower()
    for fact in almanac.facts():
        lines = wordings.marked(
            wordings.sections("tell_facts")[f"{fact.table}.{fact.relation}"], ""
        )
        ways = (wordings.fill(line, subject=fact.subject, value=fact.value) for line in lines)
        assert any(way.lower() in round_text for way in ways), fact


def test_a_short_rest_joins_the_document_before_it_where_there_is_one():
    rng = np.random.default_rng(0)
    assert tell_facts.pack(rng, ["one short unit"]) == [["one short unit"]]
    long = " ".join(["word"] * tell_facts.LONGEST)
    assert tell_facts.pack(rng, [long, "a rest"]) == [[long, "a rest"]]
