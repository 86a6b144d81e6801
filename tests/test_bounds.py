"""The check of a run's promises can fail."""

import copy

import pytest

from tests.bounds import TUNED, faults

GOOD = {
    "before": {name: {"exact_match": 0.0} for name in TUNED},
    "after": {name: {"exact_match": least} for name, least in TUNED.items()},
    "done": {"seconds": 299},
}


def test_a_good_run_has_no_fault():
    assert faults(GOOD) == []


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
def test_each_broken_promise_is_a_fault(path, value):
    bad = copy.deepcopy(GOOD)
    *folders, last = path
    place = bad
    for folder in folders:
        place = place[folder]
    place[last] = value
    assert len(faults(bad)) == 1
