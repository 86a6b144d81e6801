"""Weights: which folders and files are taken, and what is said of the others."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2 import weights
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import initialise
from minigpt2.weights import TENSORS, find_model, load_parameters, save_parameters

CONFIG = GPT2Config(vocab_size=13, n_positions=5, n_embd=6, n_layer=2, n_head=2)
PARAMETERS = initialise(CONFIG, np.random.default_rng(0))


@pytest.fixture
def folder(tmp_path):
    """The folder of a small model."""
    save_parameters(PARAMETERS, tmp_path)
    return tmp_path


def change(folder, **tensors):
    """Put tensors in place of those stored; None takes one out."""
    stored = {**load_file(folder / TENSORS), **tensors}
    save_file({n: t for n, t in stored.items() if t is not None}, folder / TENSORS)


def refusal(folder):
    """What is said of a folder."""
    with pytest.raises(UserError) as error:
        load_parameters(folder)
    assert str(folder / TENSORS) in str(error.value)
    return str(error.value)


def assert_loaded(folder):
    """The folder holds the parameters as they were."""
    np.testing.assert_array_equal(load_parameters(folder).flat, PARAMETERS.flat)


def test_tensors_are_stored_under_their_official_names_and_shapes(folder):
    stored = load_file(folder / TENSORS)
    assert {name: t.shape for name, t in stored.items()} == {
        name: view.shape for name, view in PARAMETERS.views.items()
    }
    for name, view in PARAMETERS.views.items():
        np.testing.assert_array_equal(stored[name], view)  # [in, out]: no transpose
    assert_loaded(folder)


def test_names_may_carry_a_prefix(folder):
    stored = load_file(folder / TENSORS)
    save_file({f"transformer.{name}": t for name, t in stored.items()}, folder / TENSORS)
    assert_loaded(folder)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_masks_are_passed_over(folder, prefix):
    mask = np.tril(np.ones((1, 1, 5, 5), np.float32))
    masks = {f"{prefix}h.{i}.attn.bias": mask for i in range(2)}
    change(folder, **masks, **{f"{prefix}h.1.attn.masked_bias": np.array(-1e4, np.float32)})
    assert_loaded(folder)


def test_the_head_is_passed_over_for_it_is_wte_again(folder):
    change(folder, **{"lm_head.weight": PARAMETERS["wte.weight"]})
    assert_loaded(folder)


def test_a_missing_tensor_is_named(folder):
    change(folder, **{"h.1.mlp.c_fc.bias": None})
    assert "has no tensor h.1.mlp.c_fc.bias" in refusal(folder)


@pytest.mark.parametrize("name", ["h.2.ln_1.weight", "score.weight", "h.0.attn.biases"])
def test_a_tensor_that_a_model_of_this_shape_has_no_use_for_is_named(folder, name):
    change(folder, **{name: np.zeros(6, np.float32)})
    assert f"has a tensor {name}" in refusal(folder)


@pytest.mark.parametrize("shape", [(18, 6), (6, 17), (108,), (1, 6, 18)])
def test_a_tensor_of_another_shape_is_named_with_both(folder, shape):
    change(folder, **{"h.0.attn.c_attn.weight": np.zeros(shape, np.float32)})
    said = refusal(folder)
    assert all(w in said for w in ("h.0.attn.c_attn.weight", str(shape), "(6, 18)"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_told_with_its_tensor(folder, bad):
    tensor = PARAMETERS["h.1.mlp.c_proj.weight"].copy()
    tensor[3, 2] = bad
    change(folder, **{"h.1.mlp.c_proj.weight": tensor})
    said = refusal(folder)
    assert "h.1.mlp.c_proj.weight" in said and "not finite" in said


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -500])
def test_a_truncated_file_is_refused(folder, keep):
    contents = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(contents[:keep])
    assert "cannot be read as safetensors" in refusal(folder)


def test_a_file_that_is_no_safetensors_is_refused(folder):
    (folder / TENSORS).write_bytes(b"\x80\x04\x95 a pickle" * 9)
    assert "cannot be read as safetensors" in refusal(folder)


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_numbers_that_numpy_does_not_know_are_refused(folder, kind, size):
    header, data = {}, b""
    for name, view in PARAMETERS.views.items():
        offsets = [len(data), len(data) + view.size * size]
        header[name] = {"dtype": kind, "shape": view.shape, "data_offsets": offsets}
        data += bytes(view.size * size)
    text = json.dumps(header).encode()
    (folder / TENSORS).write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert refusal(folder)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_other_precisions_are_loaded_as_single(folder, dtype):
    save_parameters(PARAMETERS, folder, dtype)
    loaded = load_parameters(folder)
    assert loaded.flat.dtype == np.float32
    np.testing.assert_allclose(loaded.flat, PARAMETERS.flat, rtol=1e-3, atol=1e-7)


def test_a_folder_without_tensors_is_refused_by_the_files_name(folder):
    (folder / TENSORS).unlink()
    assert "there is no file" in refusal(folder)


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        load_parameters(folder)


def test_a_model_is_found_by_its_folder_its_run_and_its_name(tmp_path, monkeypatch):
    for path in ("model", "run/checkpoint", "weights/small", "here/weights/mine"):
        (tmp_path / path).mkdir(parents=True)
        save_parameters(PARAMETERS, tmp_path / path)
    monkeypatch.setattr(weights, "HERE", tmp_path / "package")
    monkeypatch.chdir(tmp_path / "here")
    assert find_model(str(tmp_path / "model")) == tmp_path / "model"
    assert find_model(str(tmp_path / "run")) == tmp_path / "run" / "checkpoint"
    assert find_model("small") == tmp_path / "weights" / "small"
    assert find_model("mine").resolve() == tmp_path / "here" / "weights" / "mine"


def test_what_ships_is_found_inside_an_installed_package_first(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "HERE", tmp_path / "package")
    (tmp_path / "weights" / "small").mkdir(parents=True)
    assert weights.shipped("weights/small") == tmp_path / "weights" / "small"
    installed = tmp_path / "package" / "_shipped" / "weights" / "small"
    installed.mkdir(parents=True)
    assert weights.shipped("weights/small") == installed


def test_a_folder_without_a_model_is_told_so(tmp_path):
    with pytest.raises(UserError, match=r"holds no model: it has no config\.json"):
        find_model(str(tmp_path))


def test_a_name_that_is_not_there_is_told_with_those_that_could_be():
    with pytest.raises(UserError) as error:
        find_model("no-such-model")
    for word in ("'no-such-model'", "tiny", "gpt2-large", "config.json", TENSORS):
        assert word in str(error.value)


def test_an_official_model_that_is_not_there_is_told_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "HERE", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"not in weights/gpt2-large: put the official files there"):
        find_model("gpt2-large")
