"""Weights: which folders and files are taken, and the errors for the others."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from minigpt2 import shipped as place_of_files
from minigpt2 import tensors
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
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
    """The error that a folder raises."""
    with pytest.raises(UserError) as refused:
        load_parameters(folder)
    assert str(folder / TENSORS) in str(refused.value)
    return str(refused.value)


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
    error = refusal(folder)
    assert all(w in error for w in ("h.0.attn.c_attn.weight", str(shape), "(6, 18)"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_told_with_its_tensor(folder, bad):
    tensor = PARAMETERS["h.1.mlp.c_proj.weight"].copy()
    tensor[3, 2] = bad
    change(folder, **{"h.1.mlp.c_proj.weight": tensor})
    error = refusal(folder)
    assert "h.1.mlp.c_proj.weight" in error and "not finite" in error


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -500])
def test_a_truncated_file_is_refused(folder, keep):
    contents = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(contents[:keep])
    assert "cannot be read as safetensors" in refusal(folder)


def test_a_file_that_is_no_safetensors_is_refused(folder):
    (folder / TENSORS).write_bytes(b"something else" * 9)
    assert "cannot be read as safetensors" in refusal(folder)


def write_raw(folder, kind, tensors):
    """Write tensors, given as bytes, as numbers of a kind."""
    header, data = {}, b""
    for name, raw in tensors.items():
        shape = PARAMETERS[name].shape
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), 0]}
        data += raw
        header[name]["data_offsets"][1] = len(data)
    text = json.dumps(header).encode()
    (folder / TENSORS).write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_bfloat16_is_the_upper_half_of_single_precision(folder):
    upper = {n: (v.view(np.uint32) >> 16).astype("<u2") for n, v in PARAMETERS.views.items()}
    write_raw(folder, "BF16", {name: half.tobytes() for name, half in upper.items()})
    loaded = load_parameters(folder)
    for name, view in loaded.views.items():
        np.testing.assert_array_equal(view.view(np.uint32) >> 16, upper[name])
        assert not (view.view(np.uint32) & 0xFFFF).any()
    np.testing.assert_allclose(loaded.flat, PARAMETERS.flat, rtol=2**-7)


@pytest.mark.parametrize(("kind", "size"), [("F8_E4M3", 1), ("I32", 4), ("BOOL", 1)])
def test_numbers_of_another_kind_are_refused(folder, kind, size):
    write_raw(folder, kind, {n: bytes(v.size * size) for n, v in PARAMETERS.views.items()})
    assert f"holds {kind} numbers" in refusal(folder)


def test_a_head_that_is_not_wte_is_refused(folder):
    change(folder, **{"lm_head.weight": PARAMETERS["wte.weight"] + 1e-3})
    assert "lm_head.weight differs from wte.weight" in refusal(folder)
    change(folder, **{"lm_head.weight": np.zeros((3, 6), np.float32)})
    assert "lm_head.weight differs from wte.weight" in refusal(folder)


def test_a_pickle_is_never_unpickled(folder):
    for begin in (b"\x80\x02", b"PK\x03\x04"):
        (folder / TENSORS).write_bytes(begin + bytes(100))
        assert "a pickle, which could run any program" in refusal(folder)
    (folder / TENSORS).rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle, which is never unpickled" in refusal(folder)


def shard(folder, parts=2):
    """Cut the model's file into several with an index."""
    stored = load_file(folder / TENSORS)
    (folder / TENSORS).unlink()
    names = sorted(stored)
    weight_map = {}
    for k in range(parts):
        file = f"model-0000{k + 1}-of-0000{parts}.safetensors"
        save_file({name: stored[name] for name in names[k::parts]}, folder / file)
        weight_map |= dict.fromkeys(names[k::parts], file)
    return weight_map


def write_index(folder, weight_map):
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / tensors.INDEX).write_text(json.dumps(index))


