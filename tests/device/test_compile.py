"""Compile: a text becomes a library once, and mistakes in it are reported with their lines."""

import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from minigpt2.device import compile as compiling
from minigpt2.device.compile import EmulatorError, build
from minigpt2.errors import UserError
from tests.device.small import GOOD, line_of, spoilt
from tests.kernels.support import machine, needs_compiler

pytestmark = needs_compiler


def test_an_error_of_the_compiler_has_its_line():
    with pytest.raises(EmulatorError, match=rf"small\.cu:{line_of('[fill]')}"):
        machine().compile(spoilt("fill", "s[threadIdx.x] = nothing;"))


def build_small(folder):
    """Build the small kernels with the cache in a folder; for another process."""
    compiling.cache_folder = lambda: Path(folder)
    return str(build(GOOD, (), compiling.FAST))


def test_two_processes_build_one_kernel_at_once(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(build_small, [str(tmp_path)] * 2)
    assert first == second and Path(first).is_file()
    assert sorted(path.suffix for path in Path(first).parent.iterdir()) == [".cu", ".o", ".so"]
    assert all(re.fullmatch("[0-9a-f]{24}", path.name) for path in tmp_path.iterdir())  # no rests


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="compiles kernels with g"):
        build(GOOD + "// not built before\n", (), compiling.FAST)


def test_shared_memory_has_a_section_for_each_kernel_and_lines_stay_what_they_are():
    lines = compiling.for_the_cpu(GOOD).splitlines()
    number = 0
    for text in lines:
        directive = re.match(r"#line (\d+)", text)
        number = int(directive[1]) - 1 if directive else number + 1
        if "[first barrier]" in text:
            assert number == line_of("[first barrier]")
    assert sum("shared_matmul" in text for text in lines) == 1
