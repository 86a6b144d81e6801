"""Chat: what the model reads is what training would show it, and nothing is computed twice."""

import numpy as np
import pytest

from minigpt2.commands.chat import ChatSettings, Conversation, Exchange, obey, respond
from minigpt2.data.examples import encode_prompt
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, TEMPLATES, prompt_of
from minigpt2.errors import UserError
from minigpt2.inference.generate import generate
from minigpt2.inference.kv_cache import Cache
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters


@pytest.fixture
def talk(tokenizer):
    """Start a conversation with a model of random, decided parameters."""
    config = GPT2Config(tokenizer.n_vocab, n_positions=160, n_embd=16, n_layer=2, n_head=2)
    values = np.random.default_rng(3).standard_normal(config.n_parameters) * 0.4
    parameters = Parameters(config, values)

    def start(template=None, **settings):
        settings = ChatSettings(max_new_tokens=9, **settings)
        return Conversation(parameters, tokenizer, template, settings)

    return start


def expected(conversation, ids):
    """Greedy decoding of the whole, without what the conversation keeps."""
    stop = conversation.tokenizer.end_of_text
    return generate(conversation.parameters, [ids], stop=stop, max_new_tokens=9)[0]


def test_one_question_has_the_prompt_of_training(talk, tokenizer):
    conversation = talk()
    ids = tokenizer.encode(prompt_of(Record("Say no.", "", "")))
    assert list(conversation.answer("Say no.")) == expected(conversation, ids)


def test_later_questions_follow_what_was_said_and_end_of_text(talk, tokenizer):
    conversation = talk(system="You are a parrot.")
    ids = tokenizer.encode("You are a parrot.\n\n### Instruction:\nHi.\n\n### Response:\n")
    for question in ("Hi.", "And you?", "Why?"):
        if question != "Hi.":
            ids += [tokenizer.end_of_text, *tokenizer.encode(ALPACA.later_prompt(question))]
        answer = list(conversation.answer(question))
        assert answer == expected(conversation, ids)
        ids += answer


def test_rows_that_were_computed_are_not_computed_again(talk, monkeypatch):
    conversation = talk()
    rows = []
    original = Cache.extend
    monkeypatch.setattr(
        Cache, "extend", lambda self, ids: rows.append(ids.size) or original(self, ids)
    )
    list(conversation.answer("One?"))
    before = sum(rows)
    list(conversation.answer("Two?"))
    whole = len(conversation.ids(conversation.exchanges[:-1], "Two?"))
    assert sum(rows) - before < whole - before + 11


def test_an_answer_that_is_stopped_early_stays_as_far_as_it_came(talk):
    conversation = talk()
    stopped = conversation.answer("One?")
    said = [next(stopped), next(stopped)]
    stopped.close()
    ids = conversation.ids([("One?", said)], "Two?")
    assert list(conversation.answer("Two?")) == expected(conversation, ids)
    assert conversation.messages()[1]["role"] == "assistant"


def test_the_oldest_exchanges_are_forgotten_when_the_context_is_full(talk, capsys):
    conversation = talk()
    for _ in range(12):
        respond(conversation, "Tell me more of it.")
    assert "the context is full: the oldest" in capsys.readouterr().err
    assert 1 <= len(conversation.exchanges) < 12
    kept = conversation.exchanges[:-1]
    ids = conversation.ids(kept, "Tell me more of it.")
    assert len(ids) + 9 <= 160
    assert conversation.exchanges[-1].answer == expected(conversation, ids)


def test_a_question_that_never_fits_is_refused_and_nothing_is_forgotten(talk):
    conversation = talk()
    respond(conversation, "One?")
    with pytest.raises(UserError, match=r"this has \d+ tokens with its template; with 9 for"):
        respond(conversation, "word " * 200)
    assert len(conversation.exchanges) == 1


def test_commands(talk, tmp_path, capsys):
    conversation = talk()
    respond(conversation, "One?")
    obey(conversation, f"/save {tmp_path / 'said.json'}")
    assert '"content": "One?"' in (tmp_path / "said.json").read_text()
    with pytest.raises(UserError, match="exists already"):
        obey(conversation, f"/save {tmp_path / 'said.json'}")
    obey(conversation, "/system Be brief.")
    assert conversation.messages() == [{"role": "system", "content": "Be brief."}]
    respond(conversation, "One?")
    obey(conversation, "/reset")
    assert not conversation.exchanges and conversation.cache.lengths[0] == 0
    obey(conversation, "/help")
    assert "/save FILE" in capsys.readouterr().err
    for line in ("/save", "/system", "/sing a song"):
        with pytest.raises(UserError, match="is no command"):
            obey(conversation, line)


def test_what_is_read_is_what_training_reads(talk, tokenizer):
    for template in TEMPLATES.values():
        conversation = talk(template, system="Be brief.")
        said = [("Hi.", "Hello!"), ("Why?", "So.")]
        conversation.exchanges = [Exchange(q, tokenizer.encode(a)) for q, a in said]
        record = Record("Sure?", "", "", "Be brief.", tuple(said))
        assert conversation.ids(conversation.exchanges, "Sure?") == encode_prompt(
            record, tokenizer, template
        )


def test_ctrl_c_stops_the_answer_and_not_the_program(talk, monkeypatch, capsys):
    conversation = talk()
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
    assert len(conversation.exchanges[0].answer) == 2
    ids = conversation.ids(conversation.exchanges, "Two?")
    assert list(conversation.answer("Two?")) == expected(conversation, ids)
