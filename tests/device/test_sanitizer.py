"""Sanitizer: a fault is reported with its line, and what moves is counted."""

import os
import re

import numpy as np
import pytest

from minigpt2.device.compile import EmulatorError
from minigpt2.device.emulator import Machine
from minigpt2.device.sanitizer import environment
from minigpt2.shipped import shipped
from tests.device.small import GOOD, LAUNCHES, i32, line_of, run, spoilt
from tests.kernels.support import needs_compiler, single

pytestmark = needs_compiler


def checked(text, name):
    """The findings of the checks in a kernel."""
    on = Machine(check=True)
    run(on, text, name)
    return on.findings


# Faults: the spoilt text, the kernel, the kind of finding, and parts of the lines that it names.

FAULTS = {
    "no first barrier": (spoilt("first barrier"), "matmul", "race", ("As[threadIdx.y][k]",)),
    "no second barrier": (spoilt("second barrier"), "matmul", "race", ("As[threadIdx.y][k]",)),
    "half of the tile is never filled": (
        spoilt("fill", "if (threadIdx.x < 32) s[threadIdx.x] = x[threadIdx.x];"),
        "reverse",
        "read before it is written",
        ("s[63 - threadIdx.x]",),
    ),
    "no barrier of the warp": (
        spoilt("warp barrier"),
        "neighbours",
        "race",
        ("s[threadIdx.x ^ 1]",),
    ),
    "over the border of two halves": (
        spoilt("within a half", "y[threadIdx.x] = s[31 - threadIdx.x];"),
        "halves",
        "race",
        ("[a half writes]", "[within a half]"),
    ),
    "a shuffle instead of a barrier": (
        spoilt("warp barrier", "__shfl_sync(ALL, 0, 0);"),
        "neighbours",
        "race",
        ("s[threadIdx.x ^ 1]",),
    ),
    "blocks add without an atomic": (
        spoilt("atomic", "if (i < n) sum[0] += x[i];"),
        "total",
        "race",
        ("[atomic]",),
    ),
    "a write to a const array": (
        spoilt("shuffle", "((float*)x)[threadIdx.x] = v;"),
        "shuffled",
        "const",
        ("[shuffle]",),
    ),
    "an address that is not a multiple of 16": (
        spoilt("aligned", "float4* p = (float4*)(y + 1);"),
        "wide",
        "misaligned",
        ("p[0] = make_float4",),
    ),
    "no wait for a copy": (spoilt("wait"), "staged", "before it has arrived", ("[send]", "[add]")),
    "a wait that leaves one group more": (
        spoilt("wait", "emulated::copies_wait(2, __LINE__);"),
        "staged",
        "before it has arrived",
        ("[send]", "[add]"),
    ),
    "a wait for copies of no group": (
        spoilt("commit"),
        "staged",
        "before it has arrived",
        ("[send]", "[add]"),
    ),
    "no barrier after the wait": (
        spoilt("all have waited"),
        "staged",
        "race: a read and a write",
        ("[send]", "[add]"),
    ),
    "a copy into what others still read": (
        spoilt("all have added"),
        "staged",
        "race: a read and a write",
        ("[send]", "[add]"),
    ),
    "a copy into what another copy will fill": (
        spoilt("sends", "const bool sends = row < rows && threadIdx.x % 32 < 16;").replace(
            "s[row % 2][4 * threadIdx.x]", "s[row % 2][4 * (threadIdx.x % 32)]"
        ),
        "staged",
        "before it has arrived",
        ("[send]",),
    ),
    "a copy to an address that is not a multiple of its bytes": (
        spoilt("sends", "const bool sends = row < rows && threadIdx.x < 15;").replace(
            "&s[row % 2][4 * threadIdx.x]", "&s[row % 2][4 * threadIdx.x + 1]"
        ),
        "staged",
        "misaligned",
        ("[send]",),
    ),
    "a source that is overwritten before the copy has arrived": (
        spoilt("in time"),
        "in_place",
        "race: a read and a write",
        ("[copy in]", "[overwrite]"),
    ),
    "a copy that nobody waits for": (
        spoilt("sends", "const bool sends = threadIdx.x < 16;"),
        "staged",
        "never waited for",
        ("[send]",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_at_its_line(fault):
    text, name, kind, marks = FAULTS[fault]
    findings = [finding for finding in checked(text, name) if kind in finding.kind]
    lines = " ".join(f"{finding.line} {finding.other}" for finding in findings)
    for mark in marks:
        assert f"small.cu:{line_of(mark)}" in lines, lines
    assert all(finding.kernel == name and finding.times > 0 for finding in findings)


STOPPED = {
    "no test of the bounds": (
        spoilt("bounds"),
        "matmul",
        r"out of bounds: a write .*\n.*small\.cu",
    ),
    "a barrier that not all reach": (
        spoilt("first barrier", "if (threadIdx.x < 8) __syncthreads();"),
        "matmul",
        "others wait|waits for ever",
    ),
    "two barriers for one": (
        spoilt("first barrier", "if (threadIdx.x < 8) __syncthreads(); else\n__syncthreads();"),
        "matmul",
        r"divergent __syncthreads\(\)",
    ),
    "some leave before the barrier": (
        spoilt("leave early", "if (row >= M) return;"),
        "matmul",
        r"waits for ever in __syncthreads\(\); \d+ of 256 threads have returned",
    ),
    "half a warp under a full mask": (
        spoilt("shuffle", "if (threadIdx.x < 16) v += __shfl_xor_sync(ALL, v, 1);"),
        "shuffled",
        "waits for ever in an operation of its warp",
    ),
    "a lane that its mask leaves out": (
        spoilt("shuffle", "v += __shfl_xor_sync(0x0000ffffu, v, 1);"),
        "shuffled",
        "whose mask leaves it out",
    ),
    "a lane that takes no part": (
        spoilt(
            "shuffle",
            "if (threadIdx.x % 32 < 16) v += __shfl_sync(0x0000ffffu, v, 20);",
        ),
        "shuffled",
        "reads a lane that takes no part",
    ),
    "a copy of two bytes": (
        GOOD.replace("x + from, 16,", "x + from, 2,"),
        "staged",
        "an asynchronous copy moves 4, 8 or 16 bytes",
    ),
    "a copy within shared memory": (
        GOOD.replace("x + from, 16,", "s[1], 16,"),
        "staged",
        "an asynchronous copy goes from global to shared memory",
    ),
    "a copy from beyond the end": (
        GOOD.replace("16, from < n,", "16, true,"),
        "staged",
        "out of bounds: a read of 16 bytes",
    ),
}


@pytest.mark.parametrize("fault", STOPPED)
def test_a_fault_that_cannot_go_on_stops_the_kernel(fault):
    text, name, message = STOPPED[fault]
    with pytest.raises(EmulatorError, match=message):
        checked(text, name)


# Traffic, by counts that can be made by hand.


def counts(name, *arguments, block=(32,), shared=0):
    """The actual and ideal counts of every access of a kernel by space and kind, in one block."""
    on = Machine(traffic=True)
    on.compile(GOOD).get_function(name)((1,), block, arguments, shared_mem=shared)
    return {(t.space, t.kind): (t.actual, t.ideal) for t in on.traffic}


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32), (32, 32)])
def test_sectors_of_a_strided_load(stride, sectors):
    moved = counts("copy", single(32 * stride), np.empty(32, "f4"), i32(stride))
    assert moved == {("global", "load"): (sectors, 4), ("global", "store"): (4, 4)}


