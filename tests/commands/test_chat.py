"""chat: answers in the terminal, and the commands that begin with /."""

import json
import sys
from io import StringIO

import numpy as np
import pytest

from minigpt2.commands import chat as chapter
from minigpt2.commands.chat import respond, run_command
from minigpt2.commands.dataset import open_files
from minigpt2.errors import UserError
from minigpt2.inference.conversation import Conversation
from minigpt2.inference.generate import generate
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.model import Model
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from tests.commands.conftest import in_a_process


@pytest.fixture
def conversation(tokenizer):
    """A conversation with a model of random, decided parameters."""
    config = GPT2Config(tokenizer.n_vocab, n_positions=160, n_embd=16, n_layer=2, n_head=2)
    values = np.random.default_rng(3).standard_normal(config.n_parameters) * 0.4
    return Conversation(Model(Parameters(config, values), tokenizer, None), max_new_tokens=9)


def test_chat_works_without_a_terminal(tmp_path):
    typed = "Hello.\n\n/nonsense\nBye.\n/quit\nno\n"
    outcome = in_a_process("chat", "--max_new_tokens", "8", cwd=tmp_path, typed=typed)
    assert outcome.code == 0
    assert outcome.out.count("\n") >= 2
    assert outcome.err.count("tokens/s") == 2 and "is not a command" in outcome.err
    assert "\x1b" not in outcome.out + outcome.err and "> " not in outcome.out


class Keyboard(StringIO):
    """A terminal in which a text was typed."""

    def isatty(self):
        return True


def test_in_a_terminal_it_says_how_to_end_and_ctrl_d_ends_its_line(run, little_model, monkeypatch):
    monkeypatch.setattr("sys.stdin", Keyboard(""))
    monkeypatch.setattr("builtins.input", lambda prompt="": sys.stdin.readline() or end())
    outcome = run("chat", little_model)
    assert outcome.code == 0 and outcome.out == "\n"
    assert outcome.err == f"{little_model}: /help lists the commands, Ctrl-D ends\n"


def end():
    """What `input` does where a text ends."""
    raise EOFError


def test_ctrl_c_at_the_prompt_begins_a_new_line(monkeypatch, capsys):
    typed = iter([KeyboardInterrupt, "Hi.\n", EOFError])

    def read_line():
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(chapter, "read_line", read_line)
    assert list(chapter.read_lines()) == ["Hi."]
    assert capsys.readouterr().out.startswith("\n")


def test_a_model_that_does_not_exist_is_refused_in_one_line(run):
    outcome = run("chat", "nowhere")
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("minigpt2: ") and outcome.err.count("\n") == 1
    assert "there is no model 'nowhere'" in outcome.err


def test_the_user_learns_that_the_oldest_turns_are_forgotten(conversation, capsys):
    for _ in range(12):
        respond(conversation, "Tell me more of it.")
    assert (
        "the context is full: forgot the oldest part of the conversation, 1 turn\n"
        in capsys.readouterr().err
    )
    assert 1 <= len(conversation.turns) < 12
    conversation.max_new_tokens = 40
    respond(conversation, "word " * 30)
    assert "forgot the oldest part of the conversation, 3 turns\n" in capsys.readouterr().err


def test_a_question_that_never_fits_is_refused_and_nothing_is_forgotten(conversation):
    respond(conversation, "One?")
    with pytest.raises(UserError, match=r"the question has \d+ tokens .* its answer needs 9, but"):
        respond(conversation, "word " * 200)
    assert len(conversation.turns) == 1


def test_reset_and_system_forget_the_conversation(conversation):
    respond(conversation, "One?")
    run_command(conversation, "/system Be brief.")
    assert conversation.messages() == [{"role": "system", "content": "Be brief."}]
    respond(conversation, "One?")
    run_command(conversation, "/reset")
    assert not conversation.turns and conversation.cache.lengths[0] == 0
    assert conversation.system == "Be brief."


def test_save_writes_the_messages_and_nothing_over_a_file(conversation, tmp_path):
    respond(conversation, "One?")
    run_command(conversation, f"/save {tmp_path / 'chat.json'}")
    saved = json.loads((tmp_path / "chat.json").read_text())
    assert saved == [{"messages": conversation.messages()}]
    assert saved[0]["messages"][0] == {"role": "user", "content": "One?"}
    run_command(conversation, f"/save {tmp_path / 'chat.jsonl'}")
    for name in ("chat.json", "chat.jsonl"):  # they are data
        (record,) = open_files(tmp_path / name, None, False).records
        assert record.instruction == "One?"
    with pytest.raises(UserError, match="exists already"):
        run_command(conversation, f"/save {tmp_path / 'chat.json'}")


def test_help_lists_the_commands(conversation, capsys):
    run_command(conversation, "/help")
    assert "/save FILE" in capsys.readouterr().err


def test_a_system_message_can_be_removed(conversation):
    run_command(conversation, "/system Be brief.")
    respond(conversation, "One?")
    run_command(conversation, "/system")
    assert conversation.messages() == []


def test_undo_forgets_the_last_turn_and_the_rest_reads_on(conversation):
    respond(conversation, "One?")
    answers = [list(conversation.answer("Two?")) for _ in range(2) if not run_undo(conversation)]
    assert answers[0] == answers[1]
    assert [turn.question for turn in conversation.turns] == ["One?", "Two?"]
    for _ in range(3):
        run_command(conversation, "/undo")
    assert not conversation.turns


def run_undo(conversation):
    """Undo all turns but the first."""
    while len(conversation.turns) > 1:
        run_command(conversation, "/undo")


def test_the_temperature_can_be_set(conversation, capsys):
    conversation.rng = np.random.default_rng(0)
    run_command(conversation, "/temperature 1.5")
    assert "the temperature is 1.5" in capsys.readouterr().err
    assert conversation.decoder.sampling.temperature == conversation.sampling.temperature == 1.5
    for line in ("/temperature hot", "/temperature -1", "/temperature nan"):
        with pytest.raises(UserError, match="temperature must be "):
            run_command(conversation, line)
    assert conversation.sampling.temperature == 1.5


def test_a_line_that_ends_in_a_backslash_continues(monkeypatch):
    typed = iter(["One\\\n", " two \\\n", "three\n", "four\n"])
    monkeypatch.setattr(chapter, "read_line", lambda: next(typed))
    lines = chapter.read_lines()
    assert [next(lines), next(lines)] == ["One\ntwo \nthree", "four"]


@pytest.mark.parametrize("line", ["/save", "/temperature", "/sing a song"])
def test_a_line_that_is_no_command_is_refused(conversation, line):
    with pytest.raises(UserError, match="is not a command"):
        run_command(conversation, line)


def test_ctrl_c_stops_the_answer_and_not_the_program(conversation, monkeypatch, capsys):
    original = Cache.extend
    calls = []

    def interrupted(self, ids):
        calls.append(ids)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, ids)

    monkeypatch.setattr(Cache, "extend", interrupted)
    respond(conversation, "One?")
    assert "stopped" in capsys.readouterr().err
    assert len(conversation.turns[0].answer) == 2
    ids = conversation.encode(conversation.turns, "Two?")
    stop = conversation.tokenizer.end_of_text
    (expected,) = generate(conversation.parameters, [ids], stop=stop, max_new_tokens=9)
    assert list(conversation.answer("Two?")) == expected
