"""Weights: which folders and files are models, and the errors for the others."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2 import shipped as place_of_files
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model_folders import checkpoints_of, find_model
from minigpt2.weights import TENSORS, load_parameters, save_parameters
from tests.small_model import CONFIG, PARAMETERS, assert_loaded, change, refusal


@pytest.fixture
def folder(tmp_path):
    """The folder of a small model."""
    save_parameters(PARAMETERS, tmp_path)
    return tmp_path


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


def test_the_head_stands_for_wte_where_it_is_alone(folder):
    """safetensors' save_model writes a tensor that has two names under one of them."""
    change(folder, **{"lm_head.weight": PARAMETERS["wte.weight"], "wte.weight": None})
    assert_loaded(folder)


def test_a_missing_tensor_is_named(folder):
    change(folder, **{"h.1.mlp.c_fc.bias": None})
    assert "has no tensor h.1.mlp.c_fc.bias" in refusal(folder)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"n_layer": 10_000}, "has 2 layers, but config.json asks for 10,000"),
        ({"n_embd": 2**31 - 2}, "(13, 6), but config.json asks for (13, 2147483646)"),
        ({"vocab_size": 2**31 - 1}, "wte.weight has shape (13, 6), but config.json asks for (2147"),
        ({"n_positions": 2**31 - 1}, "wpe.weight has shape (5, 6), but config.json asks for (2147"),
    ],
    ids=str,
)
def test_sizes_are_compared_with_the_file_before_anything_is_built(folder, sizes, words):
    replace(CONFIG, **sizes).save(folder / "config.json")
    tracemalloc.start()
    try:
        error = refusal(folder)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert words in error and most < 1e6


@pytest.mark.parametrize("name", ["h.2.ln_1.weight", "value.head.weight", "h.0.attn.biases"])
def test_a_tensor_that_a_model_of_this_shape_has_no_use_for_is_named(folder, name):
    change(folder, **{name: np.zeros(6, np.float32)})
    assert f"has a tensor {name}" in refusal(folder)


def test_a_head_that_is_not_wte_is_refused(folder):
    change(folder, **{"lm_head.weight": PARAMETERS["wte.weight"] + 1e-3})
    assert "lm_head.weight differs from wte.weight" in refusal(folder)
    change(folder, **{"lm_head.weight": np.zeros((3, 6), np.float32)})
    assert "lm_head.weight differs from wte.weight" in refusal(folder)


def test_a_single_file_is_a_model(tmp_path):
    config = GPT2Config(vocab_size=13, n_positions=5, n_embd=128, n_layer=3, n_head=2)
    parameters = initialise(config, np.random.default_rng(0))
    save_parameters(parameters, tmp_path)
    (tmp_path / "config.json").unlink()
    loaded = load_parameters(find_model(str(tmp_path / TENSORS)))
    assert loaded.config == config
    np.testing.assert_array_equal(loaded.flat, parameters.flat)


def test_a_single_file_uses_the_config_beside_it_or_says_that_it_needs_one(folder):
    assert load_parameters(folder / TENSORS).config == CONFIG
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"6 features, not a multiple of 64.*config\.json"):
        load_parameters(folder / TENSORS)
    save_file({"a": np.zeros(3)}, folder / TENSORS)
    with pytest.raises(UserError, match="does not hold a GPT-2"):
        load_parameters(folder / TENSORS)


