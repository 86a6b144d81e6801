"""Answers: the prompt is that of training, and the text is what greedy decoding gives."""

import numpy as np
import pytest

from minigpt2.data.examples import encode_prompt
from minigpt2.data.records import Exchange, Record
from minigpt2.data.template import ALPACA, TEMPLATES
from minigpt2.errors import UserError
from minigpt2.inference.answers import answer_questions
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise

RECORDS = [
    Record("Say no.", "", "no"),
    Record("Add.", "1 and 2", "3"),
    Record("Why?", "", "So.", "Be brief.", (Exchange("Hi.", "Hello!"),)),
]


def make_model(tokenizer, template, context=128):
    """A model of random parameters."""
    config = GPT2Config(tokenizer.n_vocab, n_positions=context, n_embd=16, n_layer=2, n_head=2)
    return Model(initialise(config, np.random.default_rng(0)), tokenizer, template)


@pytest.mark.parametrize("template", [None, TEMPLATES["qa"]])
def test_answers_continue_the_prompts_of_the_models_template_or_alpacas(tokenizer, template):
    model, counts = make_model(tokenizer, template), []
    texts = answer_questions(model, RECORDS, max_new_tokens=5, progress=counts.append)
    for record, text in zip(RECORDS, texts, strict=True):
        prompt = encode_prompt(record, tokenizer, template or ALPACA)
        options = {"stop": tokenizer.end_of_text, "max_new_tokens": 5}
        (ids,) = generate(model.parameters, [prompt], **options)
        assert text == tokenizer.decode(ids)
    assert sum(counts) == len(RECORDS)


def test_a_prompt_over_the_context_is_refused_or_loses_its_beginning(tokenizer):
    record = Record("word " * 20 + "the end", "", "")
    model = make_model(tokenizer, TEMPLATES["raw"], context=12)
    with pytest.raises(UserError, match=r"the question has \d+ tokens .* reads at most 12"):
        answer_questions(model, [record], max_new_tokens=3)
    (text,) = answer_questions(model, [record], max_new_tokens=3, truncate=True)
    prompt = encode_prompt(record, tokenizer, TEMPLATES["raw"])[-12:]
    (ids,) = generate(model.parameters, [prompt], stop=tokenizer.end_of_text, max_new_tokens=3)
    assert text == tokenizer.decode(ids)


def test_no_questions_have_no_answers(tokenizer):
    assert answer_questions(make_model(tokenizer, None), [], max_new_tokens=3) == []
