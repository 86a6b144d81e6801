"""Available memory: that of the machine, of the container around it, and of a GPU."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from minigpt2 import memory
from minigpt2.planning.available import Available, memory_of_device, memory_of_machine

GB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A function that puts this process into groups with limits; the machine has 16 GB, 12 free."""

    def put(line, files):
        (tmp_path / "cgroup").write_text(f"1:name=systemd:/\n{line}\n")
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"{content}\n")

    machine = SimpleNamespace(total=16 * GB, available=12 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    (tmp_path / "meminfo").write_text(f"SwapTotal:  {2 * GB // 1024} kB\n")
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "LIMITS", tmp_path / "limits")
    return put


def test_a_machine_has_its_memory_and_its_swap_in_all_and_its_memory_free(groups):
    assert memory_of_machine() == memory_of_device(np) == ("this machine", 18 * GB, 12 * GB)


def test_a_group_without_a_limit_changes_nothing(groups):
    groups("0::/here", {"limits/here/memory.max": "max", "limits/here/memory.current": GB})
    assert memory_of_machine().place == "this machine"
    unlimited = {"memory.limit_in_bytes": 2**63 - 4096, "memory.usage_in_bytes": 0}
    old = {f"limits/memory/{name}": text for name, text in unlimited.items()}
    groups("4:cpuset,memory:/gone", old | {"limits/memory/memory.stat": ""})
    assert memory_of_machine() == ("this machine", 18 * GB, 12 * GB)


def test_the_smallest_group_around_a_process_is_its_container(groups):
    files = {
        "limits/a/memory.max": 8 * GB,
        "limits/a/memory.current": 7 * GB,
        "limits/a/memory.stat": f"anon {2 * GB}\ninactive_file {5 * GB}",
        "limits/a/b/memory.max": 9 * GB,
        "limits/a/b/memory.current": 8 * GB,
        "limits/a/b/memory.stat": "inactive_file 0",
    }
    groups("0::/a/b", files)
    assert memory_of_machine() == ("this container", 10 * GB, GB)


def test_a_container_of_an_old_system(groups):
    files = {
        "limits/memory/x/memory.limit_in_bytes": 4 * GB,
        "limits/memory/x/memory.usage_in_bytes": 5 * GB,
        "limits/memory/x/memory.stat": "total_inactive_file 0",
    }
    groups("4:memory:/x", files)
    assert memory_of_machine() == ("this container", 6 * GB, 0)


def test_a_gpu_says_what_it_has_and_an_emulated_one_has_none():
    runtime = SimpleNamespace(memGetInfo=lambda: (3 * GB, 80 * GB))
    gpu = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    assert memory_of_device(gpu) == Available("the GPU", whole=80 * GB, free=3 * GB)
    assert memory_of_device(SimpleNamespace(machine=1)) is None
