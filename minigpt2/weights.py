"""Weights: folders in the official layout, opened and written.

Files
    config.json          the shape (model/config)
    model.safetensors    each tensor under its official name (model/parameters, tensors)
    vocab.json, merges.txt   the tokenizer (data/tokenizer)

The official tensors are [in, out], as ops/linear wants them.  Their names may
carry a `transformer.` prefix.  Besides the parameters a file may hold
`h.*.attn.bias` and `h.*.attn.masked_bias`, which are masks and passed over, and
`lm_head.weight`, which must be wte again.  A single .safetensors file is a model, too: its
tensors tell its shape, but for the number of heads.

A folder is written beside its place and renamed into it, so a reader sees all of
it or nothing.
"""

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np

from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.parameters import Parameters, tensor_shapes
from minigpt2.parallel import cores
from minigpt2.shipped import shipped
from minigpt2.tensors import (
    TENSORS,
    Stored,
    is_same,
    open_folder,
    open_tensors,
    read_into,
    write_tensors,
)

HEAD = "lm_head.weight"
NOT_PARAMETERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight")
OFFICIAL_HEAD = 64  # features of a head in all official sizes


def find_model(model: str) -> Path:
    """Return where a model is: a folder, a run's folder, a file, or a name under weights/."""
    named = [Path("weights") / model, shipped(f"weights/{model}")]
    candidates = [Path(model), Path(model) / "checkpoint", *named]
    if model.endswith(".safetensors") and Path(model).is_file():
        return Path(model)
    for folder in candidates:
        if (folder / "config.json").is_file():
            return folder
    if Path(model).exists():
        raise UserError(f"{model!r} holds no model: it has no config.json")
    if model in OFFICIAL:
        raise UserError(
            f"the weights of {model} are not in weights/{model}: `minigpt2 download {model}` "
            "fetches them (or use --from_scratch true for random ones)"
        )
    names = ", ".join(["tiny", *OFFICIAL])
    raise UserError(
        f"there is no model {model!r}: give a folder with config.json and {TENSORS}, a run's "
        f"folder, or one of {names}"
    )


def load_parameters(path: Path, dtype: type = np.float32) -> Parameters:
    """Load a folder, or a single .safetensors file, into one flat array.

    Raises UserError for files that are damaged or do not describe a GPT-2.
    """
    stored = open_stored(path)
    folder = path.parent if path.is_file() else path
    if path.is_file() and not (folder / "config.json").is_file():
        config = shape_of(path, stored)
    else:
        config = GPT2Config.load(folder / "config.json")
    check_names(path, stored, config)
    parameters = Parameters(config, np.empty(config.n_parameters, dtype))

    def read(name: str) -> None:
        read_into(name, stored[name], parameters[name])

    with ThreadPoolExecutor(cores()) as pool:  # reading and looking both let others run
        list(pool.map(read, parameters.views))
    if HEAD in stored and not is_same(HEAD, stored[HEAD], parameters["wte.weight"]):
        raise UserError(
            f"{stored[HEAD].path}: {HEAD} differs from wte.weight; in a GPT-2 they are one tensor"
        )
    return parameters


def open_stored(path: Path) -> dict[str, Stored]:
    """Return where the tensors of a folder or a file are, by their names without prefix."""
    stored = open_tensors(path) if path.is_file() else open_folder(path)
    return {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}


def shape_of(path: Path, stored: dict[str, Stored]) -> GPT2Config:
    """Return the configuration that a file's tensors have; heads have 64 features, as all official.

    Raises UserError if the tensors are not those of a GPT-2.
    """
    try:
        (vocabulary, features), (positions, _) = (
            stored[f"{table}.weight"].shape for table in ("wte", "wpe")
        )
    except (KeyError, ValueError):
        raise UserError(
            f"{path} does not hold a GPT-2: it has no tables wte.weight and wpe.weight"
        ) from None
    if features % OFFICIAL_HEAD:
        raise UserError(
            f"{path} has {features} features, not a multiple of {OFFICIAL_HEAD}, so the number of "
            "heads cannot be told: put the model's config.json beside it"
        )
    layers = len({name.split(".")[1] for name in stored if name.startswith("h.")})
    return GPT2Config(vocabulary, positions, features, layers, features // OFFICIAL_HEAD)


def check_names(path: Path, stored: dict[str, Stored], config: GPT2Config) -> None:
    """Raise UserError unless the stored names are those of the parameters."""
    wanted = tensor_shapes(config)
    file = path if path.is_file() else path / TENSORS
    for name in wanted:
        if name not in stored:
            raise UserError(f"{file} has no tensor {name}, which a model of this shape needs")
    for name in stored:
        if name not in wanted and not NOT_PARAMETERS.fullmatch(name):
            raise UserError(
                f"{file} has a tensor {name}, which a model of this shape has no use for"
            )


def save_parameters(parameters: Parameters, folder: Path, dtype: type = np.float32) -> None:
    """Write config.json and model.safetensors into a folder that exists."""
    parameters.config.save(folder / "config.json")
    write_tensors(folder / TENSORS, parameters.on(np).views, dtype)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a new folder, then put it where `folder` is, all at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    beside.mkdir()
    try:
        fill(beside)
        old = folder.with_name(f"{beside.name}.old")
        try:
            if folder.exists():
                os.rename(folder, old)
            os.rename(beside, folder)
        except BaseException:
            if old.exists() and not folder.exists():
                os.rename(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
