"""safetensors files, and the index of several."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.inputs.models import (
    TENSORS,
    folder,
    little,
    with_bytes,
    with_file,
    with_header,
    with_tensors,
)
from tests.inputs.row import Row, refused, works

LN = "h.0.ln_1.bias"
ANSWER = "answer hi --model m --max-new-tokens 1"
CANNOT = f"m/{TENSORS} cannot be read as safetensors"


def bad(name: str, make: Callable[[Path], None], words: str = CANNOT) -> Row:
    """A model that is refused."""
    return refused(name, ANSWER, words, {"m": make})


def entry(**changes: Any) -> Callable[[Path], None]:
    """A model whose header says something else of a tensor."""
    return with_header(lambda header: header[LN].update(changes))


def split(index: Any, name: str = "a.safetensors") -> Callable[[Path], None]:
    """A model whose tensors are in another file, with an index."""

    def write(path: Path) -> None:
        little(path)
        (path / TENSORS).rename(path / name)
        text = index if isinstance(index, str) else json.dumps(index)
        (path / f"{TENSORS}.index.json").write_text(text)

    return write


def weight_map(shard: Any = "a.safetensors", **more: Any) -> dict[str, Any]:
    """An index that has all tensors in one file."""
    names = [n for n in header_of(folder() / TENSORS) if n != "__metadata__"]
    return {"weight_map": {**dict.fromkeys(names, shard), **more}}


def header_of(path: Path) -> dict[str, Any]:
    """The header of a file."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def replaced(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """A model with something else where its tensors should be."""

    def write(path: Path) -> None:
        little(path)
        (path / TENSORS).unlink()
        make(path / TENSORS)

    return write


def padded(path: Path) -> None:
    """A model with a row more than its tokenizer has ids."""
    with_tensors(**{"wte.weight": np.zeros((4097, 16), np.float32)})(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "vocab_size": 4097}))


def one_file(path: Path) -> None:
    """The tensors alone."""
    shutil.copy(folder() / TENSORS, path)


def sparse(path: Path) -> None:
    """A file of two gigabytes that takes no room."""
    path.touch()
    os.truncate(path, 2 << 30)


NAN = np.full(16, np.nan, np.float32)
INFINITE = np.full(16, np.inf, np.float32)

# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    bad("no tensors", with_file(TENSORS, None), f"there is no file m/{TENSORS}"),
    refused("a pickle beside", ANSWER, "pytorch_model.bin is a pickle", {"m": with_file(TENSORS, None), "m/pytorch_model.bin": b"\x80"}),
    bad("an empty file", with_file(TENSORS, b"")),
    bad("seven bytes", with_file(TENSORS, b"\0" * 7)),
    bad("zeros", with_file(TENSORS, bytes(1000))),
    bad("a pickle", with_file(TENSORS, b"\x80\x04\x95\x05\0\0\0\0\0\0\0K\x01."), "it is a pickle"),
    bad("a zip", with_file(TENSORS, b"PK\x03\x04" + bytes(100)), "it is a pickle"),
    bad("HTML", with_file(TENSORS, "<!DOCTYPE html>")),
    bad("a pointer of Git LFS", with_file(TENSORS, "version https://git-lfs.github.com/spec/v1\n")),
    bad("half a file", with_bytes(lambda b: b[: len(b) // 2])),
    bad("a byte less", with_bytes(lambda b: b[:-1])),
    bad("a byte more", with_bytes(lambda b: b + b"\0")),
    bad("a header without end", with_bytes(lambda b: b"\xff" * 8 + b[8:])),
    bad("a header of 90 MB that is not there", with_bytes(lambda b: (90 << 20).to_bytes(8, "little") + b[8:])),
    bad("a header that is a list", with_header(lambda h: b"[]")),
    bad("a header in Latin-1", with_header(lambda h: b'{"\xe9": 1}')),
    bad("a deep header", with_header(lambda h: b"[" * 100_000)),
    bad("no header", with_header(lambda h: b"{}")),
    bad("offsets that go back", entry(data_offsets=[64, 0])),
    bad("offsets past the end", entry(data_offsets=[0, 10**15])),
    bad("offsets that overlap", entry(data_offsets=[0, 64])),
    bad("negative offsets", entry(data_offsets=[-64, 0])),
    bad("a negative shape", entry(shape=[-16])),
    bad("a huge shape", entry(shape=[1 << 62, 1 << 62])),
    bad("a shape that does not fit", entry(shape=[17])),
    bad("a shape as text", entry(shape="16")),
    bad("an unknown dtype", entry(dtype="F3")),
    bad("integers", with_tensors(**{LN: np.zeros(16, np.int32)}), f"{LN} holds I32 numbers"),
    bad("another shape", with_tensors(**{LN: np.zeros(7, np.float32)}), f"{LN} has shape (7,)"),
    bad("another number of axes", with_tensors(**{LN: np.zeros((4, 4), np.float32)}), f"{LN} has shape (4, 4)"),
    bad("a missing tensor", with_tensors(**{LN: None}), f"no tensor {LN}"),
    bad("a tensor too many", with_tensors(**{"h.0.extra": np.zeros(4, np.float32)}), "h.0.extra"),
    bad("a tensor with control codes", with_tensors(**{"\x1b[2J": np.zeros(4, np.float32)}), "\\x1b[2J"),
    bad("a tensor with a name of 1 MB", with_tensors(**{"x" * 1_000_000: np.zeros(4, np.float32)}), "xxx"),
    bad("not a number", with_tensors(**{LN: NAN}), f"{LN} holds numbers that are not finite"),
    bad("infinity", with_tensors(**{LN: INFINITE}), f"{LN} holds numbers that are not finite"),
    bad("an lm_head of its own", with_tensors(**{"lm_head.weight": np.zeros((4096, 16), np.float32)}), "lm_head.weight differs from wte.weight"),
    bad("a row for no token", padded, "the tokenizer has 4,096 ids, but the model 4,097"),
    bad("a folder for a file", replaced(Path.mkdir), f"m/{TENSORS}"),
    bad("a device for a file", replaced(lambda p: p.symlink_to("/dev/zero")), f"m/{TENSORS}"),
    bad("a pipe for a file", replaced(os.mkfifo), f"m/{TENSORS}"),
    bad("a link to nowhere", replaced(lambda p: p.symlink_to("nowhere")), f"m/{TENSORS}"),
    bad("two gigabytes of nothing", replaced(sparse)),
    bad("an empty index", split(""), "index.json"),
    bad("an index that is a list", split([]), "index.json"),
    bad("an index without a map", split({"metadata": {}}), "index.json"),
    bad("a map that is a list", split({"weight_map": [1]}), "index.json"),
    bad("a map to numbers", split({"weight_map": {LN: 3}}), "index.json"),
    bad("a deep index", split("[" * 100_000), "index.json"),
    bad("a shard that is not there", split(weight_map("b.safetensors")), "b.safetensors"),
    bad("a shard elsewhere", split(weight_map("../../b.safetensors")), "b.safetensors"),
    bad("a tensor that is not in its shard", split(weight_map(extra="a.safetensors")), "extra"),
    bad("a shard with control codes", split(weight_map("\x1b[2J.safetensors")), "\\x1b[2J"),
    refused("a file without its heads", "generate hi --model m.safetensors", "not a multiple of 64", {"m.safetensors": one_file}),
    refused("a file that is no model", "generate hi --model m.safetensors", "cannot be read as safetensors", {"m.safetensors": "hello"}),
    refused("a model that is a data set", "answer hi --model ok.json", "ok.json"),
    works("tensors in a shard", ANSWER, "", {"m": split(weight_map())}),
    works("half precision", ANSWER, "", {"m": with_tensors(**{LN: np.zeros(16, np.float16)})}),
    works("double precision", ANSWER, "", {"m": with_tensors(**{LN: np.zeros(16, np.float64)})}),
    works("masks of old files", ANSWER, "", {"m": with_tensors(**{"h.0.attn.masked_bias": np.zeros((), np.float32)})}),
    works("a prefix", ANSWER, "", {"m": with_header(lambda h: {f"transformer.{n}" if n != "__metadata__" else n: v for n, v in h.items()})}),
]
