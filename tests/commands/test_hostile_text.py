"""Texts and names from outside reach neither a terminal's codes nor the markup of a library."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from minigpt2.cli import main
from minigpt2.data.tokenizer import Tokenizer
from tests.commands.conftest import Outcome
from tests.fake_terminal import CODES, FakeTerminal, control_codes

CODED = "\x1b]0;title\x07\x1b[2J\x9b1A\r\x00\u202eder\u2066\u2028"
SPELLED = "\\x1b]0;title\\x07\\x1b[2J\\x9b1A"
MARKUP = "net.example:key:8 :on: [bold]b[/bold] [/y] [link=x]"
LITTLE = ("--steps", "1", "--samples", "2", "--max-new-tokens", "2", "--validation", "0.4")


@pytest.fixture
def on_terminal(monkeypatch, tmp_path):
    """Run a command in an empty folder, in this process, on a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")

    def run(*arguments):
        out, err = FakeTerminal(), FakeTerminal()
        with monkeypatch.context() as streams:
            streams.setattr(sys, "stdout", out)
            streams.setattr(sys, "stderr", err)
            try:
                code = main([str(a) for a in arguments])
            except SystemExit as stop:
                code = stop.code
        assert control_codes(out.text() + err.text()) == set()
        return Outcome(code, out.text(), err.text())

    return run


def write_data(path, text):
    """Write questions and answers that all hold a text; some questions are nearly the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"instruction": f"What is {n}? {text}", "output": f"{text} {n}"} for n in "abcdefgh"]
    path.write_text(json.dumps(entries))
    return path


COMMANDS = {
    "train": LITTLE,
    "stats": ("--validation", "0.4"),
    "show": ("--count", "1"),
    "evaluate": ("--max-new-tokens", "2"),
    "imbalance": ("--count", "2"),
    "plan": ("--time", "false"),
}


@pytest.mark.parametrize("command", ["train", "stats", "show", "evaluate"])
def test_a_text_of_the_data_is_shown_and_not_obeyed(on_terminal, little_model, command):
    write_data(Path("data.json"), f"{CODED} {MARKUP}")
    outcome = on_terminal(command, "data.json", "--model", little_model, *COMMANDS[command])
    assert outcome.code == 0, outcome.err
    if command in ("train", "stats"):
        assert SPELLED in outcome.out and MARKUP in outcome.out


@pytest.mark.parametrize("command", ["answer", "generate", "chat"])
def test_a_text_of_a_model_is_shown_and_not_obeyed(
    on_terminal, run, little_model, monkeypatch, command
):
    text = f"{CODED} {MARKUP}"
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: text)
    monkeypatch.setattr(Tokenizer, "decode_stream", lambda self, ids: iter([text, ""]))
    arguments = [command, "--model", little_model, "--max-new-tokens", "2"]
    arguments += [] if command == "chat" else ["Hello."]
    monkeypatch.setattr(sys, "stdin", FakeLines("Hello.\n"))
    outcome = on_terminal(*arguments)
    assert outcome.code == 0 and SPELLED in outcome.out and MARKUP in outcome.out
    monkeypatch.setattr(sys, "stdin", FakeLines("Hello.\n"))
    outcome = run(*arguments)  # into a pipe
    assert outcome.code == 0 and text in outcome.out


class FakeLines:
    """Standard input that is no terminal."""

    encoding = "utf-8"

    def __init__(self, text):
        self.lines = text.splitlines(keepends=True)

    def isatty(self):
        """No."""
        return False

    def readline(self, size=-1):
        """The next line."""
        return self.lines.pop(0) if self.lines else ""


NAME = "y] [bold]x[/bold] :key: $\\frac$ {} \x1b]0;title\x07 \u202ex \udce9 a\nb  c"
OUTPUTS = {
    "train": ("--out", "report.html"),
    "stats": ("--figure", "x.png"),
    "show": ("--html", "x.html"),
    "evaluate": ("--out", "x.json"),
    "imbalance": ("--figure", "x.svg"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_or_folder_may_have_any_name(on_terminal, little_model, command):
    data = write_data(Path("[") / f"{NAME}.json", "word")
    model = Path("models[") / NAME
    model.parent.mkdir(parents=True)
    model.symlink_to(little_model)
    option, ending = OUTPUTS.get(command, ("", ""))
    output = Path("out[") / NAME / ending
    output.parent.mkdir(parents=True)
    more = (option, output.parent if command == "train" else output) if option else ()
    outcome = on_terminal(command, f"--data={data}", "--model", model, *COMMANDS[command], *more)
    assert outcome.code == 0, outcome.err
    assert not option or output.stat().st_size
    if ending.endswith(("html", "json", "svg")):
        assert not CODES.search(output.read_text(encoding="utf-8"))


ERRORS = {
    "a file": (("train", "{}.json"), None),
    "a model": (("answer", "Hello.", "--model", "{}"), None),
    "a settings file": (("train", "--config", "{}"), None),
    "a value": (("train", "--steps", "{}"), None),
    "an option": (("train", "--{}"), None),
    "a command": (("{}",), None),
    "a word too many": (("train", "a.json", "{}"), None),
    "an output": (("stats", "a.json", "--figure", "{}.xyz"), None),
    "a template": (
        ("train", "data.json", "--template", "{}"),
        [{"prompt": "a", "completion": "b"}],
    ),
    "a field": (("train", "data.json"), [{"{}": "a"}]),
    "a column": (("train", "data.json", "--columns", '{{"instruction": "{}"}}'), [{"a": "b"}]),
    "a role": (("train", "data.json"), [{"messages": [{"role": "{}", "content": "x"}]}]),
}


@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.parametrize("text", [CODED.replace("\0", ""), MARKUP], ids=["codes", "markup"])
def test_an_error_shows_names_and_obeys_none(on_terminal, case, text):
    arguments, entries = ERRORS[case]
    if entries:
        Path("data.json").write_text(json.dumps(entries).replace("{}", json.dumps(text)[1:-1]))
    outcome = on_terminal(*(word.replace("{}", text) for word in arguments))
    assert outcome.code == 2 and outcome.err.count("\n") == 1, outcome.err


LONG = "x" * 1_000_000


@pytest.mark.parametrize("text", [CODED, MARKUP, LONG], ids=["codes", "markup", "long"])
def test_the_name_of_a_tensor_is_shown_and_not_obeyed(on_terminal, little_model, tmp_path, text):
    folder = tmp_path / "model"
    shutil.copytree(little_model, folder)
    tensors = dict(load_file(folder / "model.safetensors"))
    save_file({**tensors, f"h.0.{text}": tensors["ln_f.bias"]}, folder / "model.safetensors")
    outcome = on_terminal("answer", "Hello.", "--model", folder)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and len(outcome.err) < 3000
