"""Configuration: what its chapter claims, and what is said of a config.json that cannot be used."""

import json
from dataclasses import asdict, replace
from math import prod

import pytest

from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, TINY, GPT2Config
from minigpt2.model.parameters import tensor_shapes

COUNTS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}
SMALL = GPT2Config(vocab_size=29, n_positions=11, n_embd=15, n_layer=2, n_head=3)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_the_official_checkpoints_hold_the_parameters_of_the_formula(name, count):
    config = OFFICIAL[name]
    assert config.n_parameters == count
    assert sum(map(prod, tensor_shapes(config).values())) == count
    assert (config.vocab_size, config.n_positions) == (50257, 1024)
    assert config.n_embd // config.n_head == 64


def test_there_are_four_official_sizes():
    assert list(OFFICIAL) == list(COUNTS)


@pytest.mark.parametrize("config", [SMALL, TINY, GPT2Config(5, 3, 2, 7, 1)])
def test_the_formula_counts_what_the_tensors_hold(config):
    assert config.n_parameters == sum(map(prod, tensor_shapes(config).values()))


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, layer_norm_epsilon=1e-6)])
def test_a_saved_config_is_loaded_as_it_was(tmp_path, config):
    config.save(tmp_path / "config.json")
    assert GPT2Config.load(tmp_path / "config.json") == config


def test_a_saved_config_is_an_official_one(tmp_path):
    SMALL.save(tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["model_type"] == "gpt2" and values["architectures"] == ["GPT2LMHeadModel"]
    assert values["activation_function"] == "gelu_new" and values["n_ctx"] == 11
    assert values["eos_token_id"] == values["bos_token_id"] == 28
    assert {values[f"{where}_pdrop"] for where in ("embd", "attn", "resid")} == {0.0}
    assert values.items() >= asdict(SMALL).items()


def write(folder, **changes):
    """A config.json in which values are changed, or taken out by None."""
    values = {**asdict(SMALL), "model_type": "gpt2", "activation_function": "gelu_new", **changes}
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return path


def test_what_an_official_config_says_besides_the_shape_is_passed_over(tmp_path):
    beside = {"n_inner": None, "initializer_range": 0.02, "summary_type": "cls_index"}
    assert GPT2Config.load(write(tmp_path, **beside)) == SMALL


@pytest.mark.parametrize("left_out", ["layer_norm_epsilon", "model_type", "activation_function"])
def test_what_gpt2_fixes_may_be_left_out(tmp_path, left_out):
    assert GPT2Config.load(write(tmp_path, **{left_out: ...})) == SMALL


FLAGS = {"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"}


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_what_attention_does_is_read_and_saved(tmp_path, name):
    other = replace(SMALL, **{name: not getattr(SMALL, name)})
    loaded = GPT2Config.load(write(tmp_path, **{name: getattr(other, name)}))
    assert loaded == other != SMALL
    loaded.save(tmp_path / "config.json")
    assert GPT2Config.load(tmp_path / "config.json") == other


def test_scores_are_divided_as_the_config_says():
    deep = replace(SMALL, n_embd=27, n_layer=3)  # heads of 9 features
    by_layer, plain = {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}
    for changes, divisors in (
        ({}, [3, 3, 3]),
        (by_layer, [3, 6, 9]),
        (plain, [1, 1, 1]),
        (by_layer | plain, [1, 2, 3]),
        ({"reorder_and_upcast_attn": True}, [3, 3, 3]),
    ):
        config = replace(deep, **changes)
        assert [config.divisor(layer) for layer in range(3)] == divisors


@pytest.mark.parametrize("name", ["gelu_fast", "gelu_accurate", "gelu_pytorch_tanh"])
def test_other_names_of_the_same_gelu_are_read(tmp_path, name):
    assert GPT2Config.load(write(tmp_path, activation_function=name)) == SMALL


def test_hidden_features_may_be_told_if_they_are_4c(tmp_path):
    assert GPT2Config.load(write(tmp_path, n_inner=60)) == SMALL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, ["does not describe a GPT-2"]),
        ({"activation_function": "relu"}, ["'relu'", "gelu_new"]),
        ({"n_inner": 61}, ["n_inner is 61", "60 hidden features", "4 x n_embd"]),
        ({"activation_function": "gelu"}, ["activation_function is 'gelu'", "tanh"]),
        ({"activation_function": ["gelu_new"]}, ["activation_function is"]),
        ({"n_inner": 0}, ["n_inner is 0"]),
        ({"tie_word_embeddings": False}, ["tie_word_embeddings", "token table"]),
        ({"add_cross_attention": True}, ["add_cross_attention"]),
        *(({name: 1}, [name, "true or false", "1"]) for name in sorted(FLAGS)),
        ({"n_embd": 7_000_000_000}, ["n_embd must be at most 2,147,483,647", "7,000,000,000"]),
        ({"n_layer": 1_000_000_000}, ["n_layer must be at most 10,000", "1,000,000,000"]),
        ({"n_layer": 10**400}, ["n_layer", "a number of 401 digits"]),
        ({"n_layer": "x" * 10**6}, ["n_layer", "'xxx"]),
        ({"n_layer": ...}, ["has no n_layer"]),
        ({"n_head": ..., "vocab_size": ...}, ["has no vocab_size, n_head"]),
        ({"n_layer": 0}, ["n_layer", "positive", "0"]),
        ({"n_positions": -3}, ["n_positions", "positive", "-3"]),
        ({"n_head": 4}, ["n_embd 15", "multiple", "n_head 4"]),
        ({"vocab_size": 29.0}, ["vocab_size", "whole", "29.0"]),
        ({"n_embd": "15"}, ["n_embd", "whole", "'15'"]),
        ({"n_embd": None}, ["n_embd"]),
        ({"n_embd": {}}, ["n_embd"]),
        ({"n_layer": True}, ["n_layer", "True"]),
        ({"layer_norm_epsilon": "1e-5"}, ["layer_norm_epsilon", "'1e-5'"]),
        ({"layer_norm_epsilon": None}, ["layer_norm_epsilon", "None"]),
        ({"layer_norm_epsilon": -1e-5}, ["layer_norm_epsilon", "-1e-05"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_config_that_is_no_gpt2s_is_refused(tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        GPT2Config.load(write(tmp_path, **changes))
    assert all(word in str(error.value) for word in words), error.value
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("changes", [{"n_layer": 0}, {"n_head": 4}, {"n_layer": ...}], ids=str)
def test_the_error_names_the_file(tmp_path, changes):
    path = write(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        GPT2Config.load(path)
    assert str(path) in str(error.value)


DAMAGED = [b"{", b"", b"\xff\xfe{}", b"[1, 2]", b"3", b"null", b"[" * 100_000, b" " * (1 << 21)]


@pytest.mark.parametrize("contents", DAMAGED, ids=lambda contents: repr(contents[:9]))
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path, contents):
    path = tmp_path / "config.json"
    path.write_bytes(contents)
    with pytest.raises(UserError) as error:
        GPT2Config.load(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_told_by_name(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*no-such-folder"):
        GPT2Config.load(tmp_path / "no-such-folder" / "config.json")
