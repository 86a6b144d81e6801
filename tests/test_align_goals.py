"""The check of a demonstration against the goals of `make align` can fail."""

import copy

import pytest

from tests.align_goals import missed_goals


def counts(**marks):
    """The marks of 300 answers."""
    return {"asked": 300, "direct": 150, "right": 240, "exact": 120, "checked": 120, **marks}


def exam(**marks):
    """An exam whose answers have the same marks in every list and way of decoding."""
    return {
        mode: {part: counts(**marks) for part in ("all", "facts", "arithmetic")}
        for mode in ("greedy", "sampled")
    }


GOOD = {
    "reward_models": {"reward": {"accuracy": {"padded": 1.0, "cut": 0.95, "wrong": 0.7}}},
    "exams": {
        "mixture": exam(),
        "dpo": exam(direct=270, right=231),
        "ppo": exam(direct=270, right=225),
        "hacked": exam(right=150),
        "undertuned": exam(checked=120),
        "grpo": exam(checked=165),
    },
    "curves": {"hacked": {"reward": [[1, 0.1], [10, 0.9]]}},
    "seconds": 599.0,
}


def test_a_good_demonstration_misses_no_goal():
    assert missed_goals(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("reward_models", "reward", "accuracy", "padded"), 0.94),
        (("reward_models", "reward", "accuracy", "cut"), 0.94),
        (("reward_models", "reward", "accuracy", "wrong"), 0.69),
        (("exams", "mixture", "sampled", "all", "direct"), 60),
        (("exams", "dpo", "sampled", "all", "direct"), 269),
        (("exams", "ppo", "sampled", "all", "direct"), 269),
        (("exams", "dpo", "greedy", "all", "right"), 230),
        (("exams", "ppo", "greedy", "all", "right"), 224),
        (("exams", "hacked", "greedy", "all", "right"), 151),
        (("exams", "grpo", "greedy", "arithmetic", "checked"), 164),
        (("curves", "hacked", "reward"), [[1, 0.9], [10, 0.1]]),
        (("seconds",), 601.0),
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
