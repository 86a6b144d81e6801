"""Every gradient of every op against two witnesses, and every planted bug against the check."""

import numpy as np
import pytest

from tests import gradcheck
from tests.gradients import (
    CAUGHT,
    EXACT,
    Case,
    assert_exact,
    assert_in_order,
    bugs_of,
    central_difference_errors,
    complex_step_error,
    each_gradient,
    follows_its_order,
    zeros,
)
from tests.ops.cases import CASES, normal

BUGS = [
    pytest.param(case, argument, bug, id=f"{case.name}: {argument}: {name}")
    for case in CASES
    for argument in case.arguments
    for name, bug in bugs_of(case, argument).items()
]
every_gradient = each_gradient(CASES)


@every_gradient
def test_backward_agrees_with_the_complex_step(case, argument):
    assert_exact(case, argument)


@every_gradient
def test_backward_agrees_with_central_differences_to_second_order(case, argument):
    assert_in_order(case, argument)


@every_gradient
def test_a_gradient_of_zeros_is_caught(case, argument):
    found = complex_step_error(case, argument, backward=zeros)
    assert found.error > CAUGHT, str(found)


@pytest.mark.parametrize(("case", "argument", "bug"), BUGS)
def test_a_planted_bug_is_caught(case, argument, bug):
    found = complex_step_error(case, argument, backward=bug)
    assert found.error > CAUGHT, str(found)


@pytest.mark.parametrize("name", sorted({case.name.split(",")[0] for case in CASES}))
def test_three_bugs_are_planted_in_every_gradient(name):
    planted = {}
    for case in CASES:
        if case.name.split(",")[0] == name:
            for argument in case.arguments:
                planted.setdefault(argument, set()).update(bugs_of(case, argument))
    assert all(len(bugs) >= 3 for bugs in planted.values()), planted


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_planted_bug_spoils_a_gradient(case):
    spoiling = {name for argument in case.arguments for name in bugs_of(case, argument)}
    assert spoiling == set(case.bugs)


def cube(factor):
    """A case whose backward pass is right when the factor is 3."""
    return Case(
        "cube",
        lambda x: x**3,
        lambda dy, a: (factor * a[0] ** 2 * dy,),
        {"x": normal(5)},
    )


def test_the_check_passes_a_right_derivative():
    assert complex_step_error(cube(3), "x").error <= EXACT
    assert follows_its_order(cube(3), "x", central_difference_errors(cube(3), "x"))


def test_the_check_fails_a_derivative_that_is_off_by_a_thousandth():
    assert complex_step_error(cube(3.01), "x").error > CAUGHT
    assert not follows_its_order(cube(3.01), "x", central_difference_errors(cube(3.01), "x"))


def test_a_function_that_only_claims_to_be_linear_is_found_out():
    claims = Case("cube", cube(3).forward, cube(3).backward, {"x": normal(5)}, linear_in=("x",))
    assert not follows_its_order(claims, "x", central_difference_errors(claims, "x"))


def test_a_gradient_that_is_not_a_number_is_found_out():
    nan = complex_step_error(cube(np.nan), "x")
    assert not nan.error <= EXACT


def test_a_failure_names_op_argument_and_both_values():
    said = str(complex_step_error(cube(4), "x"))
    assert "cube" in said and "gradient of x" in said and "complex step says" in said
    assert f"{complex_step_error(cube(4), 'x').analytic:.12g}" in said


@pytest.mark.parametrize(("factor", "code"), [(3, 0), (3.01, 1)])
def test_the_printed_table_ends_with_1_if_a_row_fails(monkeypatch, capsys, factor, code):
    monkeypatch.setattr(gradcheck, "cases_of", lambda module: [cube(factor)])
    assert gradcheck.main() == code
    printed = capsys.readouterr().out
    assert "cube" in printed and ("NO" in printed) == (code == 1)


def test_cases_of_a_module_that_is_not_written_yet_are_none():
    assert gradcheck.cases_of("tests.ops.cases") == CASES
    assert gradcheck.cases_of("tests.no_such_module") == ()
