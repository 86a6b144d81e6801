"""Conversation: the model reads what training would show it, and nothing is computed twice."""

import numpy as np
import pytest

from minigpt2.data.records import Exchange, Record
from minigpt2.data.template import ALPACA, TEMPLATES, prompt_of
from minigpt2.errors import UserError
from minigpt2.inference.conversation import Conversation, Turn
from minigpt2.inference.generate import generate
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.model import Model
from minigpt2.inference.sampling import Sampling
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from tests.data.small import encode_prompt


@pytest.fixture
def start(tokenizer):
    """Start a conversation with a model of random, decided parameters."""
    config = GPT2Config(tokenizer.n_vocab, n_positions=160, n_embd=16, n_layer=2, n_head=2)
    values = np.random.default_rng(3).standard_normal(config.n_parameters) * 0.4
    parameters = Parameters(config, values)

    def start(template=None, **options):
        return Conversation(Model(parameters, tokenizer, template), max_new_tokens=9, **options)

    return start


def expected(conversation, ids):
    """Greedy decoding of the whole, without what the conversation keeps."""
    stop = conversation.tokenizer.end_of_text
    return generate(conversation.parameters, [ids], stop=stop, max_new_tokens=9)[0]


def test_one_question_has_the_prompt_of_training(start, tokenizer):
    conversation = start()
    ids = tokenizer.encode(prompt_of(Record("Say no.", "", "")))
    assert list(conversation.answer("Say no.")) == expected(conversation, ids)


def test_later_questions_follow_the_earlier_turns_and_end_of_text(start, tokenizer):
    conversation = start(system="You are a parrot.")
    ids = tokenizer.encode("You are a parrot.\n\n### Instruction:\nHi.\n\n### Response:\n")
    for question in ("Hi.", "And you?", "Why?"):
        if question != "Hi.":
            ids += [tokenizer.end_of_text, *tokenizer.encode(ALPACA.later_prompt(question))]
        answer = list(conversation.answer(question))
        assert answer == expected(conversation, ids)
        ids += answer


def test_rows_that_were_computed_are_not_computed_again(start, monkeypatch):
    conversation = start()
    rows = []
    original = Cache.extend
    monkeypatch.setattr(
        Cache, "extend", lambda self, ids: rows.append(ids.size) or original(self, ids)
    )
    list(conversation.answer("One?"))
    before = sum(rows)
    list(conversation.answer("Two?"))
    whole = len(conversation.encode(conversation.turns[:-1], "Two?"))
    assert sum(rows) - before < whole - before + 11


def test_an_answer_that_is_stopped_early_stays_as_far_as_it_came(start):
    conversation = start()
    stopped = conversation.answer("One?")
    answer = [next(stopped), next(stopped)]
    stopped.close()
    ids = conversation.encode([Turn("One?", answer)], "Two?")
    assert list(conversation.answer("Two?")) == expected(conversation, ids)
    assert conversation.messages()[1]["role"] == "assistant"


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(start):
    conversation = start()
    forgotten = 0
    for _ in range(12):
        forgotten += conversation.fit("Tell me more of it.")
        list(conversation.answer("Tell me more of it."))
    assert 1 <= len(conversation.turns) == 12 - forgotten < 12
    ids = conversation.encode(conversation.turns[:-1], "Tell me more of it.")
    assert len(ids) + 9 <= 160
    assert conversation.turns[-1].answer == expected(conversation, ids)


def test_a_question_that_never_fits_is_refused_and_nothing_is_forgotten(start):
    conversation = start()
    list(conversation.answer("One?"))
    with pytest.raises(UserError, match=r"the question has \d+ tokens .* its answer needs 9, but"):
        conversation.fit("word " * 200)
    assert len(conversation.turns) == 1 and conversation.cache.lengths[0] > 0


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_model_reads_what_training_reads(start, tokenizer, template):
    conversation = start(TEMPLATES[template], system="Be brief.")
    exchanges = (Exchange("Hi.", "Hello!"), Exchange("Why?", "So."))
    turns = [Turn(e.question, tokenizer.encode(e.answer)) for e in exchanges]
    record = Record("Sure?", "", "", "Be brief.", exchanges)
    expected_ids = encode_prompt(record, tokenizer, TEMPLATES[template])
    assert conversation.encode(turns, "Sure?") == expected_ids


def test_the_generator_fixes_what_is_drawn(start):
    first, same, other = (
        list(start(sampling=Sampling(1.5), rng=np.random.default_rng(seed)).answer("Why?"))
        for seed in (0, 0, 1)
    )
    assert first == same != other


def test_messages_have_roles_and_the_system_comes_first(start, tokenizer):
    conversation = start(system="Be brief.")
    assert conversation.messages() == [{"role": "system", "content": "Be brief."}]
    answer = list(conversation.answer("Why?"))
    assert conversation.messages()[1:] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": tokenizer.decode(answer)},
    ]


def test_an_answer_ends_before_end_of_text(start, monkeypatch):
    conversation = start()
    (first, second, *_) = conversation.answer("Hi.")
    conversation.forget()
    monkeypatch.setattr(conversation.tokenizer, "end_of_text", second)
    assert list(conversation.answer("Hi.")) == [first]
    assert conversation.turns[-1].answer == [first]
