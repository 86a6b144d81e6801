"""Telling words: lists come twice, and hold no pair that is kept apart."""

import itertools
import re
from collections import Counter

import numpy as np

from minigpt2.data.almanac import arithmetic, tell_words, wordings
from tests.data.almanac.common import first_line, kind_of


def test_a_list_of_words_comes_twice_and_holds_no_pair_that_is_kept_apart():
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(3000):
        chosen = tell_words.word_list(rng)
        lengths.add(len(chosen))
        assert all(word.isdigit() or word in tell_words.words() for word in chosen)
        numbers = [int(word) for word in chosen if word.isdigit()]
        assert not any(itertools.starmap(arithmetic.kept_apart, itertools.combinations(numbers, 2)))
    assert lengths == {2, 3, 4, 5, 6, 7}
    assert all(kind_of(tell_words.twice(rng)) == "words" for _ in range(200))


def test_words_come_twice_in_the_same_form_and_in_two(monkeypatch):
    rng = np.random.default_rng(0)
    forms, shown, draw = Counter(), [], tell_words.word_list
    monkeypatch.setattr(tell_words, "word_list", lambda rng: shown.append(draw(rng)) or shown[-1])
    for _ in range(300):
        text = tell_words.twice(rng)
        sections = wordings.sections("tell_words").items()
        first = text.split("\n")[0]
        form = next(
            f for f, ways in sections if any(re.fullmatch(first_line(w), first) for w in ways)
        )
        forms[form] += 1
        words = shown[-1]
        column, titles = tell_words.column(words), tell_words.column(map(wordings.capital, words))
        parts = {"twice": {"words"}, "titles": {"words", "titles"}}
        for part in parts.get(form, {"lines"}):
            assert {"words": words[0], "lines": column, "titles": titles}[part] in text
    assert min(forms.values()) > 20 and set(forms) == {"twice", "columns", "lines", "titles"}
