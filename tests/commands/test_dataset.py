"""Data set: every command opens it the same way, and one rule says which template wins."""

import json

import pytest

from minigpt2.commands.dataset import DataSettings, open_dataset, open_reader, reader_of
from minigpt2.commands.setup import TrainSettings, setup
from minigpt2.data.template import TEMPLATES, Template
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, open_model, save_model

OWN = Template(question="Ask: {instruction}\nTell: ")
COMMANDS = ("train --data", "evaluate", "show", "stats", "imbalance", "plan MODEL --data")


@pytest.fixture
def tuned(little_model, tmp_path):
    """The little model as if it had been tuned with a template of its own."""
    model = open_model(str(little_model))
    folder = tmp_path / "tuned"
    save_model(folder, Model(model.parameters, model.tokenizer, OWN))
    return folder


def opened(model, data, **options):
    """A data set as a command opens it."""
    settings = DataSettings(data=str(data), model=str(model), **options)
    return open_dataset(settings, open_reader(str(model)))


def test_the_template_is_the_one_asked_for_else_the_models_else_the_formats(
    little_model, tuned, data
):
    assert opened(little_model, data).template == TEMPLATES["alpaca"]  # the data's format
    assert opened(tuned, data).template == OWN
    assert opened(tuned, data, template="qa").template == TEMPLATES["qa"]


def test_a_tuned_model_that_is_tuned_further_keeps_its_template(run, tuned, data, tmp_path):
    options = ("--data", data, "--model", tuned, "--steps", "1", "--samples", "0")
    assert run("train", *options, "--out", "further").code == 0
    assert open_model(str(tmp_path / "further")).template == OWN
    assert run("train", *options, "--out", "other", "--template", "qa").code == 0
    assert open_model(str(tmp_path / "other")).template == TEMPLATES["qa"]


def test_all_ways_to_open_a_data_set_give_the_same_examples(tuned, data):
    with_weights = open_dataset(
        DataSettings(data=str(data), model=str(tuned)), reader_of(open_model(str(tuned)))
    )
    without = opened(tuned, data)
    assert with_weights._replace(tokenizer=None) == without._replace(tokenizer=None)
    assert with_weights.tokenizer.files == without.tokenizer.files
    run = setup(TrainSettings(data=str(data), model=str(tuned), validation=0, device="cpu"))
    assert run.examples.training == without.examples(without.records)[0]
    assert isinstance(run.model, Model) and run.model.template == OWN


@pytest.mark.parametrize("command", COMMANDS)
def test_a_context_beyond_the_models_is_one_line_in_every_command(run, little_model, data, command):
    words = [str(little_model) if word == "MODEL" else word for word in command.split()]
    model = () if words[-2:-1] == [str(little_model)] else ("--model", little_model)
    outcome = run(*words, data, *model, "--context", "1000")
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.count("\n") == 1 and "context 1000 is longer than the" in outcome.err


def test_plain_texts_are_samples_of_no_one(little_model, tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps([{"text": "Once upon a time."}, {"text": "The end."}]))
    run = setup(TrainSettings(data=str(path), model=str(little_model), validation=0.5))
    assert run.samples == [] and run.tests == {}


def test_a_test_of_texts_is_refused(little_model, data, tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps([{"text": "Once upon a time."}]))
    settings = TrainSettings(data=str(data), model=str(little_model), test=str(path))
    with pytest.raises(UserError, match="holds texts, not questions"):
        setup(settings)


@pytest.mark.parametrize("command", ["show", "stats", "plan MODEL --data"])
def test_every_command_names_what_it_passes_over_and_leaves_out(
    run, little_model, tmp_path, command
):
    good = {"instruction": "Add.", "output": "3", "category": "sum"}
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions/a.JSON").write_text(json.dumps([good, {**good, "output": ""}, good]))
    (tmp_path / "questions/b.csv").write_text("passed over")
    words = command.replace("MODEL", str(little_model)).split()
    model = () if "plan" in words else ("--model", little_model)
    refused = run(*words, "questions", *model)
    assert refused.code == 2 and "1 of 3 entries cannot be used: --skip-bad leaves" in refused.err
    outcome = run(*words, "questions", *model, "--skip-bad")
    assert outcome.code == 0 and outcome.err.splitlines() == [
        "questions: left out 1 of 3 entries; entry 1 of questions/a.JSON: field 'output' is empty",
        "questions: passed over b.csv",
        "questions: passed over the field category",
    ]


def test_bad_entries_of_a_test_are_left_out_too(run, little_model, data, tmp_path):
    (tmp_path / "test.json").write_text('[{"question": "Who?", "answer": "I."}, {"question": ""}]')
    options = ("--test", "test.json", "--steps", "1", "--samples", "0", "--model", little_model)
    assert "test.json" in run("train", data, *options, "--out", "run").err
    outcome = run("train", data, *options, "--out", "run", "--skip-bad")
    assert outcome.code == 0 and "test.json: left out 1 of 2 entries" in outcome.err
