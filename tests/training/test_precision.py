"""Precision: what its chapter claims."""

import sys
from types import ModuleType
from typing import get_args

import numpy as np
import pytest

from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.training.precision import (
    FIRST_SCALE,
    LossScale,
    Precision,
    check_precision,
    compute_dtype,
    rounded,
)

INTERVAL = 2000  # finite steps, as the chapter says
GPU = ModuleType("cupy")


def test_a_gradient_that_is_not_finite_halves_the_scale_and_the_run_goes_on():
    scale = LossScale.of("float16")
    assert scale.value == FIRST_SCALE
    assert scale.update(False) and scale.update(False)
    assert scale.value == FIRST_SCALE / 4


def test_after_many_finite_steps_the_scale_is_doubled():
    scale = LossScale.of("float16")
    for _ in range(INTERVAL - 1):
        assert scale.update(True)
    assert scale.value == FIRST_SCALE
    scale.update(True)
    assert scale.value == 2 * FIRST_SCALE
    for _ in range(INTERVAL - 1):
        scale.update(True)
    scale.update(False)  # and the count begins anew
    for _ in range(INTERVAL - 1):
        scale.update(True)
    assert scale.value == FIRST_SCALE


def test_a_gradient_that_is_never_finite_ends_the_run():
    scale = LossScale.of("float16")
    goes_on = [scale.update(False) for _ in range(20)]
    assert goes_on == [True] * 16 + [False] * 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_precisions_are_not_scaled(precision):
    scale = LossScale.of(precision)
    for _ in range(INTERVAL + 1):
        assert scale.update(True) and scale.value == 1
    assert not scale.update(False) and scale.value == 1


def test_a_power_of_two_rounds_nothing():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    np.testing.assert_array_equal(x * np.float32(FIRST_SCALE) / np.float32(FIRST_SCALE), x)


@pytest.mark.parametrize(("precision", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_the_model_computes_with_a_rounded_copy(precision, bits):
    parameters = initialise(GPT2Config(11, 8, 8, 1, 1), np.random.default_rng(0))
    working = rounded(parameters, precision)
    assert working.flat.dtype == compute_dtype(precision) and working.flat.dtype.itemsize == 2
    wide = working.flat.astype(np.float32)
    normal = abs(parameters.flat) > 1e-4  # the smallest numbers of float16 have fewer bits
    error = abs(wide - parameters.flat)[normal] / abs(parameters.flat)[normal]
    assert 0 < error.max() <= 2.0**-bits
    assert rounded(parameters, "float32") is parameters


def test_without_ml_dtypes_bfloat16_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    for call in (compute_dtype, lambda precision: check_precision(precision, GPU)):
        with pytest.raises(UserError) as error:
            call("bfloat16")
        expected = "--precision bfloat16 needs ml_dtypes: pip install ml_dtypes"
        assert str(error.value) == expected
    check_precision("float16", GPU)


def test_16_bits_need_a_gpu():
    assert get_args(Precision) == ("float32", "bfloat16", "float16")
    for library in (np, GPU):
        check_precision("float32", library)
    for precision in ("bfloat16", "float16"):
        with pytest.raises(UserError) as error:
            check_precision(precision, np)
        expected = f"--precision {precision} needs a GPU: this run computes on the cpu"
        assert str(error.value) == expected
        check_precision(precision, GPU)
