"""`minigpt2 evaluate`, as a user runs it."""

import json

import numpy as np
import pytest

from minigpt2.data.examples import encode
from minigpt2.data.template import TEMPLATES
from minigpt2.inference.model import Model, open_model
from minigpt2.training import evaluation
from minigpt2.training.evaluation import Limits, answer_all, validation_losses
from tests.data.entries import load_records


@pytest.mark.parametrize("template", ["alpaca", "qa"])
def test_what_is_printed_is_in_the_file_and_is_right(run, little_model, data, template):
    options = ("--out", "found.json", "--max-new-tokens", "5", "--template", template)
    outcome = run("evaluate", data, "--model", little_model, *options)
    assert outcome.code == 0, outcome.err
    with open("found.json") as file:
        found = json.load(file)
    parameters, tokenizer, _ = open_model(str(little_model))
    records = load_records(data)
    examples = [encode(record, tokenizer, TEMPLATES[template]) for record in records]
    losses = validation_losses(parameters, examples, len(examples))
    np.testing.assert_allclose(found["token_loss"], losses.token_level, rtol=1e-5)
    np.testing.assert_allclose(found["example_loss"], losses.example_level, rtol=1e-5)
    np.testing.assert_allclose(found["token_perplexity"], np.exp(losses.token_level), rtol=1e-4)
    model = Model(parameters, tokenizer, TEMPLATES[template])
    answers = answer_all(model, records, Limits(96, max_new_tokens=5))
    assert [row["answer"] for row in found["rows"]] == [a.answer for a in answers]
    assert [row["output"] for row in found["rows"]] == [record.output for record in records]
    for text in (
        f"loss by tokens {losses.token_level:.4f}",
        f"loss by examples {losses.example_level:.4f}",
        f"exact match {found['right']} of {len(records)}",
    ):
        assert text in outcome.out
    assert run("evaluate", data, "--model", little_model, *options).code == 2


def test_what_the_policy_drops_is_not_asked(run, little_model, tmp_path):
    entries = [{"instruction": "Say a", "output": "a " * n} for n in (1, 2, 200)]
    (tmp_path / "long.json").write_text(json.dumps(entries))
    outcome = run("evaluate", "long.json", "--model", little_model, "--truncate", "drop")
    assert outcome.code == 0 and "over 2 examples" in outcome.out, outcome.err
    assert "exact match 0 of 2 " in outcome.out
    outcome = run("evaluate", "long.json", "--model", little_model)
    assert "over 3 examples" in outcome.out and "exact match 0 of 3 " in outcome.out


def test_a_run_is_measured_with_the_template_it_was_tuned_with(run, little_model, data):
    how = ("--steps", "1", "--samples", "0", "--template", "chat", "--out", "tuned")
    assert run("train", "--model", little_model, "--data", data, *how).code == 0
    losses = []
    for options in ((), ("--template", "chat"), ("--template", "qa")):
        out = f"found{len(losses)}.json"
        command = ("evaluate", data, "--model", "tuned", "--answers", "false", "--out", out)
        assert run(*command, *options).code == 0
        with open(out) as file:
            losses.append(json.load(file)["token_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_texts_have_a_loss_and_no_answers(run, little_model, tmp_path):
    (tmp_path / "story.txt").write_text("Once upon a time. The end.")
    outcome = run("evaluate", "story.txt", "--model", little_model)
    assert outcome.code == 0 and "perplexity" in outcome.out and "exact" not in outcome.out


def test_cuts_are_told(run, little_model, data):
    outcome = run("evaluate", data, "--model", little_model, "--context", "20", "--answers=false")
    assert outcome.code == 0 and "over the context of 20:" in outcome.out
    outcome = run("evaluate", data, "--model", little_model, "--context", "20", "--truncate=drop")
    assert outcome.code == 2 and "are dropped" in outcome.err


def test_an_answer_may_be_as_long_as_the_longest_reference(
    run, little_model, tmp_path, monkeypatch
):
    limits, answer_prompts = [], evaluation.answer_prompts

    def spy(model, prompts, max_new_tokens, progress):
        limits.append(max_new_tokens)
        return answer_prompts(model, prompts, max_new_tokens, progress)

    monkeypatch.setattr(evaluation, "answer_prompts", spy)
    references = ["a" * 70, "Blue."]  # longer than a fixed default would allow, and shorter
    entries = [{"question": "Say it.", "answer": text} for text in references]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    tokenizer = open_model(str(little_model)).tokenizer
    command = ("evaluate", "data.json", "--model", little_model)
    outcome = run(*command)
    assert outcome.code == 0 and "longer than an answer can be" not in outcome.out
    outcome = run(*command, "--max-new-tokens", "4")
    assert "(0.0%); 1 reference is longer than an answer can be" in outcome.out
    options = ("--validation", "0", "--steps", "1", "--test", "data.json", "--out", "run")
    assert run("train", "data.json", "--model", little_model, *options).code == 0
    longest = 1 + max(len(tokenizer.encode(text)) for text in references)
    assert longest > 64 and limits == [longest, 4, longest, longest]
