"""The check of a run against the goals of `make train` can fail."""

import copy

import pytest

from tests.train_goals import TUNED, missed_goals

GOOD = {
    "before": {name: {"exact_match": 0.0} for name in TUNED},
    "after": {name: {"exact_match": least} for name, least in TUNED.items()},
    "done": {"seconds": 299},
}


def test_a_good_run_misses_no_goal():
    assert missed_goals(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("before", "held-out facts", "exact_match"), 0.1),
        (("before", "held-out arithmetic", "exact_match"), 0.1),
        (("after", "held-out facts", "exact_match"), 0.79),
        (("after", "held-out arithmetic", "exact_match"), 0.89),
        (("done", "seconds"), 301),
    ],
)
def test_each_missed_goal_is_reported(path, value):
    bad = copy.deepcopy(GOOD)
    *folders, last = path
    place = bad
    for folder in folders:
        place = place[folder]
    place[last] = value
    assert len(missed_goals(bad)) == 1
