"""Kernel specs: every kernel has one, with the threads and tiles of its source."""

import re
import subprocess

import pytest

from minigpt2.device.attention_blocks import simple_rows, simple_tile
from minigpt2.device.compile import compiler, kernels_in
from minigpt2.device.includes import text_of
from minigpt2.device.kernel_specs import (
    HEAD_SIZES,
    KERNELS,
    parts_of,
    threads_of,
    variants,
)
from minigpt2.shipped import shipped
from tests.kernels.support import needs_compiler

FILES = sorted(path.name for path in shipped("kernels").glob("*.cu"))


def defined_in(file, name, d):
    """The value of `#define name (D <= 80 ? 4 : 2)` for D features."""
    choice = rf"#define {name} \(D <= (\d+) \? (\d+) : (\d+)\)"
    most, small, large = map(int, re.search(choice, text_of(file)).groups())
    return small if d <= most else large


def test_every_kernel_in_the_sources_has_a_spec():
    names = {(file, name) for file in FILES for name in kernels_in(text_of(file))}
    assert names == {(spec.file, spec.function or name) for name, spec in KERNELS.items()}


def value_of(expression, text, options):
    """A number that a text writes with its definitions, as a C++ compiler computes it."""
    preprocessor = ("#if", "#elif", "#else", "#endif", "#define")
    lines = [line for line in text.splitlines() if line.startswith(preprocessor)]
    program = "\n".join([*lines, f"constexpr int value = {expression};", "int numbers[value];"])
    command = [compiler(), "-x", "c++", "-S", "-O0", *options, "-o", "-", "-"]
    made = subprocess.run(command, input=program, capture_output=True, text=True, check=True)
    return int(re.search(r"numbers, (\d+)", made.stdout)[1]) // 4


@needs_compiler
@pytest.mark.parametrize("name", [name for name in KERNELS if KERNELS[name].threads])
def test_threads_are_those_that_the_source_is_bound_to(name):
    spec, text = KERNELS[name], text_of(KERNELS[name].file)
    bound = kernels_in(text)[spec.function or name]
    for options in variants(spec):
        if options[0] == variant_of_type(spec):
            assert threads_of(spec, options) == value_of(bound, text, options)


def variant_of_type(spec):
    """One storage type's option: threads do not depend on the type."""
    return f"-DREAL={spec.storage[0]}"


def test_a_row_of_layer_norm_has_the_warps_of_the_source():
    text = text_of("layer_norm.cu")
    assert "#define SETS (PARTS <= 12 ? 12 / PARTS : 1)" in text
    assert kernels_in(text)["layer_norm_backward"] == "32 * PARTS * SETS"
    assert "if (n >= N) return;" in text and "blockIdx.x * FORWARD_WARPS" in text
    for (c, size), threads in {
        (768, 2): 384,
        (1280, 2): 320,
        (1280, 4): 320,
        (255, 2): 256,
    }.items():
        options = (f"-DPARTS={parts_of(c, size)}",)
        assert threads_of(KERNELS["layer_norm_backward"], options) == threads


@pytest.mark.parametrize("d", HEAD_SIZES)
def test_tiles_of_attention_are_those_of_the_source(d):
    for part, backward in (("", False), ("_dq", True), ("_dkv", True)):
        file = f"attention{part}.cu"
        assert simple_rows(d) == defined_in(file, "B", d)
        assert simple_tile(d, backward) == defined_in(file, "MET", d)


def test_variants_are_the_storage_types_and_head_sizes():
    assert len(list(variants(KERNELS["attention_forward"]))) == 3 * len(HEAD_SIZES)
    assert list(variants(KERNELS["squares"])) == [("-DREAL=float",)]
    rows = list(variants(KERNELS["layer_norm_forward"]))
    assert ("-DREAL=bf16", "-DPARTS=5") in rows and ("-DREAL=f16", "-DPARTS=8", "-DODD") in rows
    assert len(rows) == len(set(rows))
