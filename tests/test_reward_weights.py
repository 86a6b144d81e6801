"""Reward models' weights: their folder, and that neither kind of model is taken for the other."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2.data.template_files import open_template
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, RewardModel, open_model, open_reward_model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.heads import with_heads
from minigpt2.model.initialisation import initialise
from minigpt2.reward_weights import save_reward_parameters
from minigpt2.weights import TENSORS, load_parameters
from tests.small_model import PARAMETERS, change

SCORING = with_heads(PARAMETERS, {"score.weight": np.full((1, 6), 0.5, np.float32)})


@pytest.fixture
def folder(tmp_path):
    """The folder of a reward model."""
    save_reward_parameters(SCORING, tmp_path, -1.25)
    return tmp_path


def test_its_folder_is_in_the_layout_of_transformers(folder):
    stored = load_file(folder / TENSORS)
    prefixed = {f"transformer.{name}" for name in PARAMETERS.views}
    assert set(stored) == {"score.weight", *prefixed}
    assert stored["score.weight"].shape == (1, 6)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["GPT2ForSequenceClassification"]
    assert (config["num_labels"], config["pad_token_id"]) == (1, None)
    assert config["score_bias"] == -1.25


@pytest.fixture
def saved(tmp_path, tokenizer):
    """A reward model that was saved, and its folder."""
    config = GPT2Config(tokenizer.n_vocab, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    rng = np.random.default_rng(0)
    score = rng.standard_normal((1, 8), np.float32)
    parameters = with_heads(initialise(config, rng), {"score.weight": score})
    model = RewardModel(parameters, tokenizer, open_template("alpaca"), bias=0.5)
    save_model(tmp_path / "reward", model)
    return model, tmp_path / "reward"


def test_what_is_saved_comes_back(saved):
    model, folder = saved
    again = open_reward_model(str(folder))
    np.testing.assert_array_equal(again.parameters.flat, model.parameters.flat)
    assert again.parameters.shapes == model.parameters.shapes
    assert (again.template, again.bias) == (model.template, 0.5)
    assert again.tokenizer.files == model.tokenizer.files


def test_a_reward_model_cannot_write(saved):
    _, folder = saved
    text = f"{folder} is a reward model: it scores answers and cannot write them"
    with pytest.raises(UserError) as refused:
        open_model(str(folder))
    assert str(refused.value) == text
    with pytest.raises(UserError, match="is a reward model"):
        load_parameters(folder / TENSORS)


def test_a_policy_cannot_score(little_model):
    with pytest.raises(UserError) as refused:
        open_reward_model(str(little_model))
    text = f"{little_model} is no reward model: it has no score.weight; `reward` trains one"
    assert str(refused.value) == text


def test_a_model_is_saved_without_its_value_function(tmp_path, tokenizer, little_model):
    plain = open_model(str(little_model)).parameters
    value = with_heads(plain, {"value.head.weight": np.ones((1, 16), np.float32)})
    save_model(tmp_path / "policy", Model(value, tokenizer, None))
    np.testing.assert_array_equal(open_model(str(tmp_path / "policy")).parameters.flat, plain.flat)


def test_a_bias_that_is_missing_is_zero(saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    del config["score_bias"]
    (folder / "config.json").write_text(json.dumps(config))
    assert open_reward_model(str(folder)).bias == 0


@pytest.mark.parametrize("bias", ["1", None, True, float("inf"), [0.5]])
def test_a_bias_that_is_no_number_is_refused(saved, bias):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "score_bias": bias}))
    with pytest.raises(UserError, match=r"config.json.*"):
        open_reward_model(str(folder))


def test_a_score_for_several_labels_is_refused(folder):
    change(folder, **{"score.weight": np.ones((2, 6), np.float32)})
    with pytest.raises(UserError, match=r"score\.weight has shape \(2, 6\), but .* \(1, 6\)"):
        load_parameters(folder, is_reward_model=True)


def test_names_without_the_prefix_are_taken_too(folder):
    stored = load_file(folder / TENSORS)
    save_file({n.removeprefix("transformer."): t for n, t in stored.items()}, folder / TENSORS)
    again = load_parameters(folder, is_reward_model=True)
    np.testing.assert_array_equal(again.flat, SCORING.flat)
