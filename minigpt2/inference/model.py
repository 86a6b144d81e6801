"""Model: parameters with the tokenizer and the template that belong to them."""

from pathlib import Path
from typing import NamedTuple

from minigpt2.data.template import Template, stored_template
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer, has_tokenizer, open_tokenizer
from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL
from minigpt2.model.parameters import Parameters
from minigpt2.weights import find_model, load_parameters


class Model(NamedTuple):
    """A model with its tokenizer, and the template that it was tuned with, if any."""

    parameters: Parameters
    tokenizer: Tokenizer
    template: Template | None


def open_model(model: str, device: Device = "cpu") -> Model:
    """Open a model by folder or name, on a device.

    Raises UserError if its parts do not go together, or the device cannot be used.
    """
    library = open_device(device)
    folder = find_model(model)
    parameters = load_parameters(folder)
    tokenizer = tokenizer_of(folder, parameters.config.vocab_size)
    has, needs = tokenizer.n_vocab, parameters.config.vocab_size
    if has != needs:
        raise UserError(f"{folder}: the tokenizer has {has} ids, the model {needs}")
    return Model(parameters.on(library), tokenizer, stored_template(folder))


def tokenizer_of(path: Path, n_vocab: int) -> Tokenizer:
    """Return the tokenizer beside a model's weights, or GPT-2's own where none is and it fits."""
    folder = path if path.is_dir() else path.parent
    official = n_vocab == OFFICIAL["gpt2"].vocab_size
    return gpt2_tokenizer() if official and not has_tokenizer(folder) else open_tokenizer(folder)
