"""Environments: what a command does where variables, folders or streams are not as usual."""

import os
import subprocess
import sys
from errno import EMFILE, ENOSPC
from pathlib import Path

import pytest

from minigpt2 import cli, terminal
from minigpt2.device import compile as compile_module
from minigpt2.errors import UserError
from tests.kernels.support import needs_compiler

ROOT = Path(__file__).parent.parent.parent


def started(*arguments, cwd, python=(), stdin=subprocess.DEVNULL, **environment):
    """Start a command as a process in a folder, with more variables; returns how it ended."""
    names = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *python, "-m", "minigpt2", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=names, stdin=stdin, capture_output=True, text=True)


def assert_refused(done, words):
    """The command ended with 2 and one line that has these words."""
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr


def test_without_docstrings_help_says_why_there_is_none(tmp_path):
    done = started("train", "--help", cwd=tmp_path, python=["-OO"])
    assert_refused(done, "docstrings, which python -OO removes")


@pytest.mark.parametrize("settings", [b"text.usetex: True\nfigure.dpi: 1", b""], ids=str)
def test_a_figure_is_drawn_whatever_matplotlib_is_to_do_elsewhere(tmp_path, data, settings):
    pytest.importorskip("matplotlib")
    (tmp_path / "matplotlibrc").write_bytes(settings)
    how = {"cwd": tmp_path, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = started("stats", data, "--figure", "lengths.png", **how)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_settings_that_matplotlib_cannot_read_are_one_line(tmp_path, data):
    pytest.importorskip("matplotlib")
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe bad")
    done = started("stats", data, "--figure", "lengths.png", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "matplotlib cannot read its own settings" in done.stderr


@pytest.mark.parametrize("width", ["0", ""])
def test_a_width_of_0_columns_is_none(tmp_path, data, width):
    outputs = [
        started("show", data, "--first", 1, cwd=tmp_path, **how).stdout
        for how in ({}, {"COLUMNS": width})
    ]
    assert outputs[0] == outputs[1] != ""


@pytest.mark.parametrize("command", [("stats",), ("train", "--samples", 0, "--out", "{}/run")])
def test_a_current_folder_that_was_removed_is_one_line(tmp_path, data, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    program = (
        f"import os; os.rmdir({str(gone)!r}); from minigpt2.__main__ import main; exit(main())"
    )
    arguments = [str(part).format(tmp_path) for part in (*command, "--data", data)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert_refused(done, "the current folder cannot be used (No such file or directory)")
    assert not (tmp_path / "run").exists()


def test_standard_input_that_cannot_be_read_is_named(tmp_path):
    with open(tmp_path / "written", "wb") as stdin:
        done = started("generate", "--max-new-tokens", 3, cwd=tmp_path, stdin=stdin)
    assert_refused(done, "standard input cannot be read: Bad file descriptor")


def test_standard_input_in_another_encoding_is_one_line(tmp_path):
    (tmp_path / "text").write_bytes(b"Koln\n")
    with open(tmp_path / "text", "rb") as stdin:
        how = {"cwd": tmp_path, "stdin": stdin, "PYTHONIOENCODING": "utf-16"}
        done = started("generate", "--max-new-tokens", 3, **how)
    assert done.returncode == 2
    assert "standard input is not UTF-16 text" in done.stderr.encode().replace(b"\0", b"").decode()


def test_an_argument_that_the_locale_does_not_know_is_said_to_be_so(tmp_path):
    how = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = started("generate", "K\N{LATIN SMALL LETTER O WITH DIAERESIS}ln", cwd=tmp_path, **how)
    assert_refused(done, "prompt is not ASCII text: it holds \\xc3")


def test_what_is_read_from_standard_input_has_a_bound(monkeypatch):
    monkeypatch.setattr(terminal, "LONGEST_INPUT", 5)
    with open("/dev/zero", encoding="utf-8") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        for read in (terminal.read_all, terminal.read_line):
            with pytest.raises(UserError, match="is longer than 5 characters"):
                read()


@pytest.mark.parametrize(
    ("number", "line"),
    [(EMFILE, "minigpt2: Too many open files"), (ENOSPC, "standard output: No space left")],
)
def test_an_error_without_a_file_is_that_of_the_output_only_where_it_can_be(
    monkeypatch, capfd, number, line
):
    def run(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setattr(cli, "close_output", lambda: None)
    assert cli.main([]) == 2
    assert line in capfd.readouterr().err


def test_the_cache_of_kernels_follows_the_rules_for_such_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, base in (("/elsewhere", "/elsewhere"), ("", tmp_path / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert compile_module.cache_folder() == Path(base) / "minigpt2/kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert compile_module.cache_folder() == tmp_path / ".cache/minigpt2/kernels"
    for value in ("", "~"):
        monkeypatch.setenv("HOME", value)
        with pytest.raises(UserError, match="let XDG_CACHE_HOME name a folder"):
            compile_module.cache_folder()


def test_a_cache_of_kernels_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be made: File exists; let XDG_CACHE"):
        compile_module.cached_folder(["x"], lambda folder: None)


@needs_compiler
def test_a_compiler_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"compiled with /bin/false .*; let CXX name one"):
        compile_module.machine_objects("/bin/false", False)
