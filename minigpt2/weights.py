"""Weights: folders in the official layout, opened and written.

Files
    config.json              the shape (model/config)
    model.safetensors        each tensor under its official name (model/parameters, tensors)
    vocab.json, merges.txt   the tokenizer (data/tokenizer)

The official tensors are [in, out], as ops/linear takes them.  Their names may have a
`transformer.` prefix.  Besides the parameters a file may hold `h.*.attn.bias` and
`h.*.attn.masked_bias`, which are masks and are ignored, and `lm_head.weight`, which must equal
wte or stand for it.  A single .safetensors file is a model too: the shapes of its tensors give the
configuration, except for the number of heads.  One more tensor, `score.weight`, makes a reward
model (reward_weights).
"""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from minigpt2.backend import Array, flat_zeros
from minigpt2.checksum import crc32
from minigpt2.errors import UserError
from minigpt2.memory import require_memory
from minigpt2.model.config import GPT2Config
from minigpt2.model.heads import SCORE
from minigpt2.model.parameters import Parameters, Shapes, in_layout, tensor_shapes
from minigpt2.model_folders import STATE
from minigpt2.parallel import cores
from minigpt2.reading import parse_json, read_text
from minigpt2.tensor_writer import write_tensors
from minigpt2.tensors import (
    TENSORS,
    StoredTensor,
    folder_of,
    is_same,
    open_folder,
    open_tensors,
    read_into,
    require_shape,
)
from minigpt2.wording import plural, shorten

LARGEST_STATE = 1 << 28  # bytes
LM_HEAD = "lm_head.weight"
SCORE_WEIGHT = f"{SCORE}.weight"  # (1, C), of a reward model
PREFIX = "transformer."
NOT_PARAMETERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight")
HEAD_FEATURES = 64  # of each head, in all official sizes


def load_parameters(
    path: Path, dtype: type = np.float32, *, is_reward_model: bool = False
) -> Parameters:
    """Load a folder, or a single .safetensors file, into one flat array.

    Raises UserError if the files are damaged or are not those of a GPT-2, or of a reward model; the
    configuration is compared with them before anything of its size is made.
    """
    stored = open_stored(path)
    if is_reward_model and SCORE_WEIGHT not in stored:
        raise UserError(f"{path} is no reward model: it has no {SCORE_WEIGHT}; `reward` trains one")
    if not is_reward_model and SCORE_WEIGHT in stored:
        raise UserError(f"{path} is a reward model: it scores answers and cannot write them")
    folder = folder_of(path)
    infers = path.is_file() and not (folder / "config.json").is_file()
    config = infer_config(path, stored) if infers else GPT2Config.load(folder / "config.json")
    score = {SCORE_WEIGHT: (1, config.n_embd)} if is_reward_model else {}
    check_tensors(path, stored, config, score)
    shapes = in_layout(tensor_shapes(config) | score)
    count = config.n_parameters + len(score) * config.n_embd
    require_memory(count * np.dtype(dtype).itemsize, f"a model of {plural(count, 'parameter')}")
    parameters = Parameters(config, flat_zeros(count, dtype), shapes=shapes)

    checksums = checksums_in(folder) if dtype is np.float32 else {}

    def read(name: str) -> None:
        read_into(name, stored[name], parameters[name])
        if name in checksums and checksums[name] != crc32(parameters[name]):
            text = f"{stored[name].path} is damaged: {name} is not what was written"
            raise UserError(f"{text}; take an older checkpoint")

    with ThreadPoolExecutor(cores()) as pool:  # reading and checking release the GIL
        list(pool.map(read, parameters.views))
    if LM_HEAD in stored and not is_same(LM_HEAD, stored[LM_HEAD], parameters["wte.weight"]):
        raise UserError(
            f"{stored[LM_HEAD].path}: {LM_HEAD} differs from wte.weight; "
            "in a GPT-2 they are one tensor"
        )
    return parameters


def checksums_in(folder: Path, file: str = TENSORS) -> dict[str, int]:
    """Return the checksums of a checkpoint's tensors, by name; none for another model's folder.

    Raises UserError if the file that has them cannot be read.
    """
    path = folder / STATE
    content = parse_json(read_text(path, LARGEST_STATE), path) if path.is_file() else {}
    files = content.get("files") if isinstance(content, dict) else None
    checksums = files.get(file) if isinstance(files, dict) else None
    checksums = checksums if isinstance(checksums, dict) else {}
    return {name.removeprefix(PREFIX): checksum for name, checksum in checksums.items()}


def open_stored(path: Path) -> dict[str, StoredTensor]:
    """Return where a folder or a file stores its tensors, by their names without prefix."""
    stored = open_tensors(path) if path.is_file() else open_folder(path)
    named = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    # They are one tensor, and safetensors' save_model writes one name of a shared tensor.
    return {"wte.weight": named[LM_HEAD], **named} if LM_HEAD in named else named


def infer_config(path: Path, stored: dict[str, StoredTensor]) -> GPT2Config:
    """Return the configuration that a file's tensors have, with 64 features to a head.

    All official models have heads of 64 features.  Raises UserError if the tensors are not those of
    a GPT-2.
    """
    try:
        (n_vocab, n_embd), (n_positions, _) = (
            stored[f"{table}.weight"].shape for table in ("wte", "wpe")
        )
    except (KeyError, ValueError):
        raise UserError(
            f"{path} does not hold a GPT-2: it has no tables wte.weight and wpe.weight"
        ) from None
    if n_embd % HEAD_FEATURES:
        raise UserError(
            f"{path} has {plural(n_embd, 'feature')}, not a multiple of {HEAD_FEATURES}, so the "
            "number of heads is unknown: put the model's config.json next to it"
        )
    heads = n_embd // HEAD_FEATURES
    return GPT2Config(n_vocab, n_positions, n_embd, layers_of(stored), n_head=heads)


def layers_of(stored: dict[str, StoredTensor]) -> int:
    """Return the number of layers that have stored tensors."""
    return len({name.split(".")[1] for name in stored if name.startswith("h.")})


def check_tensors(
    path: Path, stored: dict[str, StoredTensor], config: GPT2Config, other: Shapes | None = None
) -> None:
    """Raise UserError unless the stored names and shapes are a GPT-2's, and those of `other`."""
    file = path if path.is_file() else path / TENSORS
    layers = layers_of(stored)
    if config.n_layer > layers:
        raise UserError(
            f"{file} has {plural(layers, 'layer')}, but config.json asks for {config.n_layer:,}"
        )
    needed = tensor_shapes(config) | dict(other or {})
    for name, shape in needed.items():
        if name not in stored:
            raise UserError(f"{file} has no tensor {name}, which a model of this shape needs")
        require_shape(name, stored[name], shape)
    for name in stored:
        if name not in needed and not NOT_PARAMETERS.fullmatch(name):
            raise UserError(
                f"{file} has a tensor {shorten(name)}, which a model of this shape does not use"
            )


def save_parameters(
    parameters: Parameters,
    folder: Path,
    dtype: type = np.float32,
    end_of_text: int | None = None,
    tensors: Mapping[str, Array] | None = None,
) -> dict[str, int]:
    """Write config.json and model.safetensors into a folder; return the checksums of the arrays.

    The id of end-of-text is that of the tokenizer; None stands for the last.  The `tensors` are
    those of the parameters; a value function's are not written.
    """
    parameters.config.save(folder / "config.json", end_of_text)
    if tensors is None:
        tensors = {name: parameters[name] for name in tensor_shapes(parameters.config)}
    return write_tensors(folder / TENSORS, tensors, dtype)
