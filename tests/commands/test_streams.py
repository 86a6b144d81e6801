"""Streams that are closed, broken, full or not UTF-8, and signals: the right result or one line."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt2.__main__ import main as begin
from minigpt2.cli import main
from minigpt2.commands import stats as stats_module
from tests.commands.conftest import Outcome
from tests.inputs.run import WAITING

REMARK = re.compile(rf".*answer is cut after.*|{WAITING.pattern}")  # of a slow machine, too

LITTLE = ("--max-new-tokens", "2")


@pytest.fixture
def shell(tmp_path, little_model, data):
    """Run a line of the shell in which $m is the command and $model a model; stderr is a file."""

    def shell(line, typed=b"", **environment):
        variables = {
            **os.environ,
            "m": f"{sys.executable} -m minigpt2",
            "model": f"--model={little_model} --max-new-tokens=2",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONWARNINGS": "error",
            **environment,
        }
        command = ["bash", "-c", f"set -o pipefail; {line}"]
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, input=typed, capture_output=True, timeout=60
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    return shell


@pytest.mark.parametrize(
    ("line", "code", "errors"),
    [
        ("$m answer Hello. $model >&-", 0, 0),
        ("$m answer Hello. $model 2>&-", 0, 0),
        ("$m answer Hello. $model <&- >&- 2>&-", 0, 0),
        ("$m --help >&-", 0, 0),
        ("$m nonsense >&-", 2, 1),
        ("$m nonsense 2>&-", 2, 0),
        ("$m nonsense 2>/dev/full", 2, 0),
        ("$m chat $model <&-", 0, 0),
        ("$m generate $model <&-", 0, 0),
        ("$m generate Hello. $model --samples 40 | true", 128 + signal.SIGPIPE, 0),
        ("$m answer Hello. $model >/dev/full", 2, 1),
    ],
)
def test_a_stream_that_is_closed_broken_or_full(shell, line, code, errors):
    outcome = shell(line)
    assert outcome.code == code, outcome.err
    lines = [line for line in outcome.err.splitlines() if not REMARK.fullmatch(line)]
    assert len(lines) == errors and all(line.startswith("minigpt2: ") for line in lines), lines


@pytest.mark.parametrize(
    ("ending", "errors"), [(">&- 2>&- <&-", 0), ("| true", 0), (">/dev/full", 1)]
)
def test_a_run_ends_well_without_a_reader(shell, tmp_path, ending, errors):
    line = "$m train data.json ${model%% *} --steps 1 --samples 1 --out run " + ending
    outcome = shell(line)
    assert outcome.code == 0 and outcome.err.count("\n") == errors, outcome.err
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"checkpoint-000001", "report.html", "summary.json", "log.jsonl"} <= names
    assert "<svg" in (tmp_path / "run" / "report.html").read_text()


def test_a_file_never_gets_what_a_closed_stream_was_to_print(shell, tmp_path):
    outcome = shell("$m evaluate data.json ${model%% *} --answers false --out n.json >&- 2>&-")
    assert outcome.code == 0
    assert (tmp_path / "n.json").read_text().startswith("{")


def test_input_that_is_not_utf_8(shell):
    outcome = shell("$m generate $model", b"caf\xe9\n", PYTHONIOENCODING="utf-8:strict")
    assert outcome.code == 2 and outcome.out == b""
    assert outcome.err == "minigpt2: standard input is not UTF-8 text: it holds \\xe9\n"
    outcome = shell("$m chat $model", b"caf\xe9\nHello.\n", PYTHONIOENCODING="utf-8:strict")
    assert outcome.code == 0
    first, second = outcome.err.splitlines()
    assert first == "this line is not UTF-8 text: it holds \\xe9" and "tokens/s" in second


@pytest.mark.parametrize("command", ["answer", "generate"])
def test_a_text_on_the_command_line_that_is_not_utf_8(shell, command):
    outcome = shell(f"$m {command} $'caf\\xe9' $model")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "is not UTF-8 text: it holds \\xe9" in outcome.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_that_lacks_characters(shell, tmp_path, encoding):
    text = '[{"instruction": "漢é", "output": "…"}, {"instruction": "b", "output": "漢 漢"}]'
    (tmp_path / "odd.json").write_text(text, encoding="utf-8")
    outcome = shell("$m show odd.json ${model%% *}", PYTHONIOENCODING=encoding)
    assert outcome.code == 0 and outcome.err == ""
    out = outcome.out.decode(encoding)
    assert ("漢" in out) == (encoding == "utf-8") and ("\\u6f22" in out) == (encoding != "utf-8")
    assert ("\\xe9" in out) == (encoding == "ascii")


# Signals.

AT_IMPORT = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *rest):
        if name == "minigpt2.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from minigpt2.__main__ import main
sys.exit(main())
"""


def notice_ctrl_c():
    """Undo what the shell does for a command in the background: it ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_while_the_program_is_loaded_is_quiet():
    words = [sys.executable, "-c", AT_IMPORT]
    done = subprocess.run(words, capture_output=True, preexec_fn=notice_ctrl_c)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.fixture
def handlers():
    """Leave the handlers of signals as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_its_own_code(
    monkeypatch, capsys, handlers, number, data, little_model
):
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    monkeypatch.setattr(stats_module, "lengths_of", lambda _: os.kill(os.getpid(), number))
    assert main(["stats", str(data), "--model", str(little_model)]) == 128 + number
    assert capsys.readouterr().err == "minigpt2: stopped\n"


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch, handlers, data, little_model):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # as nohup does
    monkeypatch.setattr(sys, "argv", ["minigpt2", "stats", str(data), f"--model={little_model}"])
    assert begin() == 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert signal.getsignal(number) is signal.SIG_IGN


class Terminated:
    """Standard input at which the program is told to end."""

    encoding = "utf-8"

    def isatty(self):
        """No."""
        return False

    def readline(self, size=-1):
        """Send SIGTERM instead of a line."""
        os.kill(os.getpid(), signal.SIGTERM)
        return "Hello.\n"


def test_a_chat_that_waits_for_a_line_can_be_ended(monkeypatch, capsys, handlers, little_model):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(sys, "stdin", Terminated())
    assert main(["chat", str(little_model), *LITTLE]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "minigpt2: stopped\n"