def test_a_model_in_several_files_is_loaded_through_its_index(folder):
    write_index(folder, shard(folder, 3))
    assert_loaded(folder)


def test_an_index_that_is_wrong_is_refused(folder):
    weight_map = shard(folder)
    name = next(iter(weight_map))
    for wrong, error in (
        ({**weight_map, name: "model-9.safetensors"}, "model-9.safetensors"),
        (
            {**weight_map, name: weight_map[name].replace("00001-of", "00002-of")},
            "does not have it",
        ),
        ([1], "index"),
        ({name: 5}, "index"),
    ):
        write_index(folder, wrong)
        with pytest.raises(UserError, match=error):
            load_parameters(folder)
    (folder / tensors.INDEX).write_text("[" * 100_000)
    with pytest.raises(UserError, match="index"):
        load_parameters(folder)


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


def test_a_tensor_larger_than_a_chunk_is_read_whole(folder, monkeypatch):
    monkeypatch.setattr(tensors, "CHUNK", 7)
    assert_loaded(folder)
    change(folder, **{"lm_head.weight": PARAMETERS["wte.weight"]})
    assert_loaded(folder)
    save_parameters(PARAMETERS, folder, np.float16)
    half = PARAMETERS.flat.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(load_parameters(folder).flat, half)


def test_large_but_finite_numbers_are_taken(folder):
    tensor = PARAMETERS["h.0.ln_1.weight"].copy()
    tensor[0] = 3e38  # its square is infinite in single precision
    change(folder, **{"h.0.ln_1.weight": tensor})
    assert load_parameters(folder)["h.0.ln_1.weight"][0] == np.float32(3e38)


def test_export_and_load_give_the_same_bytes(folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    save_parameters(load_parameters(folder), again)
    for name in (TENSORS, "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def header_and_data(folder):
    contents = (folder / TENSORS).read_bytes()
    (length,) = struct.unpack("<Q", contents[:8])
    return json.loads(contents[8 : 8 + length]), contents[8 + length :]


def put(folder, header, data, length=None):
    text = json.dumps(header).encode()
    begin = struct.pack("<Q", len(text) if length is None else length)
    (folder / TENSORS).write_bytes(begin + text + data)


def test_a_header_longer_than_the_file_is_refused(folder):
    header, data = header_and_data(folder)
    for length in (10**6, 10**9, 2**63):
        put(folder, header, data, length)
        assert "cannot be read as safetensors" in refusal(folder)


def test_offsets_that_overlap_or_leave_the_file_are_refused(folder):
    header, data = header_and_data(folder)
    first, second = list(header)[1:3]
    for offsets in ([0, 312], [8, 320], [-4, 308], [10**9, 10**9 + 312]):
        wrong = {**header, second: {**header[second], "data_offsets": offsets}}
        put(folder, wrong, data)
        assert "cannot be read as safetensors" in refusal(folder), (first, offsets)


@given(st.data())
def test_whatever_the_file_holds_the_answer_is_parameters_or_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    save_parameters(PARAMETERS, folder)
    contents = bytearray((folder / TENSORS).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 1500) | st.integers(0, len(contents) - 1))
        contents[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (folder / TENSORS).write_bytes(bytes(contents))
    try:
        assert np.isfinite(load_parameters(folder).flat).all()
    except UserError as error:
        assert "\n" not in str(error)


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
    monkeypatch.setattr(place_of_files, "HERE", tmp_path / "package")
    monkeypatch.chdir(tmp_path / "here")
    assert find_model(str(tmp_path / "model")) == tmp_path / "model"
    assert find_model(str(tmp_path / "run")) == tmp_path / "run" / "checkpoint"
    assert find_model("small") == tmp_path / "weights" / "small"
    assert find_model("mine").resolve() == tmp_path / "here" / "weights" / "mine"


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


def test_an_official_model_that_is_not_there_is_told_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(place_of_files, "HERE", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`minigpt2 download gpt2-large` fetches them"):
        find_model("gpt2-large")
