"""Outputs: whole or not at all, and every error names its file."""

import os
import stat
import subprocess
import sys
from errno import EDQUOT, EINVAL, EIO, EISDIR, ENOSPC, ENOTSUP, EOPNOTSUPP, EPERM, EROFS
from pathlib import Path

import numpy as np
import pytest

from minigpt2 import outputs
from minigpt2.durable import new_folder
from minigpt2.errors import UserError
from minigpt2.outputs import (
    require_new_file,
    require_new_folder,
    whole_file,
    write_texts,
)
from minigpt2.reports.run_log import RunLog, claim_folder
from minigpt2.tensor_writer import write_tensors
from tests.commands.conftest import run  # noqa: F401
from tests.full_disk import nearly_full_disk

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def names():
    """What is in this folder."""
    return sorted(path.name for path in Path().iterdir())


def test_a_new_file_is_whole_or_absent():
    write_texts({Path("a.txt"): "one"})
    with pytest.raises(KeyboardInterrupt), whole_file(Path("b.txt")) as hidden:
        hidden.write_text("half")
        raise KeyboardInterrupt
    assert names() == ["a.txt"] and Path("a.txt").read_text() == "one"


def test_several_files_are_written_all_or_none():
    Path("b.txt").write_text("precious")
    with pytest.raises(UserError, match=r"b.txt exists already"):
        write_texts({Path("a.txt"): "one", Path("b.txt"): "two"})
    assert names() == ["b.txt"] and Path("b.txt").read_text() == "precious"


def test_half_a_character_is_written_as_its_code():
    write_texts({Path("a.txt"): "\ud800"})
    assert Path("a.txt").read_text() == r"\ud800"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_comes_meanwhile_is_spared(monkeypatch, has_links):
    if not has_links:

        def refuse(*paths):
            raise OSError(EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError, match=r"a.txt exists already"), whole_file(Path("a.txt")) as new:
        new.write_text("ours")
        Path("a.txt").write_text("theirs")
    assert names() == ["a.txt"] and Path("a.txt").read_text() == "theirs"
    write_texts({Path("b.txt"): "one"})
    assert names() == ["a.txt", "b.txt"]


