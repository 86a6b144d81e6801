"""Launch: no argument that does not fit reaches a kernel."""

import numpy as np
import pytest

from minigpt2.device import fake_cupy
from minigpt2.device import launch as launching
from minigpt2.device.checks import NUMBERS, Traits, traits_of
from minigpt2.device.kernel_specs import KERNELS
from minigpt2.device.launch import PLANS, launch
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


def run(case):
    """Launch a kernel with its arrays and numbers."""
    name, arrays, numbers = case
    launch(fake_cupy, name, *arrays, **numbers)


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
    "not a multiple": (
        ("sum_rows", (array(3, 6), *[array(n, dtype=np.int32) for n in (3, 3)], array(2, 6)), {}),
        "C = 6 must be a multiple",
    ),
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
        (
            "cross_entropy",
            (array(1, 8), array(1, dtype=np.int64), array(1), array(1)),
            {"V": 8, "gradient": 0},
        ),
        "targets holds int64; it must hold int32",
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
    case, message = WRONG[what]
    with pytest.raises((TypeError, ValueError), match=message):
        run(case)


def test_an_array_on_another_device_is_refused(monkeypatch):
    name, arrays, numbers = gelu()
    monkeypatch.setattr(fake_cupy.cuda, "Device", lambda: fake_cupy.Device(1))
    with pytest.raises(ValueError, match="h is on device 0, the kernel on device 1"):
        launch(fake_cupy, name, *arrays, **numbers)


# What was launched once is not checked again.


class Kernel:
    """A compiled kernel that notes what it gets."""

    max_dynamic_shared_size_bytes = 48 << 10

    def __init__(self):
        self.launches = []
        self.raised = []

    def __setattr__(self, name, value):
        if name == "max_dynamic_shared_size_bytes":
            self.raised.append(value)
        super().__setattr__(name, value)

    def __call__(self, grid, block, arguments, *, shared_mem):
        self.launches.append((grid, block, arguments, shared_mem))


@pytest.fixture
def kernel(monkeypatch):
    """What every kernel compiles to, with no launch planned."""
    noted = Kernel()
    monkeypatch.setattr(launching, "compiled", lambda *_: noted)
    PLANS.clear()
    yield noted
    PLANS.clear()


@pytest.fixture
def checked(monkeypatch):
    """The names of the kernels whose launches are checked."""
    names, plan_of = [], launching.plan_of

    def noting(library, name, *rest):
        names.append(name)
        return plan_of(library, name, *rest)

    monkeypatch.setattr(launching, "plan_of", noting)
    return names


def test_a_launch_is_checked_once_for_its_shapes_and_types(kernel, checked):
    for _ in range(3):
        run(gelu())
    assert checked == ["gelu_forward"] and len(kernel.launches) == 3
    narrow = {name: array(3, 4) for name in "hy"} | {"b": array(4)}
    half = {name: array(*a.shape, dtype=np.float16) for name, a in narrow.items()}
    for other in ({"b": None}, narrow, half):
        for _ in range(2):
            run(gelu(**other))
    assert len(checked) == 4 and len(kernel.launches) == 9


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_is_refused_after_right_ones_and_again(what, kernel):
    wrong, message = WRONG[what]
    for right in (gelu(), attend(64)):
        run(right)
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=message):
            run(wrong)
    assert len(kernel.launches) == 2


def test_an_array_on_another_device_is_refused_after_a_right_launch(kernel, monkeypatch):
    run(gelu())
    monkeypatch.setattr(fake_cupy.cuda, "Device", lambda: fake_cupy.Device(1))
    with pytest.raises(ValueError, match="h is on device 0, the kernel on device 1"):
        run(gelu())


def test_a_planned_launch_gets_its_own_arrays_and_numbers(kernel, checked):
    names = [p.name for p in launching.parameters_of("adamw") if p.type == "float" and not p.shape]
    for number in (0.5, 1e-5):
        arrays = *(array(8) for _ in range(4)), None, array(1)
        numbers = dict.fromkeys(names, number) | {"decayed": 4 + int(2 * number)}
        launch(fake_cupy, "adamw", *arrays, **numbers)
        _, _, arguments, _ = kernel.launches[-1]
        assert all(a is b for a, b in zip(arrays, arguments, strict=False))
        assert arguments[6:] == (8, numbers["decayed"], *[np.float32(number)] * len(names))
        types = [np.int64, np.int64, *[np.float32] * len(names)]
        assert [type(argument) for argument in arguments[6:]] == types
    assert checked == ["adamw"]


def test_a_planned_launch_refuses_a_number_that_has_become_too_large(kernel):
    arrays = array(1, 8), array(1, dtype=np.int32), array(1), array(1)
    launch(fake_cupy, "cross_entropy", *arrays, V=8, gradient=True)
    with pytest.raises(ValueError, match="does not fit into 32 bits"):
        launch(fake_cupy, "cross_entropy", *arrays, V=np.int64(1 << 32), gradient=True)


def test_plans_are_dropped_when_there_are_too_many(kernel, monkeypatch):
    monkeypatch.setattr(launching, "MAX_PLANS", 4)
    for n in range(1, 11):
        run(gelu(h=array(n, 8), y=array(n, 8)))
        assert len(PLANS) <= 4
    assert len(kernel.launches) == 10


def test_dynamic_shared_memory_is_that_of_the_sizes_and_the_limit_is_raised_if_needed(
    kernel, monkeypatch
):
    sized = KERNELS["gelu_forward"]._replace(shared=lambda n, size: n["N"] * n["F"] * size)
    monkeypatch.setitem(KERNELS, "gelu_forward", sized)
    for n in (3, 1600, 1600, 1500, 1700):
        run(gelu(h=array(n, 8), y=array(n, 8)))
    assert [shared for *_, shared in kernel.launches] == [96, 51200, 51200, 48000, 54400]
    assert kernel.raised == [51200, 54400] and kernel.preferred_shared_memory_carveout == 100


def test_an_array_of_cupys_says_what_the_checks_need():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    somewhere = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(4096, 4096, None, 0), 0)
    on_a_gpu = cupy.ndarray((3, 8), np.float16, somewhere)
    for a in (on_a_gpu, array(3, 8, dtype=np.float16)):
        assert traits_of(a) == Traits((3, 8), np.dtype(np.float16), True, 0)
        assert not Traits(*traits_of(a[:, ::2])).contiguous


@needs_compiler
def test_no_rows_need_no_launch():
    with device(machine()) as xp:
        launch(xp, "gelu_forward", array(0, 8), array(8), array(0, 8))
