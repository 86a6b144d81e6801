"""Value function: what its chapter claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.alignment.value import value_gradient, value_loss, within
from tests.alignment.policy_cases import TARGETS, V_OLD, VALUE_LOSS, M
from tests.gradients import (
    CAUGHT,
    assert_exact,
    assert_in_order,
    bugs_of,
    complex_step_error,
    draw,
    each_gradient,
    zeros,
)

CLIP = 0.2
quick = settings(deadline=None, max_examples=60)
numbers = st.floats(-3, 3)
triples = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=20)
every_gradient = each_gradient((VALUE_LOSS,))


@every_gradient
def test_the_backward_pass_agrees_with_the_complex_step_away_from_the_kinks(case, argument):
    assert_exact(case, argument)


@every_gradient
def test_the_backward_pass_agrees_with_central_differences(case, argument):
    assert_in_order(case, argument)


@every_gradient
def test_every_planted_bug_and_a_gradient_of_zeros_are_caught(case, argument):
    assert len(bugs_of(case, argument)) >= 3
    for name, bug in {**bugs_of(case, argument), "zeros": zeros}.items():
        assert complex_step_error(case, argument, backward=bug).error > CAUGHT, name


def test_values_in_every_region_are_among_the_numbers_of_the_check():
    ((v,), _) = draw(VALUE_LOSS)
    gradient = value_gradient(v, V_OLD, TARGETS, np.ones(M), CLIP)
    inside = abs(v - V_OLD) < CLIP
    assert inside.any() and (gradient == 0).any() and (gradient[~inside] != 0).any()
    assert {True, False} == set(v > TARGETS)


@given(triples, st.floats(0, 1))
@quick
def test_the_loss_is_half_the_larger_of_both_squares(tokens, clip):
    v, old, targets = np.array(tokens).T
    shares = np.linspace(1, 2, len(v))
    squares = (v - targets) ** 2, (old + np.clip(v - old, -clip, clip) - targets) ** 2
    expected = 0.5 * (shares * np.maximum(*squares)).sum()
    assert value_loss(v, old, targets, shares, clip) == pytest.approx(expected, abs=1e-12)


@given(triples)
@quick
def test_with_a_wide_range_it_is_the_squared_error(tokens):
    v, old, targets = np.array(tokens).T
    ones = np.ones(len(v))
    np.testing.assert_array_equal(value_gradient(v, old, targets, ones, 99.0), v - targets)
    np.testing.assert_array_equal(value_gradient(v, v, targets, ones, 0.0), v - targets)


# v_old = 0 and ε = 0.2: within the range; beyond it towards R, which is 1; away from R; past R.
REGIONS = [(0.1, -0.9), (0.5, 0), (1.5, 0), (1.9, 0.9), (-0.5, -1.5), (-0.1, -1.1)]


@pytest.mark.parametrize(("v", "gradient"), REGIONS)
def test_what_the_gradient_is_in_each_region(v, gradient):
    arguments = np.zeros(1), np.ones(1), np.ones(1), CLIP
    (dv,) = value_gradient(np.array([v]), *arguments)
    assert dv == pytest.approx(gradient, rel=1e-14) and (dv == 0) == (gradient == 0)
    h = 1e-6
    change = value_loss(np.array([v + h]), *arguments) - value_loss(np.array([v - h]), *arguments)
    assert change / (2 * h) == pytest.approx(gradient, abs=1e-8)


@pytest.mark.parametrize(("kink", "inner"), [(0.2, -0.8), (1.8, 0.8)])
def test_at_a_kink_one_side_has_slope_zero_and_the_gradient_is_that_of_the_square(kink, inner):
    arguments, h = (np.zeros(1), np.ones(1), np.ones(1)), 1e-7
    low, at, high = (
        value_loss(np.array([kink + side]), *arguments, clip=CLIP) for side in (-h, 0, h)
    )
    slopes = sorted([(at - low) / h, (high - at) / h], key=abs)
    np.testing.assert_allclose(slopes, [0, inner], atol=1e-5)
    on_it = within(np.array([kink]), np.zeros(1), CLIP)
    assert on_it[0] == CLIP
    assert value_gradient(np.array([0.2]), *arguments, clip=CLIP)[0] == pytest.approx(-0.8)


def test_a_target_within_the_range_leaves_no_kink():
    v = np.linspace(-2, 2, 41)
    old, targets, ones = np.zeros(41), np.full(41, 0.1), np.ones(41)
    np.testing.assert_array_equal(value_gradient(v, old, targets, ones, CLIP), v - targets)
