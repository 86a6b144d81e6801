"""Answers: the prompt is that of training, and the text is what greedy decoding gives."""

import numpy as np
import pytest

from minigpt2.data.records import Exchange, Record
from minigpt2.data.template import ALPACA, TEMPLATES
from minigpt2.inference import answers
from minigpt2.inference.answers import answer_questions
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from tests.data.small import encode_prompt

RECORDS = [
    Record("Say no.", "", "no"),
    Record("Add.", "1 and 2", "3"),
    Record("Why?", "", "So.", "Be brief.", (Exchange("Hi.", "Hello!"),)),
]


CUT = ["the answer is cut after 5 tokens: raise max_new_tokens"] * len(RECORDS)


def make_model(tokenizer, template, context=128):
    """A model of random parameters, which never ends an answer."""
    config = GPT2Config(tokenizer.n_vocab, n_positions=context, n_embd=16, n_layer=2, n_head=2)
    return Model(initialise(config, np.random.default_rng(0)), tokenizer, template)


@pytest.mark.parametrize("template", [None, TEMPLATES["qa"]])
def test_answers_continue_the_prompts_of_the_models_template_or_alpacas(tokenizer, template):
    model, warnings = make_model(tokenizer, template), []
    texts = answer_questions(model, RECORDS, max_new_tokens=5, warn=warnings.append)
    for record, text in zip(RECORDS, texts, strict=True):
        prompt = encode_prompt(record, tokenizer, template or ALPACA)
        options = {"stop": tokenizer.end_of_text, "max_new_tokens": 5}
        (ids,) = generate(model.parameters, [prompt], **options)
        assert text == tokenizer.decode(ids)
    assert warnings == CUT


@pytest.mark.parametrize("words", [6, 11, 20])
def test_a_prompt_that_leaves_no_room_for_its_answer_is_cut_with_a_warning(tokenizer, words):
    record, warnings = Record("word " * words + "the end", "", ""), []
    model = make_model(tokenizer, TEMPLATES["raw"], context=12)
    (text,) = answer_questions(model, [record], max_new_tokens=3, warn=warnings.append)
    prompt = encode_prompt(record, tokenizer, TEMPLATES["raw"])
    removed = max(0, len(prompt) - 10)  # three new tokens need two rows more
    middle = (len(prompt) - removed + 1) // 2
    prompt = prompt[:middle] + prompt[middle + removed :]
    (ids,) = generate(model.parameters, [prompt], stop=tokenizer.end_of_text, max_new_tokens=3)
    assert len(ids) == 3 and text == tokenizer.decode(ids)
    assert [w for w in warnings if f": {removed} of them are left out" in w] == warnings[:-1]
    assert len(warnings) == 1 + (removed > 0)
    assert warnings[-1] == "the answer is cut after 3 tokens: raise max_new_tokens"


def test_it_is_said_that_the_context_cuts_an_answer_and_not_that_it_ends(tokenizer, monkeypatch):
    model, warnings = make_model(tokenizer, TEMPLATES["raw"], context=8), []
    answer_questions(model, [RECORDS[0]], max_new_tokens=99, warn=warnings.append)
    assert warnings == [f"the answer is cut after {8 + 1 - 3} tokens: the context is full"]
    monkeypatch.setattr(answers, "generate", lambda *rest, **named: [[1, 2]])
    answer_questions(model, [RECORDS[0]], max_new_tokens=3, warn=warnings.append)
    assert len(warnings) == 1


def test_no_questions_have_no_answers(tokenizer):
    assert answer_questions(make_model(tokenizer, None), [], max_new_tokens=3) == []
