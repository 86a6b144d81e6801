"""Answering: one question to a tuned model, from the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, Template, prompt_of, stored_template
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer, has_tokenizer, open_tokenizer
from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError, require_at_least
from minigpt2.inference.generate import generate
from minigpt2.inference.sampling import Sampling
from minigpt2.model.config import OFFICIAL
from minigpt2.model.parameters import Parameters
from minigpt2.weights import find_model, load_parameters


@dataclass(frozen=True)
class AnswerSettings:
    """Let a model answer a question.

    Args:
        question: what to ask or to have done
        input: what to do it with, if anything
        model: folder of a model, folder of a run, or a name
        max_new_tokens: longest answer
        temperature: 0 for the likeliest token each time, 1 to draw from the model
        seed: of the draws
        device: cpu, cuda (a GPU, by CuPy), emulated (the GPU's kernels without one: very slow), or
            auto: cuda where it works, else cpu
    """

    question: str
    input: str = ""
    model: str = "tiny"
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise UserError("the question is empty")
        require_at_least(0, self, "temperature", "seed")
        require_at_least(1, self, "max_new_tokens")


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


def answer(settings: AnswerSettings) -> str:
    """Print the answer, and return it."""
    parameters, tokenizer, template = open_model(settings.model, settings.device)
    asked = Record(settings.question, settings.input, "")
    prompt = tokenizer.encode(prompt_of(asked, template or ALPACA))
    if len(prompt) > parameters.config.n_positions:
        raise UserError(
            f"the question has {len(prompt)} tokens with its template; the model reads at most "
            f"{parameters.config.n_positions}"
        )
    rng = np.random.default_rng(settings.seed)
    stop = tokenizer.end_of_text
    how = Sampling(settings.temperature)
    (ids,) = generate(parameters, [prompt], stop, settings.max_new_tokens, how, rng)
    text = tokenizer.decode(ids)
    print(text)
    return text
