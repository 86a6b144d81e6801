"""Model: parameters with the tokenizer and the template that belong to them.

Others pad the table of tokens: nanoGPT's has 50,304 rows, a multiple of 64, for 50,257 tokens.  No
text has the last ids, so their rows are left out when a model is opened: they have no part in the
probabilities, and a checkpoint does not have them.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, cast

import numpy as np

from minigpt2.adapter_weights import (
    checksum_of,
    is_adapter,
    load_adapters,
    open_adapters,
    save_adapters,
    whole_model,
)
from minigpt2.data.template import Template
from minigpt2.data.template_files import stored_template
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer, has_tokenizer, open_tokenizer
from minigpt2.data.vocabulary import END_OF_TEXT
from minigpt2.durable import new_folder
from minigpt2.errors import UserError
from minigpt2.model.adapters import Adapted, Merged, merge
from minigpt2.model.config import OFFICIAL, GPT2Config, end_of_text_ids
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.model_folders import find_model
from minigpt2.reward_weights import RESULT, save_reward_parameters, stored_bias
from minigpt2.tensors import ADAPTER_CONFIG, folder_of
from minigpt2.weights import load_parameters, save_parameters
from minigpt2.wording import plural


class Model(NamedTuple):
    """A model: its parameters, its tokenizer, and the template of its prompts.

    The template is None unless the model was tuned with one.
    """

    parameters: Parameters
    tokenizer: Tokenizer
    template: Template | None


class RewardModel(NamedTuple):
    """A reward model: it scores answers to prompts of its template.  See reward_weights."""

    parameters: Parameters
    tokenizer: Tokenizer
    template: Template | None
    bias: float = 0.0


PADDINGS = (8, 16, 32, 64, 128, 256)  # a padded table has a multiple of one of them
MOVED = 1 << 24  # numbers that are moved at once

Warn = Callable[[str], None]  # takes a line that a user should read


def ignore(text: str) -> None:
    """Take a line, and do nothing."""


def open_model(model: str, library: ModuleType = np, *, warn: Warn = ignore) -> Model:
    """Open a model by its name, its folder, the folder of a run, or its .safetensors file.

    `library` is the array library that the parameters are made with: NumPy, or that of a device
    (device/devices).  Adapters are merged into the model that they belong to.  Raises UserError if
    there is no such model, its parts do not fit together, or it is a reward model.
    """
    folder = find_model(model)
    if is_adapter(folder):
        adapted = open_adapted(folder, warn=warn)
        whole = merge(cast(Adapted, adapted.parameters))
        return adapted._replace(parameters=whole.on(library))
    parameters = load_parameters(folder)
    tokenizer = tokenizer_for(folder, parameters.config.vocab_size, warn=warn)
    parameters = without_padding(parameters, tokenizer.n_vocab)
    return Model(parameters.on(library), tokenizer, stored_template(folder))


def open_adapted(folder: Path, *, warn: Warn = ignore) -> Model:
    """Open a folder of adapters with the model that they belong to, on the host.

    The template is that of the adapters, or else of the model.  Raises UserError as `open_model`.
    """
    files = open_adapters(folder)
    try:
        whole_model(folder)  # there is one: no adapters belong to themselves
        base = open_model(files.origin.name, warn=warn)
    except UserError as error:
        remedy = f"if it has moved, name its folder in {folder / ADAPTER_CONFIG}"
        raise UserError(
            f"{folder} has adapters of {files.origin.name}: {error}; {remedy}"
        ) from None
    named = files.origin.checksum is not None  # else it would be computed for nothing
    checksum = checksum_of(find_model(files.origin.name), base.parameters) if named else None
    parameters = load_adapters(files, base.parameters, checksum)
    return base._replace(parameters=parameters, template=stored_template(folder) or base.template)


def open_reward_model(model: str, library: ModuleType = np, *, warn: Warn = ignore) -> RewardModel:
    """Open a reward model by its folder or the folder of a run, as `open_model` does.

    Of a run that is finished it is the result, not a checkpoint.  Raises UserError also for a model
    without a score.
    """
    result = Path(model) / RESULT
    path = find_model(str(result) if result.is_dir() else model)
    parameters = load_parameters(path, is_reward_model=True)
    tokenizer = tokenizer_for(path, parameters.config.vocab_size, warn=warn)
    parameters = without_padding(parameters, tokenizer.n_vocab)
    folder = folder_of(path)
    bias = stored_bias(folder) if (folder / "config.json").is_file() else 0.0
    return RewardModel(parameters.on(library), tokenizer, stored_template(path), bias)


def random_model(model: str, rng: np.random.Generator, *, warn: Warn = ignore) -> Model:
    """Return a model with random weights, of the shape of an official or a stored one.

    An official shape needs no weights on disk.  Raises UserError if there is no such model.
    """
    if model in OFFICIAL:
        return Model(initialise(OFFICIAL[model], rng), gpt2_tokenizer(), None)
    path = folder_of(find_model(model))
    folder = whole_model(path)
    config = GPT2Config.load(folder / "config.json")
    tokenizer = tokenizer_for(folder, config.vocab_size, warn=warn)
    config = replace(config, vocab_size=tokenizer.n_vocab)
    template = stored_template(path) or stored_template(folder)
    return Model(initialise(config, rng), tokenizer, template)


def tokenizer_for(path: Path, n_vocab: int, *, warn: Warn = ignore) -> Tokenizer:
    """Return the tokenizer in a model's folder.

    If there is no tokenizer's file of any kind, and the model has as many ids as GPT-2, it is
    GPT-2's.  Warns if the model's table is padded, and if its end-of-text is another id.  Raises
    UserError if there is no tokenizer, or the model has another number of ids.
    """
    folder = folder_of(path)
    gpt2s = OFFICIAL["gpt2"].vocab_size
    official = not has_tokenizer(folder) and (n_vocab == gpt2s or is_padded(gpt2s, n_vocab))
    tokenizer = gpt2_tokenizer() if official else open_tokenizer(folder)
    ids = plural(tokenizer.n_vocab, "id")
    if is_padded(tokenizer.n_vocab, n_vocab):
        left_out = plural(n_vocab - tokenizer.n_vocab, "row")
        warn(f"{path}: the tokenizer has {ids}, the model {n_vocab:,}: {left_out} are left out")
    elif tokenizer.n_vocab != n_vocab:
        raise UserError(f"{path}: the tokenizer has {ids}, but the model {n_vocab:,}")
    if difference := other_end_of_text(folder / "config.json", tokenizer.end_of_text):
        warn(f"{folder / 'config.json'}: {difference}")
    return tokenizer


def other_end_of_text(config: Path, used: int) -> str:
    """Return what a user should know where config.json names other ids as end-of-text, or ""."""
    named = end_of_text_ids(config) if config.is_file() else []
    if not named or named == [used]:
        return ""
    if used in named:
        return f"eos_token_id is {named}, but here only {used}, {END_OF_TEXT}, ends a text"
    return (
        f"eos_token_id is {named[0]}, but the tokenizer's {END_OF_TEXT} is {used}; {used} is used"
    )


def is_padded(n_vocab: int, rows: int) -> bool:
    """Return whether a table of tokens has the next multiple of one of PADDINGS as its rows."""
    return rows > n_vocab and any(rows == -(-n_vocab // size) * size for size in PADDINGS)


def without_padding(parameters: Parameters, n_vocab: int) -> Parameters:
    """Return parameters whose table has n_vocab rows, in the same memory: the table is first."""
    config = replace(parameters.config, vocab_size=n_vocab)
    left_out = (parameters.config.vocab_size - n_vocab) * config.n_embd
    if left_out == 0:
        return parameters
    flat, size = parameters.flat, len(parameters.flat) - left_out
    for start in range(n_vocab * config.n_embd, size, MOVED):
        stop = min(start + MOVED, size)
        flat[start:stop] = flat[start + left_out : stop + left_out]
    shapes = parameters.shapes | {"wte.weight": (n_vocab, config.n_embd)}
    return Parameters(config, flat[:size], shapes=shapes)


def write_model(
    folder: Path, model: Model | RewardModel, dtype: type = np.float32
) -> dict[str, int]:
    """Write a model's files into a folder that exists; return the checksums of its arrays."""
    parameters, end = model.parameters, model.tokenizer.end_of_text
    if isinstance(parameters, Adapted):
        checksums = save_adapters(parameters, folder, dtype)
    elif isinstance(model, RewardModel):
        checksums = save_reward_parameters(parameters, folder, model.bias, dtype, end)
    else:
        checksums = save_parameters(parameters, folder, dtype, end)
    write_texts(folder, model)
    return checksums


def write_texts(folder: Path, model: Model | RewardModel) -> None:
    """Write a model's tokenizer and its template, if it has one, into a folder that exists."""
    model.tokenizer.save(folder)
    if model.template:
        model.template.save(folder)


def save_merged(path: Path, model: Model) -> None:
    """Write a model with adapters as one without them, in the official layout, as a new folder.

    Raises UserError if the folder exists, or cannot be written.
    """
    adapted = cast(Adapted, model.parameters)
    with new_folder(path) as folder:
        end = model.tokenizer.end_of_text
        save_parameters(adapted, folder, end_of_text=end, tensors=Merged(adapted))
        write_texts(folder, model)


def save_model(path: Path, model: Model | RewardModel, dtype: type = np.float32) -> None:
    """Write a model in the official layout, as a new folder: all of it or nothing.

    Raises UserError if the folder exists, or cannot be written.
    """
    with new_folder(path) as folder:
        write_model(folder, model, dtype)
