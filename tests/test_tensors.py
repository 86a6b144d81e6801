"""Stored tensors: whatever a file holds is read exactly, or refused with the name of the tensor."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from minigpt2 import tensors
from minigpt2.errors import UserError
from minigpt2.weights import TENSORS, load_parameters, save_parameters
from tests.small_model import PARAMETERS, assert_loaded, change, refusal


@pytest.fixture
def folder(tmp_path):
    """The folder of a small model."""
    save_parameters(PARAMETERS, tmp_path)
    return tmp_path


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
        (None, "is not an index of tensors: it has no weight_map from their names to files"),
        ({name: 5}, "a number, which names no file of the same folder"),
        ({name: "x" * 1_000_000}, "which names no file"),
        ({**weight_map, "x" * 1_000_000: weight_map[name]}, "says that x+… is in model-0"),
    ):
        write_index(folder, wrong)
        with pytest.raises(UserError, match=error) as refused:
            load_parameters(folder)
        assert len(str(refused.value)) < 600
    for text in ("", "[]", "{}", "[" * 100_000, '{"weight_map": 1}', " " * (1 << 25)):
        (folder / tensors.INDEX).write_text(text)
        with pytest.raises(UserError, match="index"):
            load_parameters(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../{}",
        "/tmp/{}",
        "a/{}",
        "./{}",
        "..",
        ".",
        "",
        "{}\n",
        "{}\0",
        "{}\ud800",
        "{}\u2028",
        "a/",
    ],
)
def test_an_index_names_files_of_its_own_folder(folder, name):
    """Also one that would be found: nothing outside of the folder is opened."""
    weight_map = shard(folder)
    tensor, file = next(iter(weight_map.items()))
    (folder / "a").mkdir()
    for other in (folder.parent, folder / "a"):
        (other / file).write_bytes((folder / file).read_bytes())
    write_index(folder, {**weight_map, tensor: name.format(file)})
    with pytest.raises(UserError, match="which names no file of the same folder") as refused:
        load_parameters(folder)
    assert str(folder / tensors.INDEX) in str(refused.value) and "\n" not in str(refused.value)


def test_links_are_followed_as_the_hubs_cache_consists_of_them(folder):
    (folder / "blob").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(folder / "blob" / path.name)
        path.symlink_to(Path("blob") / path.name)
    assert_loaded(folder)


def test_a_shard_that_is_a_pipe_is_not_waited_for(folder):
    weight_map = shard(folder)
    file = next(iter(weight_map.values()))
    write_index(folder, weight_map)
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(UserError, match=f"there is no file .*{file}"):
        load_parameters(folder)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("I64", (2,)), ("BOOL", ()), ("F32", (0, 2**62)), ("F32", (1,) * 70)]
)
def test_what_is_no_array_of_numbers_is_refused(dtype, shape):
    stored = tensors.StoredTensor(Path("a.safetensors"), dtype, shape, 0)
    with pytest.raises(UserError, match=f"a.safetensors: m cannot be an array of {dtype} numbers"):
        tensors.new_array("m", stored)
    assert tensors.new_array("m", stored._replace(dtype="F16", shape=(2, 0))).shape == (2, 0)


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
