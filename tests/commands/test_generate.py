"""generate, run as a user would."""

import json
import re
import shutil
from io import StringIO

import pytest

from minigpt2.commands import generate as generate_command
from minigpt2.inference import generate as generation
from tests.commands.conftest import in_a_process


def test_generate_continues_a_text_the_same_way_for_the_same_seed(tmp_path):
    arguments = ("generate", "The capital of", "--max-new-tokens", "12", "--seed")
    first, same, other = (in_a_process(*arguments, seed, cwd=tmp_path) for seed in (1, 1, 2))
    assert first.code == 0 and first.err == ""
    assert first.out == same.out != other.out


def test_generate_reads_standard_input(run, tmp_path):
    greedy = ("--temperature", "0", "--max-new-tokens", "8")
    from_option = run("generate", "The opposite of hot", *greedy)
    typed = "The opposite of hot\n"
    from_input = in_a_process("generate", *greedy, cwd=tmp_path, typed=typed)
    assert from_input.out == from_option.out


def test_in_a_terminal_it_asks_for_the_text(run, little_model, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO("Hi.\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    outcome = run("generate", "--model", little_model, "--max-new-tokens", "2")
    assert outcome.code == 0 and outcome.err == "the text to continue, then Ctrl-D:\n"


@pytest.mark.parametrize(
    "prompt",
    ["null", "~", "# Tide tables", "#!/bin/sh", "2026-11-26", "12", "[1, 2]", "a: b", "no"],
)
def test_a_prompt_on_the_command_line_is_the_text_as_typed(run, little_model, monkeypatch, prompt):
    greedy = ("--model", little_model, "--temperature", "0", "--max-new-tokens", "6")
    outcome = run("generate", prompt, *greedy)
    monkeypatch.setattr("sys.stdin", StringIO(f"{prompt}\n"))
    assert run("generate", *greedy) == outcome and outcome.code == 0
    assert outcome.out != run("generate", "", *greedy).out


def test_an_end_of_text_that_is_not_the_tokenizers_is_one_line(run, little_model, tmp_path):
    shutil.copytree(little_model, tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 3}))
    outcome = run("generate", "hi", "--model", "model", "--max-new-tokens", "1")
    assert outcome.code == 0 and "model/config.json: eos_token_id is 3, but the" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_samples_are_those_of_all_at_once_and_come_in_groups(run, monkeypatch):
    how = ("generate", "hi", "--samples", "5", "--max-new-tokens", "3")
    expected = run(*how).out
    for module in (generate_command, generation):
        monkeypatch.setattr(module, "GROUP_SIZE", 2)
    assert run(*how).out.count("\n---\n") == expected.count("\n---\n") == 4


def test_several_samples_are_separated(run):
    outcome = run("generate", "--prompt", "", "--samples", "3", "--max-new-tokens", "5")
    assert outcome.code == 0 and outcome.out.count("\n---\n") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("word " * 300,), "the prompt has"),
        (("x", "--top_p", "0"), "top_p must be above 0"),
        (("x", "--top_k", "-1"), "top_k must be at least 0"),
        (("x", "--samples", "0"), "samples must be at least 1"),
        (("x", "--model", "gpt2-large"), "`minigpt2 download gpt2-large` fetches them"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(run, arguments, words):
    outcome = run("generate", *arguments)
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("minigpt2: ") and outcome.err.count("\n") == 1
    assert words in outcome.err


def test_a_full_context_is_told(run, little_model):
    prompt = "word " * 90
    outcome = run("generate", prompt, "--model", little_model, "--max-new-tokens", 50)
    assert outcome.code == 0
    assert re.search(r"cut after \d tokens?: the context is full", outcome.err), outcome
    outcome = run("generate", "word", "--model", little_model, "--max-new-tokens", 5)
    assert "cut" not in outcome.err
