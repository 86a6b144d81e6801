"""Compile: a text becomes a library once, and mistakes in it are reported with their lines."""

import os
import re
import stat
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from minigpt2.device import compile as compiling
from minigpt2.device.compile import EmulatorError, build, cached_folder
from minigpt2.device.emulator import Machine
from minigpt2.errors import UserError
from tests.device.small import GOOD, line_of, run, spoilt
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


def test_the_cache_is_this_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    before = os.umask(0)
    try:
        folder = cached_folder(["a"], lambda path: None)
    finally:
        os.umask(before)
    for path in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert cached_folder(["a"], None) == folder


def seem_anothers(path):
    """Change how a folder looks: as root nothing else can be tested, and as a user nothing less."""
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (0, lambda path: path.chmod(0o770), "which other users can write: remove it, or let XDG"),
        (1, lambda path: path.chmod(0o707), "which other users can write"),
        (2, lambda path: path.chmod(0o777), "which other users can write"),
        (2, lambda path: path.chmod(0o1777), "which other users can write"),
        (3, lambda path: path.chmod(0o777), "which other users can write"),
        (0, seem_anothers, "which belongs to another user"),
        (1, seem_anothers, "which belongs to another user"),
        (2, seem_anothers, "which belongs to another user"),
    ],
)
def test_no_library_is_loaded_from_a_folder_that_others_can_write(
    place, change, words, tmp_path, monkeypatch
):
    if change is seem_anothers and os.getuid():
        pytest.skip("only root can give a folder away")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cached_folder(["a"], lambda path: None)
    changed = [folder, *folder.parents][place]
    change(changed)
    with pytest.raises(UserError) as refused:
        cached_folder(["a"], None)
    assert words in str(refused.value) and str(tmp_path / "minigpt2") in str(refused.value)


def test_a_cache_in_a_folder_that_all_can_write_and_a_link_are_good(tmp_path, monkeypatch):
    (tmp_path / "all").mkdir(mode=0o777)
    (tmp_path / "all").chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "all"))
    folder = cached_folder(["a"], lambda path: None)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "minigpt2").symlink_to(folder.parent.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert cached_folder(["a"], None).samefile(folder)


@pytest.mark.skipif(bool(os.getuid()), reason="only root can give a link away")
def test_no_library_is_loaded_through_another_users_link(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    folder = cached_folder(["a"], lambda path: None)
    (tmp_path / "minigpt2").symlink_to(folder.parent.parent)
    os.chown(tmp_path / "minigpt2", 12345, -1, follow_symlinks=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="belongs to another user"):
        cached_folder(["a"], None)


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="compiles kernels with g"):
        build(GOOD + "// not built before\n", (), compiling.FAST)


def test_a_kernel_is_linked_with_gold_where_there_is_one_and_without(monkeypatch):
    which = compiling.shutil.which
    monkeypatch.setattr(compiling.shutil, "which", {"ld.gold": "/usr/bin/ld.gold"}.get)
    assert compiling.quick_linker() == ["-fuse-ld=gold"]
    monkeypatch.setattr(
        compiling.shutil, "which", lambda name: None if name == "ld.gold" else which(name)
    )
    assert compiling.quick_linker() == []
    on = Machine(check=True)
    run(on, GOOD + "// linked without gold\n", "matmul")  # a text that was not built before
    assert on.findings == []


def test_shared_memory_has_a_section_for_each_kernel_and_lines_stay_what_they_are():
    lines = compiling.for_the_cpu(GOOD).splitlines()
    number = 0
    for text in lines:
        directive = re.match(r"#line (\d+)", text)
        number = int(directive[1]) - 1 if directive else number + 1
        if "[first barrier]" in text:
            assert number == line_of("[first barrier]")
    assert sum("shared_matmul" in text for text in lines) == 1
