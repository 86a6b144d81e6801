"""Launch: no argument that does not fit reaches a kernel."""

import numpy as np
import pytest

from minigpt2.device import fake_cupy
from minigpt2.device.launch import NUMBERS, launch
from tests.kernels.support import device, machine, needs_compiler


def test_numbers_have_the_bytes_that_the_kernel_reads():
    sizes = {kind: np.dtype(number).itemsize for kind, number in NUMBERS.items()}
    assert sizes == {"int": 4, "long long": 8, "float": 4}


# What cannot be launched.


def array(*shape, dtype=np.float32):
    """An array on the device."""
    return fake_cupy.asarray(np.ones(shape, dtype))


def gelu(**other):
    """The arrays of gelu_forward, some of them others."""
    arrays = {"h": array(3, 8), "b": array(8), "y": array(3, 8)} | other
    return "gelu_forward", tuple(arrays.values()), {}


def attend(d, **numbers):
    """attention_delta with heads of d features."""
    arrays = array(5, 2, d), array(5, 2, d), array(2, 5)
    return "attention_delta", arrays, numbers


WRONG = {
    "another precision": (
        gelu(h=array(3, 8, dtype=np.float64), b=None, y=None),
        "computes in float32, float16",
    ),
    "two precisions": (gelu(b=array(8, dtype=np.float16)), "float16 and float32; all must be"),
    "on the host": (gelu(h=np.ones((3, 8), np.float32)), "h is a numpy array, not one on the"),
    "a view": (gelu(h=array(3, 16)[:, ::2]), "h is a view that is not contiguous"),
    "another shape": (gelu(y=array(4, 8)), r"y has shape \(4, 8\), not \(N, F\) with N = 3, F = 8"),
    "fewer axes": (gelu(y=array(24)), r"y has shape \(24,\), not \(N, F\)"),
    "not a multiple": (gelu(h=array(3, 6), b=array(6), y=array(3, 6)), "F = 6 must be a multiple"),
    "missing": (gelu(h=None), "h is missing"),
    "too few": (("gelu_forward", (array(3, 8),), {}), "takes 3 arrays, not 1"),
    "an unknown number": (("gelu_forward", gelu()[1], {"eps": 1.0}), "has no number called eps"),
    "a number too few": (
        (
            "layer_norm_forward",
            (array(2, 8), *[array(8)] * 2, array(2, 8), *[array(2)] * 2),
            {},
        ),
        "needs the number eps",
    ),
    "too wide": (
        (
            "layer_norm_backward",
            (
                *[array(1, 2049)] * 2,
                array(2049),
                *[array(1)] * 2,
                None,
                array(1, 2049),
                array(1, 2, 2049),
            ),
            {},
        ),
        "C = 2049 is more than 2048",
    ),
    "another head size": (attend(48), r"heads of 48 features; \(32, 64, 80, 128\) are built"),
    "integers of 64 bits": (
        ("attention_max_end", (array(5, dtype=np.int64), array(1, dtype=np.int32)), {"D": 64}),
        "end holds int64; it must hold int32",
    ),
    "a number too large": (
        (
            "cross_entropy",
            (array(1, 8), array(1, dtype=np.int32), array(1), array(1)),
            {"V": 1 << 31, "gradient": 0},
        ),
        "V = 2147483648 does not fit into 32 bits",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_launch_with_a_wrong_argument_is_refused(what):
    (name, arrays, numbers), message = WRONG[what]
    with pytest.raises((TypeError, ValueError), match=message):
        launch(fake_cupy, name, *arrays, **numbers)


def test_an_array_on_another_device_is_refused(monkeypatch):
    name, arrays, numbers = gelu()
    monkeypatch.setattr(fake_cupy.cuda, "Device", lambda: fake_cupy.Device(1))
    with pytest.raises(ValueError, match="h is on <CUDA Device 0>, the kernel on <CUDA Device 1>"):
        launch(fake_cupy, name, *arrays, **numbers)


@needs_compiler
def test_no_rows_need_no_launch():
    with device(machine()) as xp:
        launch(xp, "gelu_forward", array(0, 8), array(8), array(0, 8))
