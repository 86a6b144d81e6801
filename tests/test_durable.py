"""Durable folders: each appears whole and disappears whole, and one process at a time writes it."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from errno import EACCES, EEXIST, EIO, ENOLCK, ENOSPC
from pathlib import Path

import pytest

from minigpt2 import durable
from minigpt2.durable import (
    FolderLock,
    make_folder,
    new_folder,
    remove_folder,
    remove_leftovers,
)
from minigpt2.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def names(folder="."):
    """What a folder holds, hidden names too."""
    return sorted(os.listdir(folder))


def fill(path, stop=None):
    """Write a new folder that holds a file, or stop in the middle."""
    with new_folder(path) as folder:
        (folder / "a").write_text("1")
        if stop:
            raise stop


@pytest.fixture
def calls(monkeypatch):
    """The calls that order what reaches the disk, with the names that they name."""
    recorded = []

    def record(name):
        call = getattr(os, name)

        def recording(*arguments, **options):
            first = arguments[0]
            if isinstance(first, int):
                first = os.readlink(f"/proc/self/fd/{first}")
            short = [Path(first).name, *(Path(a).name for a in arguments[1:2] if name == "rename")]
            recorded.append(
                (name, *("HIDDEN" if durable.HIDDEN.fullmatch(s) else s for s in short))
            )
            return call(*arguments, **options)

        monkeypatch.setattr(os, name, recording)

    for name in ("fsync", "rename", "mkdir"):
        record(name)
    return recorded


def fail_at(monkeypatch, name, number, *, after=0):
    """Let a function of os fail once, after so many calls that succeed."""
    call, count = getattr(os, name), iter(range(1000))

    def failing(*arguments, **options):
        if next(count) == after:
            raise OSError(number, os.strerror(number))
        return call(*arguments, **options)

    monkeypatch.setattr(os, name, failing)


def test_a_new_folder_is_fsynced_renamed_and_its_name_is_fsynced(calls):
    with new_folder(Path("run/model")) as folder:
        assert folder.parent == Path("run") and names("run") == [folder.name]
        (folder / "a").write_text("1")
        (folder / "b").mkdir()
        (folder / "b/c").write_text("2")
    above = Path.cwd().name
    made = [("mkdir", "run"), ("fsync", above), ("mkdir", "HIDDEN"), ("mkdir", "b")]
    assert calls[:4] == made
    inside = [("fsync", "c"), ("fsync", "b"), ("fsync", "a"), ("fsync", "HIDDEN")]
    assert sorted(calls[4:8]) == sorted(inside) and calls.index(inside[0]) < calls.index(inside[1])
    assert calls[7:] == [inside[3], ("rename", "HIDDEN", "model"), ("fsync", "run")]
    assert names("run") == ["model"] and names("run/model") == ["a", "b"]
    assert Path("run/model/b/c").read_text() == "2"


@pytest.mark.parametrize("failure", [OSError(ENOSPC, "full"), KeyboardInterrupt(), ValueError()])
def test_when_filling_fails_nothing_is_left(failure):
    kind = UserError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(kind) as raised:
        fill(Path("model"), failure)
    assert names() == []
    if kind is UserError:
        assert str(raised.value) == "model cannot be written: full; free some space on its disk"


def test_a_folder_that_exists_is_spared():
    make_folder(Path("model"))
    Path("model/precious").write_text("old")
    with pytest.raises(UserError, match=r"^model exists already"):
        fill(Path("model"))
    assert names() == ["model"] and names("model") == ["precious"]


@pytest.mark.parametrize("name", ["mkdir", "fsync", "rename", "open"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_call_that_fails_leaves_no_half_of_a_folder(monkeypatch, name, after):
    with monkeypatch.context() as patch, suppress(UserError):
        fail_at(patch, name, EIO, after=after)
        fill(Path("model"))
    assert names() in ([], ["model"])
    assert not names() or Path("model/a").read_text() == "1"


def test_a_failed_fsync_is_an_error_and_is_not_called_again(monkeypatch):
    count = []

    def fail(file):
        count.append(file)
        raise OSError(EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"^model cannot be written: Input/output error; its disk"):
        fill(Path("model"))
    assert len(count) == 1 and names() == []


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(monkeypatch):
    fail_at(monkeypatch, "scandir", EACCES)
    with pytest.raises(UserError, match=r"^model cannot be written: Permission denied"):
        fill(Path("model"))


def test_folders_above_are_made_and_their_names_are_fsynced(calls):
    for _ in range(2):
        make_folder(Path("a/b/c"))
    above = Path.cwd().name
    expected = [("mkdir", "a"), ("fsync", above), ("mkdir", "b"), ("fsync", "a"), ("mkdir", "c")]
    assert calls == [*expected, ("fsync", "b")]


def test_a_folder_that_another_process_makes_meanwhile_will_do(monkeypatch):
    mkdir = os.mkdir

    def overtaken(path, *mode):
        mkdir(path, *mode)
        raise FileExistsError(EEXIST, "File exists")

    monkeypatch.setattr(os, "mkdir", overtaken)
    make_folder(Path("a/b"))
    assert names("a") == ["b"]


def test_a_file_is_no_folder():
    Path("file").write_text("precious")
    with pytest.raises(UserError, match=r"^file/model cannot be written: Not a directory"):
        fill(Path("file/model"))
    assert names() == ["file"]


def test_a_folder_that_is_removed_first_loses_its_name(calls, monkeypatch):
    make_folder(Path("run/old"))
    Path("run/old/a").write_text("1")
    calls.clear()
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda *a, **k: calls.append(("unlink",)) or unlink(*a, **k))
    remove_folder(Path("run/old"))
    assert calls == [("rename", "old", "HIDDEN"), ("fsync", "run"), ("unlink",)]
    assert names("run") == []
    with pytest.raises(UserError, match=r"^run/old cannot be written: No such file"):
        remove_folder(Path("run/old"))


def test_what_a_killed_run_left_is_removed_and_nothing_else(monkeypatch):
    def killed(*paths, **options):
        raise SystemExit

    make_folder(Path("old"))
    Path("old/a").write_text("1")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        for act in (lambda: remove_folder(Path("old")), lambda: fill(Path("new.d"), SystemExit)):
            with pytest.raises(SystemExit):
                act()
    durable.hidden_name(Path("file.json")).write_text("half")
    durable.hidden_name(Path("link")).symlink_to("mine", target_is_directory=True)
    make_folder(Path("mine"))
    Path("mine/.hidden").write_text("precious")
    Path(".hidden").write_text("precious")
    left = [name for name in names() if name not in (".hidden", "mine")]
    assert len(left) == 4
    assert remove_leftovers(Path()) == left
    assert names() == [".hidden", "mine"] and names("mine") == [".hidden"]
    assert remove_leftovers(Path()) == []


def test_a_leftover_that_cannot_be_removed_is_named(monkeypatch):
    hidden = durable.hidden_name(Path("model"))
    hidden.write_text("half")
    fail_at(monkeypatch, "unlink", EACCES)
    with pytest.raises(UserError, match=f"^{hidden} cannot be written: Permission denied"):
        remove_leftovers(Path())


HOLDER = """
import sys, time
from pathlib import Path
from minigpt2.durable import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not durable.fcntl, reason="needs flock")
def test_a_lock_names_its_process_and_dies_with_it():
    make_folder(Path("run"))
    command = [sys.executable, "-c", HOLDER, "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as holder:
        try:
            assert holder.stdout.readline() == b"locked\n"
            words = f"^run is in use: process {holder.pid} on .* is writing it; choose another"
            for _ in range(2):
                with pytest.raises(UserError, match=words), FolderLock(Path("run")):
                    pass
        finally:
            holder.send_signal(signal.SIGKILL)
    for _ in range(2):
        with FolderLock(Path("run")):
            assert Path("run/lock").read_text().startswith(f"process {os.getpid()} on ")


@pytest.mark.skipif(not durable.fcntl, reason="needs flock")
def test_two_runs_of_one_process_exclude_each_other():
    with FolderLock(Path()) as lock:
        assert lock.folder == Path()
        with pytest.raises(UserError, match=f"is in use: process {os.getpid()} on "):
            FolderLock(Path()).__enter__()
    with FolderLock(Path()):
        pass


def test_a_folder_that_is_not_the_one_that_was_locked_is_refused():
    make_folder(Path("run"))
    with FolderLock(Path("run")) as lock:
        lock.require()
        os.rename("run", "moved")
        for replace in (False, True):
            if replace:
                make_folder(Path("run"))
            with pytest.raises(UserError, match=r"^run was moved or removed while the run wrote"):
                lock.require()
        os.rmdir("run")
        os.rename("moved", "run")
        lock.require()


@pytest.mark.skipif(not durable.fcntl, reason="needs flock")
def test_a_lock_whose_file_was_removed_is_taken_again_unless_another_has_it():
    with FolderLock(Path()) as lock:
        os.unlink("lock")
        lock.require()
        with pytest.raises(UserError, match="is in use"), FolderLock(Path()):
            pass
        os.unlink("lock")
        with FolderLock(Path()), pytest.raises(UserError, match="is in use"):
            lock.require()


def test_a_lock_that_is_a_link_overwrites_nothing():
    Path("precious").write_text("mine")
    Path("lock").symlink_to("precious")
    with pytest.raises(UserError, match=r"^lock cannot be written: "), FolderLock(Path()):
        pass
    assert Path("precious").read_text() == "mine" and Path("lock").is_symlink()


@pytest.mark.parametrize("has_fcntl", [True, False])
def test_where_there_are_no_locks_anybody_enters(monkeypatch, has_fcntl):
    def fail(*arguments):
        raise OSError(ENOLCK, "No locks available")

    if has_fcntl:
        monkeypatch.setattr(durable.fcntl, "flock", fail)
    else:
        monkeypatch.setattr(durable, "fcntl", None)
    with FolderLock(Path()), FolderLock(Path()):
        pass


def test_a_lock_on_a_full_disk_leaves_no_empty_file(monkeypatch):
    def fail():
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.socket, "gethostname", fail)  # called before the file is written
    with pytest.raises(UserError, match=r"^lock cannot be written: No space"):
        FolderLock(Path()).__enter__()
    assert names() == []
