"""Chance: each item equally often, and the same items for the same seed."""

from collections import Counter
from itertools import islice

import numpy as np

from minigpt2.data.almanac import chance

ITEMS = ("a", "b", "c", "d")


def test_each_item_is_picked_equally_often():
    rng = np.random.default_rng(0)
    counts = Counter(chance.pick(rng, ITEMS) for _ in range(4000))
    assert set(counts) == set(ITEMS) and all(abs(n - 1000) < 100 for n in counts.values())


def test_shuffled_items_are_the_same_items_in_every_order():
    rng = np.random.default_rng(0)
    orders = Counter(tuple(chance.shuffled(rng, ITEMS)) for _ in range(2400))
    assert all(sorted(order) == list(ITEMS) for order in orders)
    assert len(orders) == 24 and all(abs(n - 100) < 45 for n in orders.values())


def test_each_round_of_dealt_items_has_each_once():
    deck = chance.dealt(np.random.default_rng(0), ITEMS)
    rounds = [list(islice(deck, 4)) for _ in range(20)]
    assert all(sorted(items) == list(ITEMS) for items in rounds)
    assert len(set(map(tuple, rounds))) > 5


def test_the_same_seed_gives_the_same_items_on_every_machine():
    rng = np.random.default_rng(0)
    assert [chance.pick(rng, ITEMS) for _ in range(4)] == ["c", "b", "a", "a"]
    assert chance.shuffled(rng, ITEMS) == ["c", "d", "a", "b"]