def test_a_full_disk_leaves_nothing_and_names_the_file():
    tensors = {"x": np.zeros((500, 500), np.float32)}
    with nearly_full_disk(100_000):
        with pytest.raises(UserError, match=r"a.txt cannot be written: File too large"):
            write_texts({Path("b.txt"): "", Path("a.txt"): "a" * 200_000})
        with (
            pytest.raises(UserError, match="above/model cannot be written: File too large"),
            new_folder(Path("above/model")) as folder,
        ):
            write_tensors(folder / "x.safetensors", tensors, np.float32)
    assert names() == ["above"] and os.listdir("above") == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(ENOSPC, "free some space"), (EDQUOT, "remove some"), (EROFS, "choose"), (EIO, "check it")],
)
def test_what_ails_a_disk_and_what_to_do_about_it(number, remedy, monkeypatch):
    def fail(file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    words = rf"^a.txt cannot be written: {os.strerror(number)}; .*{remedy}"
    for replace in (False, True):
        with pytest.raises(UserError, match=words):
            write_texts({Path("a.txt"): "one"}, replace=replace)
    assert names() == []


def test_a_file_is_replaced_by_a_whole_one_where_that_is_asked_for():
    for text in ("old", "new"):
        write_texts({Path("a.txt"): text}, replace=True)
    with pytest.raises(KeyboardInterrupt), whole_file(Path("a.txt"), replace=True) as hidden:
        hidden.write_text("half")
        raise KeyboardInterrupt
    assert names() == ["a.txt"] and Path("a.txt").read_text() == "new"


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_and_its_name_are_fsynced(monkeypatch, replace):
    calls = []
    for name in ("fsync", "link", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, call=call: calls.append(name) or call(*a)
        )
    write_texts({Path("a.txt"): "one"}, replace=replace)
    assert calls == ["fsync", "replace" if replace else "link", "fsync"]


def test_a_file_system_whose_folders_cannot_be_fsynced_will_do(monkeypatch):
    def fail(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(EINVAL, "not here")

    monkeypatch.setattr(os, "fsync", fail)
    write_texts({Path("a.txt"): "one"})
    assert names() == ["a.txt"]


def test_a_full_disk_leaves_whole_lines_in_the_log():
    Path("run").mkdir()
    with (
        nearly_full_disk(1000),
        pytest.raises(UserError, match=r"run/log.jsonl cannot be written: "),
        RunLog(Path("run")) as log,
    ):
        for step in range(100):
            log.add({"step": step}, None)
    lines = Path("run/log.jsonl").read_text().splitlines()
    assert 0 < len(lines) < 100 and lines[-1] == f'{{"step": {len(lines) - 1}}}'


def test_the_first_file_that_a_full_disk_stops_is_named():
    Path("run").mkdir()
    with (
        nearly_full_disk(1000),
        pytest.raises(UserError, match=r"run/log.jsonl cannot be written: "),
        RunLog(Path("run")) as log,
    ):
        log.summary["long"] = {"text": "x" * 2000}
        log.add({"text": "x" * 2000}, None)
    assert os.listdir("run") == []  # nor an empty log
    Path("other").mkdir()
    with (
        nearly_full_disk(1000),
        pytest.raises(UserError, match=r"other/summary.json cannot be written: "),
        RunLog(Path("other")) as log,
    ):
        log.summary["long"] = {"text": "x" * 2000}


def test_two_runs_never_share_a_folder():
    first, second = (claim_folder(Path("run"), "data") for _ in range(2))
    with RunLog(first) as log:
        log.add({"step": 1}, None)
        with pytest.raises(UserError, match=r"run/log.jsonl exists already"):
            RunLog(second)
        assert log.entries() == [{"step": 1}]


def read_only(tmp_path):
    """A folder in which nobody may write; root may, so a file system without writing serves it."""
    folder = Path("/proc/self") if os.geteuid() == 0 else tmp_path / "read-only"
    folder.mkdir(mode=0o555, exist_ok=True)
    return folder


PLACES = {
    "nowhere/x.png": "there is no folder nowhere",
    "file/x.png": "there is no folder file",
    "file": "file exists already: choose another --figure, or move it",
    "folder": "folder exists already",
    "dangling": "dangling exists already",
    "x" * 300: "cannot be written: File name too long",
    "a\0b": "cannot be written: ",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_for_a_file_is_checked(place):
    Path("file").write_text("precious")
    Path("folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    before = names()
    with pytest.raises(UserError, match=PLACES[place]) as refusal:
        require_new_file(Path(place), "--figure")
    assert place in str(refusal.value) and names() == before


def test_a_place_for_a_file_that_can_be_written_is_left_as_it_is():
    require_new_file(None, "--figure")
    require_new_file(Path("x" * 250), "--figure")
    assert names() == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name")
@pytest.mark.parametrize("number", [EISDIR, EOPNOTSUPP])
def test_a_place_is_tried_where_each_file_has_a_name(number, monkeypatch):
    real, flags = os.open, []

    def refuse(path, flag, *mode, **options):
        flags.append(flag)
        if flag & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real(path, flag, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    require_new_file(Path("x.png"), "--figure")
    assert len(flags) == 2 and names() == []


def test_a_place_for_a_folder_is_checked(tmp_path):
    Path("file").write_text("precious")
    Path("full/inside").mkdir(parents=True)
    Path("empty").mkdir()
    for place, words in {
        "file": "file cannot be made: it is a file",
        "file/below": "file is a file",
        "full": "full already holds something: choose another --out",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(UserError, match=words):
            require_new_folder(Path(place), "--out")
    for place in ("empty", "new", "new/below/deep"):
        require_new_folder(Path(place), "--out")
    assert names() == ["empty", "file", "full"] and os.listdir("empty") == []


def test_a_folder_without_permission_is_refused(tmp_path):
    folder = read_only(tmp_path)
    with pytest.raises(UserError, match=r"x.png cannot be written: "):
        require_new_file(folder / "x.png", "--figure")
    with pytest.raises(UserError, match="run cannot be written: "):
        require_new_folder(folder / "run", "--out")


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "no.json", "--out", "nowhere/x.json"),
        ("stats", "no.json", "--figure", "nowhere/x.png"),
        ("imbalance", "no.json", "--figure", "nowhere/x.png"),
        ("show", "no.json", "--html", "nowhere/x.html"),
        ("train", "no.json", "--out", "file/run"),
        ("pretrain", "--out", "file/run"),
        ("almanac", "--out", "file/run"),
        ("download", "gpt2", "--out", "file/run"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_checks_its_output_before_it_works(arguments, run):  # noqa: F811
    Path("file").write_text("precious")
    outcome = run(*arguments)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and outcome.out == ""
    assert "no folder nowhere" in outcome.err or "file is a file" in outcome.err
    assert names() == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
@pytest.mark.parametrize("arguments", ["almanac --out x", "train --print-config"])
def test_a_full_disk_below_standard_output_is_named_once(arguments):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "minigpt2", *arguments.split()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert done.stderr == b"minigpt2: standard output: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.parametrize("error", [None, ENOTSUP, EIO])
def test_on_macos_a_file_reaches_the_disk_and_not_only_its_cache(tmp_path, monkeypatch, error):
    calls = []

    def control(file, command):
        calls.append(command)
        if error:
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(outputs.fcntl, "F_FULLFSYNC", "whole", raising=False)
    monkeypatch.setattr(outputs.fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("fsync"))
    (tmp_path / "x").touch()
    if error == EIO:
        with pytest.raises(OSError):
            outputs.fsync_file(tmp_path / "x")
    else:
        outputs.fsync_file(tmp_path / "x")
    assert calls == (["whole", "fsync"] if error == ENOTSUP else ["whole"])
