"""Every parameter of the whole model against two witnesses, and planted bugs against the check."""

import numpy as np
import pytest

from minigpt2.model.gradients import gradients_of
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
from tests.model.cases import (
    BATCHES,
    CASES,
    GPT2,
    SHAPES,
    C,
    H,
    N,
    T,
    V,
    broken_walk,
    gradients,
    parameters_of,
)

EXACT = 1e-10  # for a chain of some thirty ops; one alone agrees to 1e-11
every_gradient = each_gradient(CASES)


@every_gradient
def test_backward_agrees_with_the_complex_step(case, argument):
    assert_exact(case, argument, EXACT)


@every_gradient
def test_backward_agrees_with_central_differences_to_second_order(case, argument):
    assert_in_order(case, argument)


@every_gradient
def test_every_planted_bug_and_a_gradient_of_zeros_are_caught(case, argument):
    for name, bug in {**bugs_of(case, argument), "zeros": zeros}.items():
        found = complex_step_error(case, argument, backward=bug, directions=2)
        assert found.error > CAUGHT, f"{name}: {found}"


def spoilt(case):
    """The names of the bugs that spoil each gradient of a case."""
    arguments, dy = draw(case)
    names = {argument: set() for argument in case.arguments}
    for name, bug in case.bugs.items():
        for argument, gradient in zip(names, bug(dy, arguments), strict=True):
            if gradient is not None:
                names[argument].add(name)
    return names


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_planted_bug_spoils_a_gradient(case):
    assert set().union(*spoilt(case).values()) == set(case.bugs)


def test_three_bugs_are_planted_in_every_gradient_of_the_model():
    assert all(len(names) >= 3 for names in spoilt(GPT2).values()), spoilt(GPT2)


def test_the_walk_that_bugs_are_planted_in_is_right_while_none_is():
    arguments, _ = draw(GPT2)
    parameters = parameters_of(arguments)
    total = gradients_of(parameters)
    for batch in BATCHES:
        broken_walk(parameters, batch, total)
    for walked, right in zip(total.views.values(), gradients(1.0, arguments), strict=True):
        np.testing.assert_allclose(walked, right, rtol=0, atol=1e-13)


def test_there_is_a_row_for_every_parameter_of_the_whole_model():
    assert list(GPT2.arguments) == list(SHAPES)


@pytest.mark.parametrize("batch", BATCHES, ids=["first", "second"])
def test_the_forests_have_siblings_depth_three_and_roots_that_are_packed(batch):
    assert len(batch.ids) == N and len(batch.positions) == N
    seen_by = batch.end - np.arange(N)
    assert (batch.positions == 0).sum() >= 2 and seen_by.max() < N  # more than one root
    assert len(np.unique(batch.rows)) < len(batch.rows)  # a row in several triples
    assert len(np.unique(batch.weights)) > 2 and batch.ids.max() < V and batch.positions.max() < T
    nested = [len({end for j, end in enumerate(batch.end[: i + 1]) if end > i}) for i in range(N)]
    assert max(nested) >= 3  # a row below a segment below a segment


def test_no_two_axes_can_be_taken_for_one_another():
    sizes = (N, H, C, V, T, 3 * C, 4 * C)
    assert len(set(sizes)) == len(sizes)
