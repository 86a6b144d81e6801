"""Memory: freed arrays stay with the process."""

import platform
import subprocess
import sys

import pytest

from minigpt2.memory import keep_freed_memory, peak_memory

SCRIPT = """
import resource
import sys
import numpy as np
from minigpt2.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def make_arrays():
    for size in (1 << 20, 3 << 20, 5 << 20, 40 << 20):
        np.ones(size, np.uint8)

if sys.argv[1] == "keep":
    assert keep_freed_memory()
make_arrays()
before = faults()
for _ in range(10):
    make_arrays()
print(faults() - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")


def faults_with(setting):
    """Page faults of a process that makes and frees the same arrays ten times."""
    command = [sys.executable, "-c", SCRIPT, setting]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@glibc
def test_the_same_arrays_made_again_take_no_page_faults():
    assert faults_with("keep") <= 20
    assert faults_with("default") > 500  # else the number above would say nothing


def test_says_whether_the_c_library_does_it():
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")


def test_the_peak_does_not_fall():
    before = peak_memory()
    assert before is None or peak_memory() >= before > 1 << 20
