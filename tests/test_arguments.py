"""The command line: what a user types is what a command gets, in whatever order and form."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.arguments import read_arguments
from minigpt2.cli import COMMANDS, main, read_all, read_command, settings_class
from minigpt2.errors import UserError

HINTS = {"data": str, "steps": int, "batch_size": int, "recompute": bool, "prompt": str}


def read(line, first="data"):
    """The names and values of a line, whose words are divided by blanks."""
    return read_arguments(line.split() if isinstance(line, str) else line, HINTS, first)


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("", []),
        ("a.json", [("data", "a.json")]),
        ("--data a.json", [("data", "a.json")]),
        ("--steps 3 a.json", [("data", "a.json"), ("steps", "3")]),
        ("--batch-size 3 --batch_size=4", [("batch_size", "3"), ("batch_size", "4")]),
        ("--recompute", [("recompute", "true")]),
        ("--recompute a.json", [("data", "a.json"), ("recompute", "true")]),
        ("--recompute --steps 3", [("recompute", "true"), ("steps", "3")]),
        ("--recompute false a.json", [("data", "a.json"), ("recompute", "false")]),
        ("--recompute=maybe", [("recompute", "maybe")]),
        ("--steps -5", [("steps", "-5")]),
        ("-5", [("data", "-5")]),
        ("-- -5", [("data", "-5")]),
        ("-- --steps", [("data", "--steps")]),
        ("--steps 3 -- a.json", [("data", "a.json"), ("steps", "3")]),
        (["-5 + 3?"], [("data", "-5 + 3?")]),
        (["- an item"], [("data", "- an item")]),
        (["--5 + 3?"], [("data", "--5 + 3?")]),
        (["--prompt", "--steps are many"], [("prompt", "--steps are many")]),
        (["--prompt=--steps"], [("prompt", "--steps")]),
        (["--prompt=a=b\nc"], [("prompt", "a=b\nc")]),
        (["--prompt", ""], [("prompt", "")]),
        ([""], [("data", "")]),
        ("--help", [("help", "")]),
        ("a.json -h", [("data", "a.json"), ("help", "")]),
        ("--print-config --print_config", [("print_config", "")] * 2),
    ],
)
def test_words_become_names_and_values(line, pairs):
    assert read(line) == pairs


VALUES = st.one_of(
    st.text(max_size=8), st.sampled_from(["-5", "- x", "true", "--", "-h", "--steps", "a=b"])
)
PAIRS = st.lists(st.tuples(st.sampled_from(["steps", "batch_size", "prompt", "recompute"]), VALUES))


@given(PAIRS)
def test_a_value_behind_an_equals_sign_is_taken_as_it_is(pairs):
    assert read([f"--{name}={value}" for name, value in pairs]) == pairs


@given(st.text(max_size=12))
def test_a_text_behind_two_hyphens_is_taken_as_it_is(text):
    assert read(["--steps", "3", "--", text]) == [("data", text), ("steps", "3")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--steps", "--steps needs a value"),
        ("--steps --recompute", "--steps needs a value"),
        ("--batch_size", "--batch-size needs a value"),
        ("--steps -- 3", "--steps needs a value"),
        ("--stesp 3", "there is no option --stesp; did you mean --steps?"),
        ("--step 3", "there is no option --step; did you mean --steps?"),
        ("--batch 3", "there is no option --batch; did you mean --batch-size?"),
        ("--Steps 3", "there is no option --Steps; did you mean --steps?"),
        ("--max-steps=3", "there is no option --max-steps; did you mean --steps?"),
        ("-s", "there is no option -s"),
        ("--xyzzy", "there is no option --xyzzy"),
        ("a.json b.json", "unexpected: b.json; put several files in a folder, and name that"),
        ("a.json --recompute maybe", "unexpected: maybe; --recompute is true or false"),
        (
            "a.json --data b.json b.json",
            "unexpected: b.json; put several files in a folder, and name that",
        ),
        ("--print-confg", "there is no option --print-confg; did you mean --print-config?"),
        ("a.json --data b.json", "data is given twice: a.json and --data b.json"),
    ],
)
def test_what_cannot_be_read_is_named(line, words):
    with pytest.raises(UserError) as error:
        read(line)
    assert str(error.value) == words


def test_a_setting_that_a_command_does_not_have_is_refused_with_the_reason():
    with pytest.raises(UserError, match="no dropout: it would draw"):
        read_arguments(
            ["--dropout", "0.1"], HINTS, "data", {"dropout": "no dropout: it would draw"}
        )


def test_a_text_of_several_words_belongs_in_quotation_marks():
    with pytest.raises(UserError, match=r"unexpected: is it\?; put a text .* in quotation marks"):
        read("What is it?", first="prompt")


def test_a_command_without_a_first_setting_takes_no_word_without_a_name():
    with pytest.raises(UserError, match=r"unexpected: a.json"):
        read("a.json", first="")


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.first])
def test_every_command_takes_its_first_setting_anywhere(name):
    first = COMMANDS[name].first
    assert read_command([name, "x"]) == (name, [(first, "x")])
    other = next(f.name for f in fields(settings_class(name)) if f.name != first)
    assert read_command([name, f"--{other}=y", "x"]) == (name, [(first, "x"), (other, "y")])
    assert read_command([name, "--", "-5 + 3?"]) == (name, [(first, "-5 + 3?")])


def test_options_override_settings_files_and_a_file_those_before_it(tmp_path):
    for name, text in (("a", "seed: 1\nsteps: 1"), ("b", "seed: 2")):
        (tmp_path / name).write_text(text)
    words = ["--steps", "3", "--config", str(tmp_path / "a"), "--config", str(tmp_path / "b")]
    settings = read_all(*read_command(["train", *words]))
    assert {name: setting.value for name, setting in settings.items()} == {"seed": 2, "steps": 3}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["help"], ("", [("help", "")])),
        (["help", "train"], ("train", [("help", "")])),
        (["train", "--help"], ("train", [("help", "")])),
        (["version"], ("", [("version", "")])),
        (["--version"], ("", [("version", "")])),
        (["-h"], ("", [("help", "")])),
        (["--help", "train"], ("", [("help", "")])),
    ],
)
def test_help_and_version_are_commands_and_options(capsys, words, expected):
    assert read_command(words) == expected
    assert main(words) == 0
    start = "minigpt2 0." if "version" in dict(expected[1]) else f"usage: minigpt2 {expected[0]}"
    assert capsys.readouterr().out.startswith(start)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "a command is missing: train, reward"),
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["eval"], "there is no command 'eval'; did you mean 'evaluate'?"),
        (["Train"], "there is no command 'Train'; did you mean 'train'?"),
        (["finetune"], "there is no command 'finetune'; did you mean 'train'?"),
        (["help", "trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["questions.json"], "there is no command 'questions.json'"),
        (["--verson"], "there is no option --verson; did you mean --version?"),
        (["--steps", "3", "train"], "a command comes before --steps: train, reward"),
    ],
)
def test_a_word_that_is_no_command_is_named(words, error):
    with pytest.raises(UserError) as caught:
        read_command(words)
    assert str(caught.value).startswith(error)
