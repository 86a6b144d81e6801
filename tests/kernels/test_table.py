"""Table of kernels: it says what the sources say, and no launch can get it wrong."""

import re

import numpy as np
import pytest

from minigpt2.device import stand_in
from minigpt2.device.compile import kernels_in
from minigpt2.device.launch import NUMBERS, launch
from minigpt2.device.source import text_of
from minigpt2.device.table import HEAD_SIZES, KERNELS, attention_tile, threads_of, variants
from minigpt2.shipped import shipped
from tests.kernels.support import device, machine, needs_compiler

FILES = sorted(path.name for path in shipped("kernels").glob("*.cu"))


def test_every_kernel_in_the_sources_is_in_the_table():
    there = [name for file in FILES for name in kernels_in(text_of(file))]
    assert sorted(there) == sorted(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_threads_are_those_that_the_source_is_bound_to(name):
    text = text_of(KERNELS[name].file)
    bound = kernels_in(text)[name]
    for d in HEAD_SIZES:
        rows = attention_tile(d)
        warps = 4 if d <= 80 else 2
        meaning = {"(B / 4 * TX)": rows // 4 * (256 // rows), "(32 * WARPS)": 32 * warps}
        defined = re.search(r"#define THREADS (\(.*?\)|\d+)", text)
        told = defined[1] if bound == "THREADS" else bound
        assert threads_of(KERNELS[name], d) == (meaning.get(told) or int(told))


@pytest.mark.parametrize("d", HEAD_SIZES)
def test_tiles_of_attention_are_those_of_the_source(d):
    b = re.search(r"#define B \((.*)\) +//", text_of("attention.cu"))[1]
    condition, yes, no = re.fullmatch(r"D <= (\d+) \? (\d+) : (\d+)", b).groups()
    assert attention_tile(d) == int(yes if d <= int(condition) else no)


@pytest.mark.parametrize("file", FILES)
def test_every_equation_of_the_head_is_computed_and_none_other(file):
    lines = (shipped("kernels") / file).read_text(encoding="utf-8").splitlines()
    first_code = next(n for n, line in enumerate(lines) if not line.startswith("//"))
    head = {tag for line in lines[:first_code] for tag in re.findall(r"\(\d+\.\d+\)", line)}
    code = {tag for line in lines[first_code:] for tag in re.findall(r"\(\d+\.\d+\)", line)}
    assert head == code


def test_variants_are_the_storage_types_and_head_sizes():
    assert len(list(variants(KERNELS["attention_forward"]))) == 3 * len(HEAD_SIZES)
    assert list(variants(KERNELS["squares"])) == [("-DREAL=float",)]


def test_included_text_keeps_its_lines():
    number, file, found = 0, "", 0
    originals = {
        path.name: path.read_text(encoding="utf-8").splitlines()
        for path in shipped("kernels").glob("*.cu*")
    }
    for line in text_of("layer_norm.cu").splitlines():
        directive = re.fullmatch(r'#line (\d+) "(.*)"', line)
        if directive:
            number, file = int(directive[1]), directive[2]
            continue
        assert originals[file][number - 1] == line
        number, found = number + 1, found + 1
    assert found > 150


def test_numbers_have_the_bytes_that_the_kernel_reads():
    sizes = {kind: np.dtype(number).itemsize for kind, number in NUMBERS.items()}
    assert sizes == {"int": 4, "long long": 8, "float": 4}


# What cannot be launched.


def array(*shape, dtype=np.float32):
    """An array on the device."""
    return stand_in.asarray(np.ones(shape, dtype))


def gelu(**other):
    """The arrays of gelu_forward, some of them others."""
    arrays = {"h": array(3, 8), "b": array(8), "y": array(3, 8)} | other
    return "gelu_forward", tuple(arrays.values()), {}


def attend(d, **numbers):
    """attention_row_dots with heads of d features."""
    arrays = array(5, 2, d), array(5, 2, d), array(2, 5)
    return "attention_row_dots", arrays, numbers


WRONG = {
    "another precision": (
        gelu(h=array(3, 8, dtype=np.float64), b=None, y=None),
        "computes in float32, float16",
    ),
    "two precisions": (gelu(b=array(8, dtype=np.float16)), "float16 and float32; it wants one"),
    "on the host": (gelu(h=np.ones((3, 8), np.float32)), "h is a numpy array, not one on the"),
    "a view": (gelu(h=array(3, 16)[:, ::2]), "h is a view whose numbers do not stand together"),
    "another shape": (gelu(y=array(4, 8)), r"y has shape \(4, 8\), not \(N, F\) with N = 3, F = 8"),
    "fewer axes": (gelu(y=array(24)), r"y has shape \(24,\), not \(N, F\)"),
    "not a multiple": (gelu(h=array(3, 6), b=array(6), y=array(3, 6)), "F = 6 must be a multiple"),
    "missing": (gelu(h=None), "h is missing"),
    "too few": (("gelu_forward", (array(3, 8),), {}), "takes 3 arrays, not 1"),
    "an unknown number": (("gelu_forward", gelu()[1], {"eps": 1.0}), "has no number called eps"),
    "a number too few": (
        (
            "layer_norm_forward",
            (*[array(2, 8)] * 2, *[array(8)] * 2, *[array(2, 8)] * 2, *[array(2)] * 2),
            {},
        ),
        "wants the number eps",
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
        ("attention_reach", (array(5, dtype=np.int64), array(1, dtype=np.int32)), {"D": 64}),
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
    (name, arrays, numbers), said = WRONG[what]
    with pytest.raises((TypeError, ValueError), match=said):
        launch(stand_in, name, *arrays, **numbers)


def test_a_number_of_another_device_is_refused(monkeypatch):
    name, arrays, numbers = gelu()
    monkeypatch.setattr(stand_in.cuda, "Device", lambda: stand_in.Device(1))
    with pytest.raises(ValueError, match="h is on <CUDA Device 0>, the kernel on <CUDA Device 1>"):
        launch(stand_in, name, *arrays, **numbers)


@needs_compiler
def test_no_rows_need_no_launch():
    with device(machine()) as xp:
        launch(xp, "gelu_forward", array(0, 8), array(8), array(0, 8))
