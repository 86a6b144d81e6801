"""Telling: the three streams have their shares, and documents are short."""

import itertools
from collections import Counter

import numpy as np
import pytest

from minigpt2.data import almanac
from minigpt2.data.almanac import tell, tell_facts
from tests.data.almanac.common import kind_of


def test_text_asks_nothing(text):
    assert not any("?" in document or "Q:" in document for document in text)


def test_documents_are_short_and_ascii(text):
    lengths = [len(document.split()) for document in text]
    assert min(lengths) >= 25 and max(lengths) <= 140 and 40 < np.mean(lengths) < 90
    assert all(document.isascii() for document in text)


def test_seven_parts_are_facts_seven_numbers_and_two_words(text):
    sizes = Counter()
    for document in text:
        sizes[kind_of(document)] += tell.size(document)
    shares = {kind: size / sizes.total() for kind, size in sizes.items()}
    assert shares == pytest.approx({"facts": 7 / 16, "numbers": 7 / 16, "words": 2 / 16}, abs=0.02)


def test_plain_text_leaves_words_in_their_form():
    texts = itertools.islice(almanac.documents(np.random.default_rng(0), plain=True), 2000)
    for text in texts:
        assert "\n\n" not in text
        if kind_of(text) == "words":
            assert text.count("\n") == 3 and not text.startswith(("The list:", "The titles:"))
    rng = np.random.default_rng(0)
    entries = [tell_facts.entry(rng, fact, plain=True) for fact in almanac.facts()]
    assert all(entry.count("\n") == 1 and entry.endswith(".") for entry in entries)
