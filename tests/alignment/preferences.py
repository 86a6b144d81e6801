"""What the tests of reward model and DPO share: exact preferences, checks of gradients."""

import numpy as np

from tests.alignment.exact_world import ANSWERS, REWARDS
from tests.gradients import (
    CAUGHT,
    assert_exact,
    assert_in_order,
    bugs_of,
    complex_step_error,
    each_gradient,
    zeros,
)

EXACT = 1e-10  # for a chain of some thirty ops


def every_pair():
    """The numbers of both answers of each pair of two of the 15, and how often the first wins."""
    first, second = np.triu_indices(len(ANSWERS), 1)
    return first, second, 1 / (1 + np.exp(REWARDS[second] - REWARDS[first]))


def assert_gradients(cases):
    """A test of every gradient against both witnesses, and against its planted bugs."""

    @each_gradient(cases)
    def test(case, argument):
        assert_exact(case, argument, EXACT)
        assert_in_order(case, argument)
        bugs = bugs_of(case, argument)
        assert len(bugs) == len(case.bugs)
        for name, bug in {**bugs, "zeros": zeros}.items():
            found = complex_step_error(case, argument, backward=bug, directions=2)
            assert found.error > CAUGHT, f"{name}: {found}"

    return test


def assert_same(found, expected):
    """Fail unless metrics and gradients are the same but for rounding."""
    assert found[0].keys() == expected[0].keys()
    for name, number in expected[0].items():
        assert abs(found[0][name] - number) <= 1e-12, name
    scale = abs(expected[1]).max()
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-12 * scale)
