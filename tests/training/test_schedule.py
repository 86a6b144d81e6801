"""Schedule: what its chapter claims."""

from itertools import pairwise
from math import cos, pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.training.schedule import learning_rate

SHAPES = ("linear", "cosine")

each_shape = pytest.mark.parametrize("shape", SHAPES)


def rates(steps, warmup, shape, peak=1.0):
    """The learning rate of every step."""
    return [learning_rate(s, steps, peak, warmup, shape) for s in range(1, steps + 1)]


def test_linear_spelt_out():
    assert rates(6, 2, "linear", 10.0) == pytest.approx([5, 10, 8, 6, 4, 2])
    assert rates(4, 0, "linear", 10.0) == pytest.approx([8, 6, 4, 2])


def test_cosine_spelt_out():
    falling = [5 * (1 + cos(pi * k / 4)) for k in (1, 2, 3)]
    assert rates(5, 2, "cosine", 10.0) == pytest.approx([5, 10, *falling])
    assert falling == pytest.approx([8.5355339059, 5, 1.4644660941])
    assert rates(3, 0, "cosine", 10.0) == pytest.approx(falling)


@each_shape
@pytest.mark.parametrize("warmup", [1, 3, 10, 400])
def test_the_first_warm_up_step_has_peak_over_warmup_not_0(shape, warmup):
    found = rates(500, warmup, shape, 3.0)
    assert found[0] == pytest.approx(3.0 / warmup) and found[warmup - 1] == 3.0
    assert found[:warmup] == pytest.approx([3.0 * s / warmup for s in range(1, warmup + 1)])


@each_shape
@given(steps=st.integers(1, 300), data=st.data())
def test_the_rate_rises_to_its_peak_falls_and_is_never_0(shape, steps, data):
    warmup = data.draw(st.integers(0, steps))
    found = rates(steps, warmup, shape)
    rising, falling = found[:warmup], found[max(0, warmup - 1) :]
    assert all(a < b for a, b in pairwise(rising))
    assert all(a > b for a, b in pairwise(falling))
    assert found[-1] > 0 and max(found) <= 1
    assert found[warmup - 1] == 1 if warmup else max(found) < 1


@each_shape
def test_without_warm_up_the_first_step_is_close_to_the_peak(shape):
    found = rates(1000, 0, shape)
    assert 0.998 < found[0] < 1


@each_shape
def test_a_run_of_one_step_takes_it(shape):
    assert rates(1, 1, shape) == [1.0] and rates(1, 0, shape) == pytest.approx([0.5])


@each_shape
def test_the_step_after_the_last_would_be_0(shape):
    assert learning_rate(11, 10, 1.0, 2, shape) == pytest.approx(0, abs=1e-12)


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="'linear' or 'cosine'"):
        learning_rate(9, 10, 1.0, 2, "square")
