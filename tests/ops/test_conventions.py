"""What every op has in common: pure functions that keep the precision of what they are given."""

import numpy as np
import pytest

from minigpt2 import backend, parallel
from minigpt2.device import fake_cupy
from tests.gradients import draw
from tests.ops.cases import CASES
from tests.watched import Watched

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
def test_everything_on_the_way_is_in_single_precision_too(case):
    arguments, dy = typed(case, np.float32)
    Watched.kinds = set()
    watched = tuple(argument.view(Watched) for argument in arguments)
    case.forward(*watched)
    case.backward(dy.view(Watched), watched)
    assert np.dtype(np.float64) not in Watched.kinds


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


@each_case
def test_what_a_device_is_given_stays_on_it(case, monkeypatch):
    monkeypatch.setattr(backend, "LIBRARIES", [fake_cupy])
    monkeypatch.setattr(backend, "FUSED", {})
    arguments, dy = typed(case, np.float64)
    on_device = tuple(map(fake_cupy.asarray, arguments))
    results = [case.forward(*on_device), *case.backward(fake_cupy.asarray(dy), on_device)]
    expected = [case.forward(*arguments), *case.backward(dy, arguments)]
    for result, exact in zip(results, expected, strict=True):
        np.testing.assert_allclose(fake_cupy.asnumpy(result), exact, rtol=1e-12, atol=1e-14)


@each_case
def test_blocks_of_rows_give_what_all_rows_at_once_give(case, monkeypatch):
    arguments, dy = typed(case, np.float64)
    expected = [case.forward(*arguments), *case.backward(dy, arguments)]
    monkeypatch.setattr(parallel, "BLOCK_BYTES", 200)
    results = [case.forward(*arguments), *case.backward(dy, arguments)]
    for result, exact in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, exact, rtol=1e-11, atol=1e-13)
