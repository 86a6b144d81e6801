"""What is wrong on a command line is named in plain words, in one line."""

import signal

import pytest

from minigpt2.cli import COMMANDS, main
from minigpt2.signals import Stopped
from tests.test_signals import error_after

PYTHON = ("<class", "typing", "Union", "Parser key", "subcommand", "NoneType", "Subtypes")

LINES = {
    "train --context abc": "context must be a whole number, not abc",
    "train --loss foo": "loss must be token or example, not foo",
    "train --learning-rate x": "learning_rate must be a number, not x",
    "train --learning-rate nan": "learning_rate must be a number, not nan",
    "train --recompute=maybe": "recompute must be true or false, not maybe",
    "train --columns x": 'columns must be a mapping, such as {"instruction": "ask"}, not x',
    "stats data.json --contexts 3": "contexts must be a list, such as [1, 2], not 3",
    "train --stesp 3": "there is no option --stesp; did you mean --steps?",
    "train --bach-size=3": "there is no option --bach-size; did you mean --batch-size?",
    "train --epochs": "--epochs needs a value",
    "train data.json more.json": "unexpected: more.json",
    "evaluate": "evaluate needs data (file or folder)",
    "trian": "there is no command 'trian'; did you mean 'train'?",
    "": "a command is missing: train, reward",
}


def line_of(capsys, *arguments):
    """The one line that a command writes, which has no word of Python's or of the parser's."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert not [word for word in PYTHON if word in output.err]
    return output.err


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_that_is_wrong(capsys, line):
    words = line.split()
    error = line_of(capsys, *words)
    assert error.startswith(f"minigpt2: {LINES[line]}")
    command = f"{words[0]} " if words and words[0] in COMMANDS else ""
    assert error.endswith(f" (see minigpt2 {command}--help)\n")


def stopped_in_a_lock(arguments):
    """What a command does whose signal comes where a library waits for a lock."""
    raise error_after(Stopped(signal.SIGTERM))


def test_a_stop_that_a_library_answers_with_an_error_is_a_stop(capsys, monkeypatch):
    monkeypatch.setattr("minigpt2.cli.run", stopped_in_a_lock)
    assert main([]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "minigpt2: stopped\n"


def test_a_bug_is_no_stop(monkeypatch):
    monkeypatch.setattr("minigpt2.cli.run", lambda arguments: {}["missing"])
    with pytest.raises(KeyError):
        main([])
