"""Stored tensors: safetensors files, read straight into the arrays of a model.

Why
    The weights of GPT-2 Large take 3 GB.  A program that first makes arrays of what
    a file holds and then copies them to their places needs twice that.  Here the
    numbers go from the file into the flat array, a chunk at a time, and are checked
    while they are still in the processor's cache.

Format (safetensors)
    8 bytes, little-endian: the length n of the header.
    n bytes of JSON: for each tensor its dtype, its shape, and the range of bytes
    after the header that holds its numbers.
    The numbers, little-endian, without gaps.
    A large model may be split into several files; model.safetensors.index.json then
    says which file holds each tensor.

    The safetensors library checks a file's header and offsets; nothing here unpickles.

Dtypes
    F64, F32 and F16 are NumPy's own.  BF16 is the upper half of an F32, so shifting it
    up by 16 bits is exact.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import isfinite, prod
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from minigpt2.backend import Array, array_module
from minigpt2.errors import UserError
from minigpt2.reading import parse_json, quoted, read_text
from minigpt2.wording import shorten

TENSORS = "model.safetensors"
ADAPTER_CONFIG, ADAPTER_TENSORS = "adapter_config.json", "adapter_model.safetensors"  # as in peft
INDEX = f"{TENSORS}.index.json"
PICKLES = (b"\x80", b"PK")  # the first bytes of torch.save's files, old and new
PICKLE_REFUSED = (
    "it is a pickle, which could run any program, so it is never unpickled; "
    "get the model's safetensors file"
)
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
LARGEST_INDEX = 1 << 24  # bytes
LONGEST_NAME = 255  # characters of a file's name
CHUNK = 1 << 18  # numbers read at a time: 1 MiB in F32


def folder_of(path: Path) -> Path:
    """Return the folder of a model, of which a path is that folder or a file in it."""
    return path.parent if path.is_file() else path


class StoredTensor(NamedTuple):
    """Where a tensor is stored, and how."""

    path: Path
    dtype: str  # one of DTYPES, or one that is refused
    shape: tuple[int, ...]
    start: int  # the byte of the file at which its numbers begin

    @property
    def bytes(self) -> int:
        """How many bytes its numbers take."""
        return prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize


def open_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return where one file stores its tensors; raises UserError if the file is damaged."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy"):  # checks the header and all offsets
            pass
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = PICKLE_REFUSED if is_pickle(path) else shorten(text, width=200)
        raise UserError(f"{path} cannot be read as safetensors: {reason}") from None
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(path, t["dtype"], tuple(t["shape"]), 8 + length + t["data_offsets"][0])
        for name, t in header.items()
    }


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle does."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(2).startswith(PICKLES)
    return False


def open_folder(folder: Path) -> dict[str, StoredTensor]:
    """Return where a model's folder stores its tensors, in one file or in several.

    Raises UserError if a file is missing or damaged.
    """
    single, index = folder / TENSORS, folder / INDEX
    if single.is_file():
        return open_tensors(single)
    if not index.is_file():
        raise UserError(f"there is no file {single}{pickle_hint(folder)}")
    file_of = read_index(index)
    shards = {name: open_tensors(folder / name) for name in set(file_of.values())}
    for name, shard in file_of.items():
        if name not in shards[shard]:
            raise UserError(
                f"{index} says that {shorten(name)} is in {shard}, which does not have it"
            )
    return {name: shards[shard][name] for name, shard in file_of.items()}


def read_index(index: Path) -> dict[str, str]:
    """Return the file of each tensor; raises UserError, also for a file of another folder."""
    content = parse_json(read_text(index, LARGEST_INDEX), index)
    file_of = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(file_of, dict):
        raise UserError(
            f"{index} is not an index of tensors: it has no weight_map from their names to files"
        )
    for name, file in file_of.items():
        if not is_file_name(file):
            raise UserError(
                f"{index} says that {shorten(name)} is in {quoted(file)}, which names no file of "
                "the same folder"
            )
    return file_of


def is_file_name(name: object) -> bool:
    """Whether a JSON value can name a file of a folder, and nothing outside of it."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST_NAME
        and name.isprintable()
        and Path(name).name == name != ".."
    )


