"""What every op has in common: pure functions that keep the precision of what they are given."""

import numpy as np
import pytest

from tests.gradients import draw
from tests.ops.cases import CASES

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def typed(case, dtype):
    """The case's arguments and upstream gradient in a precision, locked against writing."""
    arguments, dy = draw(case)
    arrays = [np.array(array, dtype) for array in (*arguments, dy)]
    for array in arrays:
        array.flags.writeable = False
    return tuple(arrays[:-1]), arrays[-1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_case
def test_no_literal_and_no_intermediate_changes_the_dtype(case, dtype):
    arguments, dy = typed(case, dtype)
    assert case.forward(*arguments).dtype == dtype
    assert [gradient.dtype for gradient in case.backward(dy, arguments)] == [dtype] * len(arguments)


@each_case
def test_a_gradient_has_the_shape_of_its_argument(case):
    arguments, dy = typed(case, np.float64)
    gradients = case.backward(dy, arguments)
    assert [gradient.shape for gradient in gradients] == [one.shape for one in arguments]


@each_case
def test_inputs_are_not_modified(case):
    arguments, dy = typed(case, np.float64)
    before = [array.copy() for array in (*arguments, dy)]
    case.forward(*arguments)
    case.backward(dy, arguments)
    for array, was in zip((*arguments, dy), before, strict=True):
        np.testing.assert_array_equal(array, was)


@each_case
def test_results_repeat_bit_for_bit(case):
    arguments, dy = typed(case, np.float32)
    for one, two in zip(*(case.backward(dy, arguments) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(case.forward(*arguments), case.forward(*arguments))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "dropout, ρ = 0"], ids=lambda case: case.name
)
def test_results_are_fresh(case):
    arguments, dy = typed(case, np.float64)
    results = [case.forward(*arguments), *case.backward(dy, arguments)]
    for i, result in enumerate(results):
        for other in (*arguments, dy, *results[:i]):
            assert not np.shares_memory(result, other)


@each_case
def test_single_precision_is_close_to_double(case):
    arguments, dy = typed(case, np.float64)
    single, dy_single = typed(case, np.float32)
    pairs = zip(case.backward(dy, arguments), case.backward(dy_single, single), strict=True)
    for exact, rounded in pairs:
        assert abs(exact - rounded).max() <= 1e-5 * abs(exact).max()
