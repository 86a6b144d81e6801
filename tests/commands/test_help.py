"""The help texts: complete, in groups, and derived from the settings."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from minigpt2.cli import COMMANDS, settings_class
from minigpt2.help import GROUPS, groups_of

PYTHON_TYPES = ("null", "None", "Union", "Literal", "Optional", "Path", "list[", "bool", "str ")


@pytest.fixture
def help_of(run, monkeypatch):
    """The help of a command in a terminal of a width."""

    def help_of(*arguments, columns=100):
        monkeypatch.setenv("COLUMNS", str(columns))
        outcome = run(*arguments, "--help")
        assert outcome.code == 0, outcome.err
        return outcome.out

    return help_of


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_is_typed_and_documented_in_help(help_of, name):
    text = help_of(name)
    for field in fields(settings_class(name)):
        option = "--" + field.name.replace("_", "-")
        _, _, about = text.partition(f"\n  {option} ")
        kind = r"(\{[a-z0-9,-]+\}|\[(true/false|folder)\]|[a-z]+( or [a-z]+)?)\s"
        assert re.match(kind, about), option
        words = about.split(" --")[0].partition("(default:")[0].split()
        assert len(words) >= 4, f"{option} has no explanation"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_is_in_one_group(name):
    settings = settings_class(name)
    members = [field.name for group in groups_of(name, settings).values() for field in group]
    assert sorted(members) == sorted(field.name for field in fields(settings))


def test_a_name_is_in_one_group_and_is_a_setting():
    names = [name for group in GROUPS.values() for name in group.split()]
    assert len(names) == len(set(names))
    known = {f.name: name for name in COMMANDS for f in fields(settings_class(name))}
    known |= {f"{name}.{f.name}": name for name in COMMANDS for f in fields(settings_class(name))}
    assert set(names) <= known.keys()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 100, 200])
def test_help_is_in_plain_words_and_fits_the_terminal(help_of, name, columns):
    text = help_of(name, columns=columns)
    assert max(map(len, text.splitlines())) <= 100
    wrapped = [line for line in text.splitlines() if "    minigpt2 " not in line]
    assert max(map(len, wrapped)) <= columns
    assert not [word for word in PYTHON_TYPES if word in text]


def test_the_help_lists_every_command(help_of):
    text = help_of()
    assert all(command.help in text for command in COMMANDS.values())
    assert "Examples:\n    minigpt2 train" in text


def test_the_words_of_the_step_line_are_explained(help_of):
    text = help_of("train")
    for word in ("loss", "lr", "norm", "tok/s", "overflowed", "validation loss"):
        assert text.index("Output:") < text.rindex(f" {word} "), word


def test_hyphens_in_options_are_as_good_as_underscores(run):
    with_hyphens = run("train", "--batch-size", "4", "--print-config")
    assert with_hyphens.code == 0
    assert "batch_size: 4" in with_hyphens.out
    assert run("train", "--batch_size", "4", "--print_config") == with_hyphens


def test_what_is_not_asked_for_is_not_imported():
    script = (
        "import sys, minigpt2.cli\n"
        "try: minigpt2.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({'numpy', 'rich', 'tiktoken', 'jinja2'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_begins_with_examples_that_the_command_takes(help_of, run, name):
    help_text = help_of(name)
    Path("settings.yaml").write_text("seed: 1\n")
    examples = re.findall(r"^    (minigpt2 .*)", help_text, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" < ")[0], comments=True)
        outcome = run(*words[1:], "--print-config")
        assert words[1] == name and outcome.code == 0, outcome.err
        assert help_text.index(example) < help_text.index("\n  --")


def test_settings_come_in_groups(help_of):
    text = help_of("answer")
    options = ("--question ", "--input ", "--model ", "--temperature ", "--top-p ", "--seed ")
    places = [text.index(f"\n  {option}") for option in options]
    assert places == sorted(places)
    text = help_of("train")
    groups = ("model", "data", "loss", "optimiser", "run", "device")
    places = [text.index(f"\n{group}:\n") for group in groups]
    assert places == sorted(places)
    assert text.index("\noptimiser:") < text.index("\n  --beta1 ") < text.index("\nrun:")
