"""How a command is run: in this process for speed, or in one of its own as a user does."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

from minigpt2.cli import main
from minigpt2.reports.run_log import RunLog


class Outcome(NamedTuple):
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, tmp_path, monkeypatch, no_curves):
    """Run a command in an empty folder, within this process; the page of a run has no curves."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        return Outcome(code, *capsys.readouterr())

    return run


def in_a_process(*arguments, cwd, interpreter=sys.executable, typed=None):
    """Run `python -m minigpt2 ...` as a process of its own, with a text on its standard input."""
    command = [interpreter, "-m", "minigpt2", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "100", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        command, cwd=cwd, input=typed, capture_output=True, text=True, env=environment
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def data(tmp_path):
    """A data set of twelve questions."""
    path = tmp_path / "data.json"
    entries = [
        {"instruction": f"Count to {i}.", "input": "" if i % 3 else "slowly", "output": f"1 to {i}"}
        for i in range(12)
    ]
    path.write_text(json.dumps(entries))
    return path


class Killed(BaseException):
    """The end of a process that does nothing more."""


def at_step(step, act):
    """What logs a step, and then does something."""
    log_step = RunLog.add_step

    def add_step(log, result, steps, *, printed):
        log_step(log, result, steps, printed=printed)
        if result.step == step:
            act()

    return add_step


def end():
    """End as a process does that is killed."""
    raise Killed


@pytest.fixture
def killed(train, monkeypatch):
    """Train, as the module's own fixture does, until a step is logged, and there end."""

    def kill(step, *options):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(RunLog, "add_step", at_step(step, end))
            train(*options)

    return kill