def pickle_hint(folder: Path) -> str:
    """Return what to add to an error about missing safetensors if the folder has a pickle."""
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    return f"; {pickles[0]} is a pickle, which is never unpickled" if pickles else ""


def new_array(name: str, stored: StoredTensor, xp: ModuleType = np) -> Array:
    """Return an array for a stored tensor of any shape, with nothing read into it.

    Raises UserError if it holds no numbers that are computed with, or cannot be an array.
    """
    try:
        return xp.empty(stored.shape, np.dtype(DTYPES[stored.dtype]))
    except (KeyError, ValueError):
        raise UserError(
            f"{stored.path}: {name} cannot be an array of {stored.dtype} numbers"
        ) from None


def read_chunks(
    name: str, stored: StoredTensor, array_for: Callable[[slice], Array], *, finite: bool = True
) -> Iterator[tuple[Array, slice]]:
    """Read a tensor's numbers chunk by chunk; yield each array and its place in the flat tensor.

    `array_for(place)` returns the array that the numbers of a place are read into.  Raises
    UserError for a dtype that is not known, and if `finite` for a number that is not finite.
    """
    if stored.dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise UserError(f"{stored.path}: {name} holds {stored.dtype} numbers; known are {known}")
    dtype, size = np.dtype(DTYPES[stored.dtype]), prod(stored.shape)
    with open(stored.path, "rb") as file:
        file.seek(stored.start)
        for start in range(0, size, CHUNK):
            place = slice(start, min(start + CHUNK, size))
            chunk = array_for(place)
            if stored.dtype != "BF16" and dtype == chunk.dtype:
                file.readinto(chunk.view(np.uint8))
            else:
                chunk[...] = as_floats(np.fromfile(file, dtype, chunk.size), stored.dtype)
            if finite and not (isfinite(sum_of_squares(chunk)) or np.isfinite(chunk).all()):
                raise UserError(f"{stored.path}: {name} holds numbers that are not finite")
            yield chunk, place


def sum_of_squares(chunk: Array) -> float:
    """Return the sum of squares: one fast product, finite only if every number is."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(chunk @ chunk)


def as_floats(numbers: Array, dtype: str) -> Array:
    """Return numbers unchanged, or BF16 as the F32 of which they are the upper half."""
    return (numbers.astype("<u4") << 16).view("<f4") if dtype == "BF16" else numbers


def read_into(name: str, stored: StoredTensor, array: Array, *, finite: bool = True) -> None:
    """Read a tensor into a contiguous array, on the host or on a device.

    Raises UserError if their shapes differ, and if `finite` for a number that is not finite.
    """
    require_shape(name, stored, array.shape)
    xp, flat = array_module(array), array.reshape(-1)
    if xp is np:
        for _ in read_chunks(name, stored, flat.__getitem__, finite=finite):
            pass
        return
    scratch = np.empty(min(CHUNK, flat.size), flat.dtype)
    chunks = read_chunks(name, stored, lambda p: scratch[: p.stop - p.start], finite=finite)
    for chunk, place in chunks:
        flat[place] = xp.asarray(chunk)


def require_tensor(name: str, stored: Mapping[str, StoredTensor], path: Path) -> None:
    """Raise UserError unless a file stores a tensor of this name."""
    if name not in stored:
        raise UserError(f"{path} has no tensor {name}")


def require_shape(name: str, stored: StoredTensor, shape: tuple[int, ...]) -> None:
    """Raise UserError unless a stored tensor has this shape."""
    if stored.shape != shape:
        raise UserError(
            f"{stored.path}: {name} has shape {stored.shape}, but config.json asks for {shape}"
        )


def is_same(name: str, stored: StoredTensor, array: Array) -> bool:
    """Whether a stored tensor has the shape and the numbers of a contiguous array."""
    if stored.shape != array.shape:
        return False
    flat, scratch = array.reshape(-1), np.empty(CHUNK, array.dtype)
    chunks = read_chunks(name, stored, lambda place: scratch[: place.stop - place.start])
    return all(np.array_equal(chunk, flat[place]) for chunk, place in chunks)
