"""Evaluation: one sum over all tokens, and answers that are equal as text."""

import numpy as np
import pytest

from minigpt2.data.examples import encode
from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, TEMPLATES
from minigpt2.data.truncation import truncate
from minigpt2.inference import answers as module
from minigpt2.inference.generate import generate
from minigpt2.inference.model import Model
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import loss_of
from minigpt2.model.parameters import Parameters
from minigpt2.reports.before_after import answer_tests
from minigpt2.reports.run_log import RunLog
from minigpt2.training import evaluation
from minigpt2.training.evaluation import (
    Answer,
    Limits,
    answer_all,
    describe_reach,
    exact_match,
    validation_losses,
)
from tests.data.small import RECORDS, encode_prompt, small_tokenizer

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
    counts = []
    losses = validation_losses(parameters, examples, micro_batch, counts.append)
    assert sum(counts) == len(RECORDS) and max(counts) <= micro_batch
    assert losses.tokens == sum(map(len, nlls)) == sum(sum(e.is_answer) for e in examples)
    assert losses.examples == len(RECORDS)
    assert losses.token_level == pytest.approx(np.concatenate(nlls).mean(), rel=1e-12)
    assert losses.example_level == pytest.approx(np.mean([n.mean() for n in nlls]), rel=1e-12)
    assert abs(losses.token_level - losses.example_level) > 1e-3


def test_an_answer_is_exact_if_it_is_equal_as_text():
    record = Record("Add.", "1 + 2", "3")
    assert Answer(record, "3").exact
    assert not any(Answer(record, text).exact for text in ("", "4", "33", "3 3", "3."))


def test_white_space_at_the_ends_is_not_counted():
    for output, text in (("3\n", "3"), (" 3", "3"), ("3", "3 "), ("a b", "\ta b")):
        assert Answer(Record("Add.", "1 + 2", output), text).exact


def test_exact_match_is_the_share_of_answers_that_are_exact():
    answers = [Answer(Record("?", "", "a"), text) for text in ("a", "b", "a", "c")]
    assert exact_match(answers) == 0.5
    assert exact_match(answers[:1]) == 1 and exact_match(answers[1:2]) == 0


def test_an_answer_and_its_limits_of_which_little_is_said():
    """A reference is within reach, and of a longer example the answer is cut."""
    assert Answer(Record("?", "", "a"), "b").within_reach is True
    assert tuple(Limits(280)) == (280, "answer", None)


@pytest.mark.parametrize("template", [None, *TEMPLATES.values()], ids=[None, *TEMPLATES])
def test_questions_are_asked_in_the_models_own_template(monkeypatch, template):
    prompts = []

    def spy(parameters, some, **named):
        prompts.extend(some)
        return [[] for _ in some]

    monkeypatch.setattr(module, "generate", spy)
    answer_all(Model(model(), BYTES, template), RECORDS, Limits(280))
    assert prompts == [encode_prompt(record, BYTES, template or ALPACA) for record in RECORDS]


def test_answers_are_what_greedy_decoding_gives_and_stand_with_their_records():
    parameters, counts = model(scale=0.7), []
    answers = answer_all(
        Model(parameters, BYTES, None), RECORDS, Limits(280, max_new_tokens=5), counts.append
    )
    assert [a.record for a in answers] == RECORDS and sum(counts) == len(RECORDS)
    for record, answer in zip(RECORDS, answers, strict=True):
        prompt = encode_prompt(record, BYTES)
        (alone,) = generate(parameters, [prompt], stop=BYTES.end_of_text, max_new_tokens=5)
        assert answer.answer == BYTES.decode(alone)


@pytest.mark.parametrize("policy", ["answer", "prompt", "drop"])
@pytest.mark.parametrize("context", [20, 160, 280])
def test_prompts_are_those_of_training_and_leave_room_for_the_answer(monkeypatch, policy, context):
    prompts, longest = [], []

    def spy(parameters, some, *rest, max_new_tokens, **named):
        prompts.extend(some)
        longest.append(max_new_tokens)
        return [[] for _ in some]

    monkeypatch.setattr(module, "generate", spy)
    whole_model = Model(model(), BYTES, None)
    answers = answer_all(whole_model, RECORDS, Limits(context, policy))
    assert longest == [1 + max(len(record.output) for record in RECORDS)]
    for record, prompt, answer in zip(RECORDS, prompts, answers, strict=True):
        cutting = "answer" if policy == "drop" else policy
        trained_on = truncate(encode(record, BYTES), context, cutting)
        assert prompt == trained_on.ids[: trained_on.last_answer] and answer.record is record
        assert answer.within_reach


def test_references_that_an_answer_cannot_reach_are_counted(monkeypatch):
    monkeypatch.setattr(module, "generate", stops("3"))
    small = Model(model(context=20), BYTES, ALPACA)
    lengths = [len(record.output) for record in RECORDS]
    for most in (1, 3, 9):
        answers = answer_all(small, RECORDS, Limits(20, max_new_tokens=most))
        beyond = sum(length > most for length in lengths)
        assert [not answer.within_reach for answer in answers] == [n > most for n in lengths]
        text = "1 reference is" if beyond == 1 else f"{beyond} references are"
        assert describe_reach(answers) == f"; {text} longer than an answer can be"
    assert describe_reach([Answer(record, "3") for record in RECORDS]) == ""
    (answer,) = answer_all(small, [Record("?", "", "x" * 30)], Limits(20))
    assert not answer.within_reach and answer_all(small, [], Limits(20)) == []


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
        answers = answer_tests(
            Model(model(), BYTES, ALPACA), {"sums": asked}, Limits(280), log, "after"
        )
    assert exact_match(answers["sums"]) == share
