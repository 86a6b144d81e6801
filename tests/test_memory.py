"""Memory: freed arrays stay with the process."""

import platform
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace

import pytest

from minigpt2 import memory
from minigpt2.errors import UserError
from minigpt2.memory import keep_freed_memory, peak_memory

SCRIPT = """
import resource
import sys
import numpy as np
from minigpt2.errors import UserError
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


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_the_status_of_the_process_the_system_is_asked(
    monkeypatch, tmp_path, platform, unit
):
    usage = SimpleNamespace(ru_maxrss=7)
    stand_in = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    monkeypatch.setattr(memory, "resource", stand_in)
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert peak_memory() == 7 * unit
    (tmp_path / "status").write_text("Name: python\n")  # of a kernel that leaves the peak out
    assert peak_memory() == 7 * unit
    monkeypatch.setattr(memory, "resource", None)
    assert peak_memory() is None


def test_on_windows_there_is_no_such_module(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resource", None)
    spec = spec_from_file_location("memory_on_windows", memory.__file__)
    on_windows = module_from_spec(spec)
    spec.loader.exec_module(on_windows)
    on_windows.STATUS = tmp_path / "status"
    assert on_windows.resource is None and on_windows.peak_memory() is None


def test_the_peak_does_not_fall():
    before = peak_memory()
    assert before is None or peak_memory() >= before > 1 << 20


def test_a_container_that_is_too_small_is_named(tmp_path, monkeypatch):
    for name, text in {"memory.max": "1000", "memory.current": "0", "memory.stat": ""}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "LIMITS", tmp_path)
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    memory.require_memory(1000, "it")
    with pytest.raises(UserError, match="it would take 0 MB, but this container has 0 MB"):
        memory.require_memory(1001, "it")