def test_sectors_of_a_wide_load():
    moved = counts("quads", single(128), np.empty(128, "f4"))
    assert moved == {("global", "load"): (16, 16), ("global", "store"): (16, 16)}


@pytest.mark.parametrize(("width", "passes"), [(32, 32), (33, 1), (34, 2), (36, 4)])
def test_bank_conflicts_of_a_column(width, passes):
    moved = counts("column", np.empty(32, "f4"), i32(width), shared=4 * 32 * width)
    assert moved["shared", "load"] == (passes, 1)
    assert moved["shared", "store"] == (32, 32)


def test_a_copy_counts_as_a_read_of_global_memory_and_a_write_of_shared_memory():
    moved = counts("staged", *LAUNCHES["staged"][2](), block=(64,))
    assert moved["global", "load"] == (8 + 8 + 7, 8 + 8 + 7)
    assert moved["shared", "store"] == (3 * 2, 3 * 2)


def test_without_its_wait_a_copy_never_arrives():
    _, y, *_ = run(Machine(), spoilt("wait"), "staged")
    assert np.isnan(y).all()


@pytest.mark.parametrize("order", ["ascending", "random"])
def test_lanes_are_served_by_their_numbers_in_whatever_order_they_ran(order):
    on = Machine(traffic=True, order=order)
    on.compile(GOOD).get_function("fours")((1,), (32,), (np.empty((32, 4), "f4"),))
    assert {(t.space, t.kind): (t.actual, t.ideal) for t in on.traffic} == {
        ("shared", "store"): (4, 4),
        ("shared", "load"): (4, 4),
        ("global", "store"): (16, 16),
    }


def test_the_readme_shows_what_its_example_prints(capsys):
    page = (shipped("kernels") / "emulator" / "README.md").read_text(encoding="utf-8")
    blocks = (re.findall(f"```{kind}\n(.*?)```", page, re.S) for kind in ("python", "text"))
    (example,), (printed,) = blocks
    exec(example, {})
    assert capsys.readouterr().out == printed
    exec(example.replace("    y[", "    __syncthreads();\n    y["), {})
    assert capsys.readouterr().out == ""


# Coverage.


def test_lines_are_counted():
    on = Machine(coverage=True)
    module = on.compile(GOOD)
    module.line_counts()  # from here on, whatever ran before in this process
    run(on, GOOD, "matmul")
    counts = {n: count for (file, n), count in module.line_counts().items() if file == "small.cu"}
    (blocks_x, blocks_y), (wide, high), make = LAUNCHES["matmul"]
    threads, k = blocks_x * blocks_y * wide * high, int(make()[-1])
    assert counts[line_of("[first barrier]")] == threads * -(-k // 16)
    assert counts[line_of("[shuffle]")] == 0


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("GCOV_PREFIX", "before")
    monkeypatch.delenv("GCOV_PREFIX_STRIP", raising=False)
    with pytest.raises(KeyError), environment(GCOV_PREFIX="within", GCOV_PREFIX_STRIP="9"):
        assert (os.environ["GCOV_PREFIX"], os.environ["GCOV_PREFIX_STRIP"]) == ("within", "9")
        raise KeyError
    assert os.environ["GCOV_PREFIX"] == "before" and "GCOV_PREFIX_STRIP" not in os.environ
