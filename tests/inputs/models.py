"""A model's folder that is quick to open, and changes to it."""

import atexit
import json
import shutil
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.inference.model import Model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.shipped import shipped

TENSORS = "model.safetensors"
HOLDER = TemporaryDirectory(prefix="minigpt2-model-")
atexit.register(HOLDER.cleanup)
ABSENT = object()  # of a value of config.json


@cache
def folder() -> Path:
    """The folder of a model with random weights, and the vocabulary that ships."""
    path = Path(HOLDER.name) / "little"
    tokenizer = open_tokenizer(shipped("weights/tiny"))
    config = GPT2Config(tokenizer.n_vocab, n_positions=96, n_embd=16, n_layer=2, n_head=2)
    save_model(path, Model(initialise(config, np.random.default_rng(0)), tokenizer, None))
    return path


def little(path: Path) -> None:
    """Write a model."""
    shutil.copytree(folder(), path)


def with_config(**changes: Any) -> Callable[[Path], None]:
    """A model whose config.json has other values; ABSENT takes a value out."""

    def write(path: Path) -> None:
        little(path)
        values = {**json.loads((path / "config.json").read_text()), **changes}
        values = {name: value for name, value in values.items() if value is not ABSENT}
        (path / "config.json").write_text(json.dumps(values))

    return write


def with_file(name: str, content: str | bytes | None) -> Callable[[Path], None]:
    """A model in which a file has other contents; None takes it out."""

    def write(path: Path) -> None:
        little(path)
        (path / name).unlink(missing_ok=True)
        if content is not None:
            (path / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def with_tensors(**changes: Any) -> Callable[[Path], None]:
    """A model with other tensors, by name with _ for a dot; None takes a tensor out."""

    def write(path: Path) -> None:
        little(path)
        tensors = dict(load_file(path / TENSORS))
        for name, value in changes.items():
            tensors.pop(name, None)
            if value is not None:
                tensors[name] = value
        save_file(tensors, path / TENSORS)

    return write


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A model whose file of tensors is changed byte by byte."""

    def write(path: Path) -> None:
        little(path)
        (path / TENSORS).write_bytes(change((path / TENSORS).read_bytes()))

    return write


def with_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A model whose file of tensors has another header."""

    def changed(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        new = change(header) or header
        text = new if isinstance(new, bytes) else json.dumps(new).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return with_bytes(changed)
