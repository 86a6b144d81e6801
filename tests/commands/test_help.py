"""The help texts: complete, and derived from the settings."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields

import pytest

from minigpt2.cli import COMMANDS, settings_class


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_is_typed_and_documented_in_help(run, name):
    outcome = run(name, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.split())
    for field in fields(settings_class(name)):
        about = re.split(rf" --{field.name}\+? ", text)[-1].split(" --")[0]
        assert "(type:" in about or "(required, type:" in about, field.name
        words = about.split("(type:")[0].split("(required")[0].split()
        assert len(words) >= 3, f"{field.name} has no explanation"


def test_the_help_lists_every_command(run):
    outcome = run("--help")
    assert all(command.help in outcome.out for command in COMMANDS.values())


def test_hyphens_in_options_are_as_good_as_underscores(run):
    with_hyphens = run("train", "--batch-size", "4", "--print_config")
    assert with_hyphens.code == 0
    assert "batch_size: 4" in with_hyphens.out


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
def test_the_help_begins_with_examples_that_the_command_takes(run, name):
    help_text = run(name, "--help").out
    examples = [line for line in help_text.splitlines() if line.startswith("    minigpt2 ")]
    assert bool(examples) == ("Examples:" in (settings_class(name).__doc__ or ""))
    for example in examples:
        words = shlex.split(example.partition(" < ")[0])
        outcome = run(*words[1:], "--print_config")
        assert words[1] == name and outcome.code == 0, outcome.err
        assert help_text.index(example) < help_text.index("options:")


def test_a_commands_own_settings_come_before_those_that_it_shares(run):
    help_text = run("answer", "--help").out
    options = ("--question ", "--input ", "--model ", "--seed ", "--temperature ", "--top_p ")
    places = [help_text.index(f"\n  {option}") for option in options]
    assert places == sorted(places)
