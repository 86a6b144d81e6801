"""Kernel specs: every kernel has one, with the threads and tiles of its source."""

import re

import pytest

from minigpt2.device.compile import kernels_in
from minigpt2.device.includes import text_of
from minigpt2.device.kernel_specs import HEAD_SIZES, KERNELS, attention_tile, threads_of, variants
from minigpt2.shipped import shipped

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


def test_variants_are_the_storage_types_and_head_sizes():
    assert len(list(variants(KERNELS["attention_forward"]))) == 3 * len(HEAD_SIZES)
    assert list(variants(KERNELS["squares"])) == [("-DREAL=float",)]
