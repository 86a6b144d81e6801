"""Evaluation: one sum over all tokens, and answers that are equal as text."""

import numpy as np
import pytest

from minigpt2.data.examples import encode, encode_prompt
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, prompt_of
from minigpt2.inference import answers as module
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import loss_of
from minigpt2.model.parameters import Parameters
from minigpt2.reports.before_after import answer_tests
from minigpt2.reports.run_log import RunLog
from minigpt2.training import evaluation
from minigpt2.training.evaluation import Answer, answer_all, exact_match, validation_losses
from tests.data.small import RECORDS, small_tokenizer

BYTES = small_tokenizer()


def model(context=280, scale=0.2, seed=0):
    """A small model with random weights."""
    config = GPT2Config(BYTES.n_vocab, context, n_embd=8, n_layer=1, n_head=2)
    rng = np.random.default_rng(seed)
    return Parameters(config, scale * rng.standard_normal(config.n_parameters))


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 5, 100])
def test_validation_losses_are_those_of_the_examples_one_by_one(micro_batch):
    parameters = model()
    examples = [encode(record, BYTES) for record in RECORDS]
    nlls = [loss_of(parameters, evaluation.batch_of([example]))[1] for example in examples]
    losses = validation_losses(parameters, examples, micro_batch)
    assert losses.tokens == sum(map(len, nlls)) == sum(sum(e.is_answer) for e in examples)
    assert losses.examples == len(RECORDS)
    assert losses.token_level == pytest.approx(np.concatenate(nlls).mean(), rel=1e-12)
    assert losses.example_level == pytest.approx(np.mean([n.mean() for n in nlls]), rel=1e-12)
    assert abs(losses.token_level - losses.example_level) > 1e-3


def test_an_answer_is_exact_if_it_is_equal_as_text():
    record = Record("Add.", "1 + 2", "3")
    assert Answer(record, "3").exact
    assert not any(Answer(record, text).exact for text in ("", "4", "3 ", "33", " 3"))


def test_exact_match_is_the_share_of_answers_that_are_exact():
    answers = [Answer(Record("?", "", "a"), text) for text in ("a", "b", "a", "c")]
    assert exact_match(answers) == 0.5
    assert exact_match(answers[:1]) == 1 and exact_match(answers[1:2]) == 0


def test_answers_are_what_greedy_decoding_gives_and_stand_with_their_records():
    parameters, counts = model(scale=0.7), []
    answers = answer_all(Model(parameters, BYTES, None), RECORDS, 5, counts.append)
    assert [a.record for a in answers] == RECORDS and sum(counts) == len(RECORDS)
    for record, answer in zip(RECORDS, answers, strict=True):
        prompt = encode_prompt(record, BYTES)
        (alone,) = generate(parameters, [prompt], stop=BYTES.end_of_text, max_new_tokens=5)
        assert answer.answer == BYTES.decode(alone)


def test_of_a_prompt_that_is_longer_than_the_context_the_end_is_kept(monkeypatch):
    seen = []

    def spy(parameters, prompts, *rest, **named):
        seen.extend(prompts)
        return generate(parameters, prompts, *rest, **named)

    monkeypatch.setattr(module, "generate", spy)
    answers = answer_all(Model(model(context=20), BYTES, None), RECORDS, 5)
    for record, prompt, answer in zip(RECORDS, seen, answers, strict=True):
        assert len(prompt) <= 20 and answer.record is record
        assert BYTES.encode(prompt_of(record))[-len(prompt) :] == prompt


def never_stops(text):
    """Stands for a model whose answer begins with the text and has no end."""

    def generated(parameters, prompts, *, max_new_tokens, **named):
        return [(BYTES.encode(text) * 50)[:max_new_tokens] for _ in prompts]

    return generated


def stops(text):
    """Stands for a model that answers the text."""

    def generated(parameters, prompts, *, max_new_tokens, **named):
        return [BYTES.encode(text)[:max_new_tokens] for _ in prompts]

    return generated


@pytest.mark.parametrize(
    ("model_that", "share"),
    [(stops("17"), 1.0), (stops("18"), 0.0), (stops("171"), 0.0), (never_stops("17"), 0.0)],
    ids=["the reference", "another answer", "a longer answer", "an answer without end"],
)
def test_a_longer_answer_cannot_match(model_that, share, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "generate", model_that)
    asked = [Record("Add.", "8 + 9", "17")]
    with RunLog(tmp_path) as log:
        answers = answer_tests(Model(model(), BYTES, ALPACA), {"sums": asked}, 48, log, "after")
    assert exact_match(answers["sums"]) == share
