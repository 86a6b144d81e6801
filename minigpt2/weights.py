"""Weights: folders in the official layout, opened and written.

Files
    config.json          the shape (chapter 11)
    model.safetensors    each tensor under its official name (chapter 12)
    vocab.json, merges.txt   the tokenizer (chapter 18)

The official tensors are [in, out], as chapter 2 wants them.  Their names may
carry a `transformer.` prefix.  Besides the parameters a file may hold
`h.*.attn.bias` and `h.*.attn.masked_bias`, which are masks, and `lm_head.weight`,
which is wte again; these are passed over.

A folder is written beside its place and renamed into it, so a reader sees all of
it or nothing.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.parameters import Parameters, tensor_shapes

TENSORS = "model.safetensors"
NOT_PARAMETERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight")
HERE = Path(__file__).parent


def shipped(name: str) -> Path:
    """Return the place of something that ships beside the package, such as `weights/tiny`."""
    installed = HERE / "_shipped" / name
    return installed if installed.exists() else HERE.parent / name


def find_model(model: str) -> Path:
    """Return the folder of a model: a path, a run's folder, or a name under weights/."""
    named = [Path("weights") / model, shipped(f"weights/{model}")]
    candidates = [Path(model), Path(model) / "checkpoint", *named]
    for folder in candidates:
        if (folder / "config.json").is_file():
            return folder
    if Path(model).exists():
        raise UserError(f"{model!r} holds no model: it has no config.json")
    if model in OFFICIAL:
        raise UserError(
            f"the weights of {model} are not in weights/{model}: put the official files there "
            f"(config.json, {TENSORS}, vocab.json, merges.txt), or use --from_scratch true"
        )
    names = ", ".join(["tiny", *OFFICIAL])
    raise UserError(
        f"there is no model {model!r}: give a folder with config.json and {TENSORS}, a run's "
        f"folder, or one of {names}"
    )


def load_parameters(folder: Path, dtype: type = np.float32) -> Parameters:
    """Load the parameters of a folder into one flat array; raises UserError for bad files."""
    config = GPT2Config.load(folder / "config.json")
    parameters = Parameters(config, np.empty(config.n_parameters, dtype))
    path = folder / TENSORS
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as tensors:
            stored = {name.removeprefix("transformer."): name for name in tensors.keys()}
            check_names(path, stored, config)
            for name, view in parameters.views.items():
                tensor = tensors.get_tensor(stored[name])
                if tensor.shape != view.shape:
                    raise UserError(
                        f"{path}: {name} has shape {tensor.shape}, "
                        f"config.json asks for {view.shape}"
                    )
                if tensor.dtype.kind != "f":
                    raise UserError(f"{path}: {name} holds {tensor.dtype}, not floating point")
                view[...] = tensor
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from None
    if not np.isfinite(parameters.flat).all():
        bad = next(name for name, view in parameters.views.items() if not np.isfinite(view).all())
        raise UserError(f"{path}: {bad} holds numbers that are not finite")
    return parameters


def check_names(path: Path, stored: dict[str, str], config: GPT2Config) -> None:
    """Raise UserError unless the stored names are those of the parameters."""
    wanted = tensor_shapes(config)
    for name in wanted:
        if name not in stored:
            raise UserError(f"{path} has no tensor {name}, which a model of this shape needs")
    for name in stored:
        if name not in wanted and not NOT_PARAMETERS.fullmatch(name):
            raise UserError(
                f"{path} has a tensor {name}, which a model of this shape has no use for"
            )


def save_parameters(parameters: Parameters, folder: Path, dtype: type = np.float32) -> None:
    """Write config.json and model.safetensors into a folder that exists."""
    parameters.config.save(folder / "config.json")
    tensors = {name: view.astype(dtype) for name, view in parameters.views.items()}
    try:
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"{folder / TENSORS} cannot be written: {error}") from None


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