def test_export_and_load_give_the_same_bytes(folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    save_parameters(load_parameters(folder), again)
    for name in (TENSORS, "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        load_parameters(folder)


def test_a_model_is_found_by_its_folder_its_run_and_its_name(tmp_path, monkeypatch):
    for path in ("model", "run/checkpoint", "weights/small", "here/weights/mine"):
        (tmp_path / path).mkdir(parents=True)
        save_parameters(PARAMETERS, tmp_path / path)
    monkeypatch.setattr(place_of_files, "HERE", tmp_path / "package")
    monkeypatch.chdir(tmp_path / "here")
    assert find_model(str(tmp_path / "model")) == tmp_path / "model"
    assert find_model(str(tmp_path / "run")) == tmp_path / "run" / "checkpoint"
    assert find_model("small") == tmp_path / "weights" / "small"
    assert find_model("mine").resolve() == tmp_path / "here" / "weights" / "mine"


def test_the_model_of_a_run_is_its_newest_checkpoint(tmp_path):
    run = tmp_path / "run"
    for name in ("checkpoint", "checkpoint-000009", "checkpoint-1000000", "checkpoint-999999"):
        (run / name).mkdir(parents=True)
        save_parameters(PARAMETERS, run / name)
    for name in (".checkpoint-2000000.1", "checkpoint-2000000.old", "checkpoint-٣٣٣٣٣٣٣٣"):
        (run / name).mkdir()
    (run / "checkpoint-3000000").touch()
    assert find_model(str(run)) == run / "checkpoint-1000000"
    assert find_model(str(run / "checkpoint-000009")) == run / "checkpoint-000009"
    numbers = [int(path.name.split("-")[1]) for path in checkpoints_of(run)]
    assert numbers == [9, 999_999, 1_000_000]


@pytest.mark.parametrize("name", [TENSORS, "config.json"])
@pytest.mark.parametrize("harm", ["cut", "missing"])
def test_a_damaged_newest_checkpoint_is_told_with_the_one_before_it(tmp_path, name, harm):
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step:06}"
        folder.mkdir()
        save_parameters(PARAMETERS, folder)
    path = folder / name
    path.write_bytes(path.read_bytes()[:-9]) if harm == "cut" else path.unlink()
    text = rf"checkpoint-000002 is damaged: .*{name}.*; use .*checkpoint-000001, the one before it$"
    with pytest.raises(UserError, match=text):
        find_model(str(tmp_path))


def test_a_bit_that_a_disk_flips_in_a_checkpoint_is_told(tmp_path):
    checksums = save_parameters(PARAMETERS, tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"files": {TENSORS: checksums}}))
    np.testing.assert_array_equal(load_parameters(tmp_path).flat, PARAMETERS.flat)
    contents = bytearray((tmp_path / TENSORS).read_bytes())
    contents[-3] ^= 1
    (tmp_path / TENSORS).write_bytes(contents)
    with pytest.raises(
        UserError, match=rf"{TENSORS} is damaged: \S+ is not what was written; take"
    ):
        load_parameters(tmp_path)
    (tmp_path / "state.json").write_text("{}")  # no checksums: not a checkpoint of this program
    load_parameters(tmp_path)


def test_a_run_that_has_saved_nothing_is_told_so(tmp_path):
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(UserError, match="holds a run without a checkpoint yet"):
        find_model(str(tmp_path))


def test_a_folder_that_cannot_be_read_is_told_so(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        find_model(str(tmp_path))


def test_what_ships_is_found_inside_an_installed_package_first(tmp_path, monkeypatch):
    monkeypatch.setattr(place_of_files, "HERE", tmp_path / "package")
    (tmp_path / "weights" / "small").mkdir(parents=True)
    assert place_of_files.shipped("weights/small") == tmp_path / "weights" / "small"
    installed = tmp_path / "package" / "_shipped" / "weights" / "small"
    installed.mkdir(parents=True)
    assert place_of_files.shipped("weights/small") == installed


def test_a_folder_without_a_model_is_told_so(tmp_path):
    with pytest.raises(UserError, match=r"holds no model: it has no config\.json"):
        find_model(str(tmp_path))


def test_a_name_that_is_not_there_is_told_with_those_that_could_be():
    with pytest.raises(UserError) as error:
        find_model("no-such-model")
    for word in ("'no-such-model'", "tiny", "gpt2-large", "config.json", TENSORS):
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "a\0b", ""])
def test_a_name_that_the_system_refuses_is_no_model(name):
    with pytest.raises(UserError, match=r"there is no model '[^ ]*: give a folder"):
        find_model(name)


def test_an_official_model_that_is_not_there_is_told_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(place_of_files, "HERE", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`minigpt2 download gpt2-large` fetches them"):
        find_model("gpt2-large")
