"""Writing tensors: what is written is read again, and the checksums are those of the file."""

from zlib import crc32

import numpy as np
import pytest
from safetensors.numpy import load_file

from minigpt2.tensor_writer import HEADER, checksums_of, write_tensors
from tests.kernels.support import device, machine, needs_device


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of seven numbers."""
    monkeypatch.setattr("minigpt2.tensor_writer.PIECE", 7)


def tensors(library=np):
    """Arrays of several shapes and types."""
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 5), "b": (7,), "c": (0,), "d": (2, 2, 4), "e": ()}
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    arrays["half"] = arrays["a"].astype(np.float16)
    return {name: library.asarray(array) for name, array in arrays.items()}


def test_arrays_come_back_in_the_layout_of_the_library(tmp_path, small_pieces):
    checksums = write_tensors(tmp_path / "x.safetensors", tensors())
    loaded = load_file(tmp_path / "x.safetensors")
    for name, array in tensors().items():
        assert loaded[name].dtype == array.dtype and loaded[name].tobytes() == array.tobytes()
        assert checksums[name] == crc32(array.tobytes())
    assert checksums_of(tmp_path / "x.safetensors") == checksums
    content = (tmp_path / "x.safetensors").read_bytes()
    numbers = sum(array.nbytes for array in tensors().values())
    assert checksums[HEADER] == crc32(content[:-numbers]) and len(content[:-numbers]) % 8 == 0


def test_they_can_be_written_in_another_type(tmp_path, small_pieces):
    checksums = write_tensors(tmp_path / "x.safetensors", tensors(), np.float16)
    loaded = load_file(tmp_path / "x.safetensors")
    for name, array in tensors().items():
        np.testing.assert_array_equal(loaded[name], array.astype(np.float16))
    assert checksums_of(tmp_path / "x.safetensors") == checksums


@needs_device
def test_they_come_from_a_device_piece_by_piece(tmp_path, small_pieces):
    with device(machine()) as library:
        arrays = tensors(library)
        checksums = write_tensors(tmp_path / "x.safetensors", arrays)
    assert checksums == write_tensors(tmp_path / "y.safetensors", tensors())


def test_every_flipped_bit_changes_a_checksum(tmp_path):
    checksums = write_tensors(tmp_path / "x.safetensors", {"a": tensors()["a"]})
    content = (tmp_path / "x.safetensors").read_bytes()
    for bit in range(8 * (len(content) - 60), 8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x.safetensors").write_bytes(changed)
        assert checksums_of(tmp_path / "x.safetensors") != checksums
