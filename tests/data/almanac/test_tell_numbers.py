"""Telling numbers: every equation is right, and no unseen pair appears."""

from tests.data.almanac.common import CHAIN, is_given_away, sentences, value_of


def test_every_equation_is_right(text, question_set):
    answers = [question["output"] for part in question_set for question in part]
    chains = CHAIN.findall("\n".join(text + answers))
    assert len(chains) > 5000
    for chain in chains:
        assert len({value_of(side) for side in chain.split(" = ")}) == 1, chain


def test_unseen_pairs_are_never_in_the_text(text):
    assert not [line for document in text for line in sentences(document) if is_given_away(line)]
