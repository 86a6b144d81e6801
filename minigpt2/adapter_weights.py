"""Adapters' files: folders in the layout of peft, written and opened.

Files
    adapter_config.json          the rank, α, the layers, and which model the adapters belong to
    adapter_model.safetensors    base_model.model.transformer.h.0.attn.c_attn.lora_A.weight (r, C)
                                 and so on: peft's matrices are ours (model/adapters), transposed

The model that the adapters belong to is not in the folder.  Its name or path is, and in the file's
metadata a checksum of its weights: adapters on other weights would answer nonsense, without an
error.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from minigpt2.adapter_config import check_fields
from minigpt2.backend import Array, array_module, flat_zeros
from minigpt2.checksum import crc32
from minigpt2.errors import UserError
from minigpt2.model.adapters import LAYERS, Adapted, LoRA, Origin
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.layer import A
from minigpt2.model.parameters import Parameters
from minigpt2.model_folders import find_model, is_model
from minigpt2.outputs import json_text
from minigpt2.reading import parse_json, read_text
from minigpt2.tensor_writer import write_tensors
from minigpt2.tensors import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    TENSORS,
    StoredTensor,
    folder_of,
    new_array,
    open_tensors,
    read_into,
    require_tensor,
)
from minigpt2.weights import checksums_in
from minigpt2.wording import shorten

PICKLE = "adapter_model.bin"
NAME = re.compile(r"base_model\.model\.transformer\.(h\.(\d+)\.([\w.]+)\.(lora_[AB]))\.weight")
CHECKSUM = "base_crc32"  # in the metadata
FILES = (ADAPTER_CONFIG, ADAPTER_TENSORS)


class AdapterFiles(NamedTuple):
    """A folder of adapters, opened: what is in it, with nothing read yet."""

    folder: Path
    lora: LoRA
    origin: Origin
    stored: dict[str, StoredTensor]  # by the names of model/adapters


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters, and no whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def whole_model(folder: Path) -> Path:
    """Return the folder of the model below adapters, which may be several; of a model, itself.

    Raises UserError if there is none.
    """
    above: list[Path] = []
    while is_adapter(folder):
        above.append(folder.resolve())
        name = open_adapters(folder).origin.name
        below = find_model(name)
        if below.resolve() in above:
            raise UserError(f"{folder} has adapters of {name}, which belongs to itself")
        folder = folder_of(below)
    return folder


def checksum_of(folder: Path, parameters: Parameters) -> int:
    """Return a checksum of the weights of a model, which was opened from a folder.

    If it has adapters itself, it is that of their files, which name the checksum of what is below:
    merged weights are rounded as this machine's library of products rounds them.
    """
    if is_adapter(folder):
        return crc32(b"".join((folder / name).read_bytes() for name in FILES))
    checksum = 0
    for view in parameters.views.values():
        checksum = crc32(view, checksum)
    return checksum


def save_adapters(adapted: Adapted, folder: Path, dtype: type = np.float32) -> dict[str, int]:
    """Write adapters into a folder that exists; return the checksums of the arrays."""
    lora, origin = adapted.lora, adapted.origin
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.name,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "use_rslora": lora.stabilised,
        "target_modules": list(lora.layers),
        "fan_in_fan_out": True,  # GPT-2's weights are [in, out]
        "bias": "none",
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json_text(config, indent=2), encoding="utf-8")
    tensors = {peft_name(name): transposed(matrix) for name, matrix in adapted.adapters.items()}
    metadata = {} if origin.checksum is None else {CHECKSUM: f"{origin.checksum:08x}"}
    return write_tensors(folder / ADAPTER_TENSORS, tensors, dtype, metadata)


def transposed(matrix: Array) -> Array:
    """Return a copy of a matrix with its axes exchanged, as neighbours in memory."""
    return array_module(matrix).ascontiguousarray(matrix.T)


def open_adapters(folder: Path) -> AdapterFiles:
    """Open a folder of adapters, ours or peft's, for a GPT-2.

    Raises UserError if a file is missing or damaged, or something in it would change the result
    and is not known here.
    """
    path = folder / ADAPTER_CONFIG
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold the fields of adapters")
    check_fields(content, path)
    tensors = folder / ADAPTER_TENSORS
    if not tensors.is_file() and (folder / PICKLE).is_file():
        raise UserError(f"there is no file {tensors}; {PICKLE} is a pickle, which is not unpickled")
    stored = {own_name(name, tensors): t for name, t in open_tensors(tensors).items()}
    layers = tuple(layer for layer in LAYERS if any(f".{layer}.{A}" in name for name in stored))
    if not layers:
        raise UserError(f"{tensors} has no adapters of a GPT-2")
    lora = LoRA(content["r"], float(content["lora_alpha"]), layers, bool(content.get("use_rslora")))
    return AdapterFiles(folder, lora, origin_of(content, tensors, path), stored)


def peft_name(name: str) -> str:
    """Return peft's name of a matrix."""
    return f"base_model.model.transformer.{name}.weight"


