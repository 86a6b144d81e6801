"""generate and chat, run as a user would."""

import subprocess
import sys

import pytest

from minigpt2.data.tokenizer import Tokenizer


def talk(*arguments, cwd, said=""):
    command = [sys.executable, "-m", "minigpt2", *arguments]
    return subprocess.run(command, cwd=cwd, input=said, capture_output=True, text=True)


def test_generate_carries_on_a_text_the_same_way_for_the_same_seed(tmp_path):
    one, same, other = (
        talk("generate", "The capital of", "--max-new-tokens", "12", "--seed", seed, cwd=tmp_path)
        for seed in ("1", "1", "2")
    )
    assert one.returncode == 0 and one.stderr == ""
    assert one.stdout == same.stdout != other.stdout


def test_generate_reads_standard_input(run, tmp_path):
    greedy = ("--temperature", "0", "--max-new-tokens", "8")
    given = run("generate", "The opposite of hot", *greedy)
    read = talk("generate", *greedy, cwd=tmp_path, said="The opposite of hot\n")
    assert read.stdout == given.out


def test_several_samples_are_told_apart(run):
    outcome = run("generate", "--prompt", "", "--samples", "3", "--max-new-tokens", "5")
    assert outcome.code == 0 and outcome.out.count("\n---\n") == 2


def test_chat_works_without_a_terminal(tmp_path):
    outcome = talk(
        "chat", "--max_new_tokens", "8", cwd=tmp_path, said="Hello.\n\n/nonsense\nBye.\n/quit\nno\n"
    )
    assert outcome.returncode == 0
    assert outcome.stdout.count("\n") >= 2
    assert outcome.stderr.count("tokens/s") == 2 and "is no command" in outcome.stderr
    assert "\x1b" not in outcome.stdout + outcome.stderr and "> " not in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "word " * 300), "the prompt has"),
        (("generate", "x", "--top_p", "0"), "top_p must be above 0"),
        (("generate", "x", "--top_k", "-1"), "top_k must be at least 0"),
        (("generate", "x", "--samples", "0"), "samples must be at least 1"),
        (("generate", "x", "--model", "gpt2-large"), "`minigpt2 download gpt2-large` fetches them"),
        (("chat", "nowhere"), "there is no model 'nowhere'"),
        (("download", "gpt3"), "no official weights 'gpt3'"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(run, arguments, words):
    outcome = run(*arguments)
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("minigpt2: ") and outcome.err.count("\n") == 1
    assert words in outcome.err


def test_text_comes_in_whole_characters(tokenizer: Tokenizer):
    text = "naïve 🦜 日本"
    ids = tokenizer.encode(text)
    parts = list(tokenizer.decode_stream(ids))
    assert "".join(parts) == text and not any("\ufffd" in part for part in parts)
    broken = list(tokenizer.decode_stream(tokenizer.encode("🦜")[:-1]))
    assert "".join(broken) == tokenizer.decode(tokenizer.encode("🦜")[:-1])
