"""answer, run as a user would."""

import re

import numpy as np

from minigpt2.commands import answer
from minigpt2.data.records import Record
from minigpt2.inference.answers import answer_questions
from minigpt2.inference.model import open_model
from minigpt2.inference.sampling import Sampling


def test_the_answer_is_that_of_the_model_to_the_question_with_its_input(run, little_model):
    options = ("--input", "1, 2", "--model", little_model, "--max-new-tokens", "5")
    outcome = run("answer", "Add.", *options)
    expected = answer_questions(
        open_model(str(little_model)), [Record("Add.", "1, 2", "")], max_new_tokens=5
    )
    assert outcome.code == 0 and [outcome.out] == [f"{text}\n" for text in expected]


def test_all_options_of_sampling_reach_the_model(run, little_model):
    options = ("--temperature", "0.9", "--top-k", "40", "--top-p", "0.8", "--seed", "3")
    more = ("--repetition-penalty", "1.1", "--model", little_model, "--max-new-tokens", "9")
    outcome = run("answer", "Why?", *options, *more)
    expected = answer_questions(
        open_model(str(little_model)),
        [Record("Why?", "", "")],
        max_new_tokens=9,
        sampling=Sampling(0.9, top_k=40, top_p=0.8, repetition_penalty=1.1),
        rng=np.random.default_rng(3),
    )
    assert outcome.code == 0 and [outcome.out] == [f"{text}\n" for text in expected]


def test_a_question_that_is_too_long_is_cut_and_it_is_said(run, little_model):
    outcome = run("answer", "why " * 200, "--model", little_model, "--max-new-tokens", "4")
    assert outcome.code == 0 and outcome.out.strip()
    pattern = r"the question has (\d+) tokens .*: (\d+) of them are left out, .* context of 96\n"
    tokens, removed = map(int, re.match(pattern, outcome.err).groups())
    assert tokens - removed == 96 + 1 - 4


def test_text_that_looks_like_an_option_is_left_alone(run, little_model, monkeypatch):
    questions = []

    def spy(model, records, **options):
        questions.extend(record.instruction for record in records)
        return answer_questions(model, records, **options)

    monkeypatch.setattr(answer, "answer_questions", spy)
    options = ("--question=--well-known- word", "--max-new-tokens", "1")
    assert run("answer", "--model", little_model, *options).code == 0
    assert questions == ["--well-known- word"]