def own_name(name: str, path: Path) -> str:
    """Return our name of a tensor of peft's; raises UserError if it is none of a GPT-2's layers."""
    match = NAME.fullmatch(name)
    if not match or match[3] not in LAYERS:
        known = ", ".join(LAYERS)
        raise UserError(f"{path} has a tensor {shorten(name)}, and adapters are of {known}")
    return match[1]


def origin_of(content: dict[str, Any], tensors: Path, path: Path) -> Origin:
    """Return which model adapters belong to; raises UserError if no model can be meant."""
    name = content.get("base_model_name_or_path")
    if not isinstance(name, str) or not name or "://" in name or ".." in Path(name).parts:
        where = "must name a model or its folder, without '..'"
        raise UserError(f"{path}: base_model_name_or_path {where}, not {name!r:.60}")
    *above, last = name.split("/")  # openai-community/gpt2 is gpt2, unless there is such a folder
    if last in OFFICIAL and len(above) == 1 and not is_model(Path(name)):
        name = last
    try:
        with safe_open(tensors, framework="numpy") as file:
            checksum = (file.metadata() or {}).get(CHECKSUM)
        return Origin(name, int(checksum, 16) if checksum else None)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{tensors}: its metadata are damaged: {error}") from None


def load_adapters(files: AdapterFiles, base: Parameters, checksum: int | None) -> Adapted:
    """Read adapters for the model that they belong to, which is on the host and has a checksum.

    It may be None for adapters that do not name one.

    Raises UserError if the weights are others, or a tensor is missing or does not fit.
    """
    folder, lora, origin, stored = files
    path, shapes = folder / ADAPTER_TENSORS, lora.shapes(base.config)
    if origin.checksum not in (None, checksum):
        raise UserError(
            f"{folder} has adapters of other weights than {origin.name} has now: name the model "
            f"that they were trained on as base_model_name_or_path in {folder / ADAPTER_CONFIG}"
        )
    for name in stored:
        if name not in shapes:
            raise UserError(f"{path} has {shorten(name)}, and the model no such layer")
    for name, shape in shapes.items():  # before anything of their size is made
        require_tensor(name, stored, path)
        if stored[name].shape != shape[::-1]:
            fitting = f"r and the model ask for {shape[::-1]}"
            raise UserError(f"{path}: {name} has shape {stored[name].shape}, but {fitting}")
    checksums = checksums_in(folder, ADAPTER_TENSORS)
    flat = flat_zeros(lora.n_parameters(base.config), np.dtype(np.float32))
    adapted = Adapted(base, lora, flat, Origin(origin.name, checksum))
    for name, matrix in adapted.adapters.items():
        array = new_array(name, stored[name]).astype(np.float32)
        read_into(name, stored[name], array)
        written = checksums.get(peft_name(name))
        if written not in (None, crc32(array)):
            raise UserError(f"{path} is damaged: {name} is not what was written")
        matrix[...] = array.T
    return adapted


def tensors_file(parameters: Parameters) -> str:
    """Return the name of the file that the tensors of a model are saved in."""
    return ADAPTER_TENSORS if isinstance(parameters, Adapted) else TENSORS


def check_shape(config: GPT2Config, lora: LoRA | None) -> None:
    """Raise UserError if adapters would not be narrow."""
    if lora and lora.rank > config.n_embd:
        raise UserError(
            f"lora_rank is {lora.rank:,}, more than the model has features, {config.n_embd:,}: "
            "adapters learn with a rank far below that, such as 8"
        )
