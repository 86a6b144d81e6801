"""Adapters' files: written, opened, and refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from minigpt2.adapter_weights import (
    check_shape,
    checksum_of,
    is_adapter,
    load_adapters,
    open_adapters,
    save_adapters,
)
from minigpt2.errors import UserError
from minigpt2.model.adapters import LoRA, Origin, with_adapters
from minigpt2.tensors import ADAPTER_CONFIG, ADAPTER_TENSORS
from tests.small_model import CONFIG, PARAMETERS

LAYERS = ("attn.c_attn", "mlp.c_proj")
CHECKSUM = checksum_of(Path("no adapters"), PARAMETERS)
LORA = LoRA(rank=2, alpha=4.0, layers=LAYERS, stabilised=True)


def adapters(lora=LORA):
    """Adapters of the small model."""
    origin = Origin("tiny", CHECKSUM)
    made = with_adapters(PARAMETERS, lora, np.random.default_rng(0), origin)
    made.flat[...] = np.random.default_rng(1).standard_normal(made.flat.size)
    return made


@pytest.fixture
def folder(tmp_path):
    """A folder of adapters."""
    save_adapters(adapters(), tmp_path)
    return tmp_path


def change(folder, **fields):
    """Put fields in place of those of adapter_config.json; None takes one out."""
    path = folder / ADAPTER_CONFIG
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({n: v for n, v in content.items() if v is not None}))


def change_tensors(folder, metadata=None, **tensors):
    """Put tensors in place of those stored; None takes one out."""
    stored = {**load_file(folder / ADAPTER_TENSORS), **tensors}
    stored = {name: tensor for name, tensor in stored.items() if tensor is not None}
    save_file(stored, folder / ADAPTER_TENSORS, metadata)


def refusal(folder, base=PARAMETERS):
    """The error that a folder raises."""
    with pytest.raises(UserError) as refused:
        load_adapters(open_adapters(folder), base, checksum_of(folder / "none", base))
    assert str(folder) in str(refused.value)
    return str(refused.value)


def test_what_is_written_is_read(folder):
    made, read = adapters(), load_adapters(open_adapters(folder), PARAMETERS, CHECKSUM)
    assert read.lora == LORA and read.origin == made.origin
    assert read.base is PARAMETERS
    np.testing.assert_array_equal(read.flat, made.flat)
    assert is_adapter(folder)


def test_names_and_shapes_are_those_of_peft(folder):
    stored = load_file(folder / ADAPTER_TENSORS)
    name = "base_model.model.transformer.h.1.mlp.c_proj.{}.weight".format
    assert stored[name("lora_A")].shape == (2, 24) and stored[name("lora_B")].shape == (6, 2)
    np.testing.assert_array_equal(stored[name("lora_A")], adapters()["h.1.mlp.c_proj.lora_A"].T)
    assert len(stored) == 8
    content = json.loads((folder / ADAPTER_CONFIG).read_text())
    assert content["r"] == 2 and content["lora_alpha"] == 4.0 and content["use_rslora"] is True
    assert content["target_modules"] == list(LAYERS) and content["fan_in_fan_out"] is True
    with safe_open(folder / ADAPTER_TENSORS, framework="numpy") as file:
        assert int(file.metadata()["base_crc32"], 16) == CHECKSUM


def test_a_folder_of_peft_is_opened(folder):
    """Its fields (0.21.2) with their defaults, and no checksum."""
    off = {"exclude_modules": None, "loftq_config": {}, "rank_pattern": {}, "use_dora": False}
    on = {"megatron_core": "megatron.core", "qalora_group_size": 16, "peft_version": "0.21.2"}
    rest = {"auto_mapping": None, "revision": None, "init_lora_weights": True, "lora_bias": False}
    path = folder / ADAPTER_CONFIG
    content = json.loads(path.read_text()) | off | on | rest
    content |= {"base_model_name_or_path": "openai-community/gpt2-large", "lora_alpha": 4}
    path.write_text(json.dumps(content | {"fan_in_fan_out": False, "target_modules": "c_.*"}))
    change_tensors(folder, {"format": "pt"})
    files = open_adapters(folder)
    assert files.origin == Origin("gpt2-large", None)
    np.testing.assert_array_equal(load_adapters(files, PARAMETERS, CHECKSUM).flat, adapters().flat)


@pytest.mark.parametrize("above", ["models", "deep/down", ""])
def test_a_folder_that_is_there_goes_before_an_official_name(folder, monkeypatch, above):
    monkeypatch.chdir(folder)
    name = str(Path(above, "gpt2"))
    Path(name).mkdir(parents=True)
    change(folder, base_model_name_or_path=name)
    assert open_adapters(folder).origin.name == ("gpt2" if above == "models" else name)
    Path(name, "config.json").write_text("{}")
    assert open_adapters(folder).origin.name == name


def test_adapters_of_an_adapted_model_name_its_files_and_not_its_rounded_weights(folder):
    other = PARAMETERS.like(PARAMETERS.flat + 1)
    first = checksum_of(folder, PARAMETERS)
    assert first == checksum_of(folder, other) != CHECKSUM
    change(folder, lora_alpha=5.0)
    assert checksum_of(folder, PARAMETERS) != first


def test_adapters_in_16_bits_are_read(folder):
    stored = load_file(folder / ADAPTER_TENSORS)
    change_tensors(folder, **{name: t.astype(np.float16) for name, t in stored.items()})
    read = load_adapters(open_adapters(folder), PARAMETERS, CHECKSUM)
    assert read.flat.dtype == np.float32
    np.testing.assert_allclose(read.flat, adapters().flat, atol=2e-3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "IA3"}, ["peft_type", "IA3"]),
        ({"peft_type": None}, ["peft_type"]),
        ({"r": 0}, ["r must be", "0"]),
        ({"r": True}, ["r must be", "True"]),
        ({"r": None}, ["r must be"]),
        ({"lora_alpha": -1}, ["lora_alpha", "-1"]),
        ({"lora_alpha": "8"}, ["lora_alpha"]),
        ({"lora_alpha": 10**400}, ["lora_alpha"]),
        ({"use_rslora": "yes"}, ["use_rslora"]),
        ({"bias": "all"}, ["bias"]),
        ({"use_dora": True}, ["use_dora", "True"]),
        ({"rank_pattern": {"c_attn": 4}}, ["rank_pattern"]),
        ({"modules_to_save": ["wte"]}, ["modules_to_save"]),
        ({"layers_to_transform": [0]}, ["layers_to_transform"]),
        ({"init_lora_weights": "pissa_niter_4"}, ["init_lora_weights", "pissa"]),
        ({"base_model_name_or_path": None}, ["base_model_name_or_path"]),
        ({"base_model_name_or_path": "https://example.org/gpt2"}, ["base_model_name_or_path"]),
        ({"base_model_name_or_path": "../../secret"}, ["base_model_name_or_path"]),
        ({"r": 3}, ["shape (2, 6)", "(3, 6)"]),
    ],
)
def test_what_would_change_the_result_is_refused(folder, fields, words):
    change(folder, **fields)
    error = refusal(folder)
    assert "\n" not in error
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lm_head.lora_A.weight": np.ones((2, 6))}, ["lm_head.lora_A.weight"]),
        ({"base_model.model.transformer.h.0.attn.c_attn.lora_B.weight": None}, ["lora_B"]),
        (
            {"base_model.model.transformer.h.5.attn.c_attn.lora_A.weight": np.ones((2, 6))},
            ["h.5.attn.c_attn.lora_A", "no such layer"],
        ),
        (
            {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": np.ones((2, 7))},
            ["(2, 7)"],
        ),
        (
            {
                "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": np.full(
                    (2, 6), np.nan, np.float32
                )
            },
            ["not finite"],
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder, tensors, words):
    change_tensors(folder, **tensors)
    error = refusal(folder)
    assert all(word in error for word in words), error


def test_adapters_of_other_weights_are_refused(folder):
    other = PARAMETERS.like(PARAMETERS.flat + 1)
    error = refusal(folder, other)
    assert "other weights than tiny" in error and ADAPTER_CONFIG in error


@pytest.mark.parametrize("text", ["", "[1]", "{", "null", '{"peft_type": "LORA"'])
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / ADAPTER_CONFIG).write_text(text)
    refusal(folder)


def test_a_pickle_is_not_unpickled_and_an_empty_file_is_refused(folder):
    (folder / ADAPTER_TENSORS).rename(folder / "adapter_model.bin")
    assert "pickle" in refusal(folder)
    save_file({}, folder / ADAPTER_TENSORS)
    assert "no adapters" in refusal(folder)
    change_tensors(folder, {"base_crc32": "xyz"}, **load_all(folder))
    assert "metadata" in refusal(folder)


def load_all(folder):
    """The tensors of whole adapters."""
    whole = folder / "whole"
    whole.mkdir()
    save_adapters(adapters(), whole)
    return load_file(whole / ADAPTER_TENSORS)


def test_a_whole_model_is_no_adapter(folder):
    shutil.copy(folder / ADAPTER_CONFIG, folder / "config.json")
    assert not is_adapter(folder)


def test_a_rank_above_the_features_is_refused():
    check_shape(CONFIG, LoRA(6, 1))
    with pytest.raises(UserError, match="lora_rank is 7"):
        check_shape(CONFIG, LoRA(7, 1))
