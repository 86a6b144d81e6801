"""Answer: one question to a tuned model, from the command line."""

from dataclasses import dataclass

import numpy as np

from minigpt2.data.records import Record
from minigpt2.data.template import ALPACA, prompt_of
from minigpt2.device.devices import Device
from minigpt2.errors import UserError, require_at_least
from minigpt2.inference.generate import generate
from minigpt2.inference.model import open_model
from minigpt2.inference.sampling import Sampling


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
    (ids,) = generate(
        parameters,
        [prompt],
        stop=tokenizer.end_of_text,
        max_new_tokens=settings.max_new_tokens,
        sampling=Sampling(settings.temperature),
        rng=rng,
    )
    text = tokenizer.decode(ids)
    print(text)
    return text
