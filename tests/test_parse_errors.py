"""What is wrong on a command line or in a settings file is named in plain words."""

import pytest

from minigpt2.cli import COMMANDS, main, settings_class
from minigpt2.parse_errors import in_plain_words

PYTHON = ("<class", "typing", "Union", "Parser key", "subcommand", "NoneType", "Subtypes")

LINES = {
    "train --context abc": "context must be int, not abc",
    "train --loss foo": "loss must be {token,example}, not foo",
    "train --learning-rate x": "learning_rate must be float, not x",
    "train --learning-rate nan": "learning_rate must be float, not nan",
    "train --recompute=maybe": "recompute must be true/false, not maybe",
    "train --columns x": "columns must be mapping, not x",
    "stats data.json --contexts 3": "contexts must be list, not 3",
    "train --stesp 3": "there is no option --stesp; did you mean --steps?",
    "train --bach-size=3": "there is no option --bach-size; did you mean --batch-size?",
    "train --epochs": "--epochs needs a value",
    "train data.json more.json": "unexpected: more.json",
    "evaluate": "evaluate needs data (file or folder)",
    "trian": "there is no command 'trian'; did you mean 'train'?",
    "": "a command is missing: train, plan",
}

FILES = {
    "batch-size: 3": "train has no setting 'batch-size'; did you mean 'batch_size'?",
    "contxt: 3": "train has no setting 'contxt'; did you mean 'context'?",
    "xyz: 3": "train has no setting 'xyz'",
    "context: a": "context must be int, not a",
    "": "the settings file must hold settings, such as batch_size: 4",
    "just words": "the settings file must hold settings, such as batch_size: 4",
    "context: [a": "the settings file is not YAML: ",
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


@pytest.mark.parametrize("content", FILES)
def test_a_settings_file_that_is_wrong(capsys, tmp_path, content):
    path = tmp_path / "settings.yaml"
    path.write_text(content + "\n")
    error = line_of(capsys, "train", "--config", str(path))
    assert FILES[content] in error and error.endswith(" (see minigpt2 train --help)\n")


def test_a_settings_file_that_is_missing(capsys):
    assert "there is no settings file" in line_of(capsys, "train", "--config", "nowhere.yaml")


def test_a_message_that_no_rule_knows_stays_as_it_is():
    assert in_plain_words("something\n new", "", None) == "something new"
    unknown = "Parser key \"other\": Expected a <class 'int'>. Got value: x"
    assert in_plain_words(unknown, "plan", settings_class("plan")) == unknown
