"""Stored tensors: safetensors files, read straight into the arrays that want them.

Why
    The weights of GPT-2 Large are 3 GB.  Whoever first makes arrays of what a
    file holds, and copies them to where they belong, needs that twice.  Here the
    numbers go from the file into the flat array, a chunk at a time, and are
    looked at while they are still in the processor's cache.

Format (safetensors)
    8 bytes, little-endian: the length n of the header.
    n bytes of JSON: for each tensor its kind of number, its shape, and from which
    byte to which it stands in what follows.
    The numbers, little-endian, without gaps.
    A large model may be cut into several files; model.safetensors.index.json then
    says which tensor is in which.

    The safetensors library checks a file's header and offsets; nothing here unpickles.

Kinds of numbers
    F64, F32 and F16 are NumPy's own.  BF16 is the upper half of an F32, so shifting it
    up by 16 bits is exact.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import isfinite, prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from minigpt2.backend import Array
from minigpt2.errors import UserError

TENSORS = "model.safetensors"
INDEX = f"{TENSORS}.index.json"
PICKLES = (b"\x80", b"PK")  # how files of torch.save begin, the old ones and the new
KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
NAMES = {np.dtype(kind): name for name, kind in KINDS.items() if name != "BF16"}
CHUNK = 1 << 18  # numbers read at a time: 1 MiB in F32


class Stored(NamedTuple):
    """Where a tensor is."""

    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int  # the byte of the file at which its numbers begin


def open_tensors(path: Path) -> dict[str, Stored]:
    """Return where the tensors of one file are; raises UserError for a file that is damaged."""
    try:
        with safe_open(path, framework="numpy"):  # checks the header and all offsets
            pass
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors: {what_else(path) or error}"
        ) from None
    header.pop("__metadata__", None)
    return {
        name: Stored(path, t["dtype"], tuple(t["shape"]), 8 + length + t["data_offsets"][0])
        for name, t in header.items()
    }


def what_else(path: Path) -> str:
    """Return what to say of a file that looks like a pickle."""
    with suppress(OSError), open(path, "rb") as file:
        if file.read(2).startswith(PICKLES):
            return (
                "it is a pickle, which could run any program, so it is never unpickled; "
                "get the model's safetensors file"
            )
    return ""


def open_folder(folder: Path) -> dict[str, Stored]:
    """Return where the tensors of a model's folder are, in one file or in several."""
    single, index = folder / TENSORS, folder / INDEX
    if single.is_file():
        return open_tensors(single)
    if not index.is_file():
        raise UserError(f"there is no file {single}{pickle_hint(folder)}")
    try:
        file_of = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        shards = {name: open_tensors(folder / Path(name).name) for name in set(file_of.values())}
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{index} cannot be read as an index of tensors: {error!r}") from None
    for name, shard in file_of.items():
        if name not in shards[shard]:
            raise UserError(f"{index} says that {name} is in {shard}; it is not there")
    return {name: shards[shard][name] for name, shard in file_of.items()}


def pickle_hint(folder: Path) -> str:
    """Return what to add where safetensors are missing but a pickle lies there."""
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    return f"; {pickles[0]} is a pickle, which is never unpickled" if pickles else ""


def chunks(
    name: str, stored: Stored, array_for: Callable[[slice], Array]
) -> Iterator[tuple[Array, slice]]:
    """Read a tensor's numbers chunk by chunk into the array for each place; yield both.

    Raises UserError for a kind of number that is not known, and for one that is not finite.
    """
    if stored.kind not in KINDS:
        known = ", ".join(KINDS)
        raise UserError(f"{stored.path}: {name} holds {stored.kind} numbers; known are {known}")
    kind, size = np.dtype(KINDS[stored.kind]), prod(stored.shape)
    with open(stored.path, "rb") as file:
        file.seek(stored.start)
        for start in range(0, size, CHUNK):
            place = slice(start, min(start + CHUNK, size))
            part = array_for(place)
            if stored.kind != "BF16" and kind == part.dtype:
                file.readinto(part.view(np.uint8))
            else:
                part[...] = widen(np.fromfile(file, kind, part.size), stored.kind)
            if not (isfinite(square_of(part)) or np.isfinite(part).all()):
                raise UserError(f"{stored.path}: {name} holds numbers that are not finite")
            yield part, place


def square_of(part: Array) -> float:
    """Return the sum of squares: one fast product, finite only if every number is."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(part @ part)


def widen(numbers: Array, kind: str) -> Array:
    """Return numbers as they are, or BF16 as the F32 of which they are the upper half."""
    return (numbers.astype("<u4") << 16).view("<f4") if kind == "BF16" else numbers


def read_into(name: str, stored: Stored, array: Array) -> None:
    """Read a tensor into a contiguous array of its shape; raises UserError if it has another."""
    if stored.shape != array.shape:
        raise UserError(
            f"{stored.path}: {name} has shape {stored.shape}, config.json asks for {array.shape}"
        )
    flat = array.reshape(-1)
    for _ in chunks(name, stored, flat.__getitem__):
        pass


def is_same(name: str, stored: Stored, array: Array) -> bool:
    """Whether a stored tensor has the shape and the numbers of a contiguous array."""
    if stored.shape != array.shape:
        return False
    flat, scratch = array.reshape(-1), np.empty(CHUNK, array.dtype)
    read = chunks(name, stored, lambda place: scratch[: place.stop - place.start])
    return all(np.array_equal(part, flat[place]) for part, place in read)


def write_tensors(path: Path, tensors: Mapping[str, Array], dtype: type) -> None:
    """Write arrays as one safetensors file, each converted by itself, without a copy of all."""
    kind = np.dtype(dtype).newbyteorder("<")
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, array in tensors.items():
        stop = start + array.size * kind.itemsize
        header[name] = {
            "dtype": NAMES[kind],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            array.astype(kind, copy=False).tofile(file)
