"""Data set: a data set as a command is told of it: which file, which vocabulary, how it is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from minigpt2.data.batches import split
from minigpt2.data.examples import Example, encode
from minigpt2.data.formats import ALPACA_FORMAT, DataSet, load_data
from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.records import Record
from minigpt2.data.template import Template, open_template
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer, open_tokenizer
from minigpt2.data.truncation import Policy
from minigpt2.errors import UserError, require_at_least
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.weights import find_model

ALMANAC = "almanac"


@dataclass(frozen=True)
class DataSettings:
    """A data set, and how it is made into examples.

    Args:
        data: file or folder of questions and answers, or "almanac" for the questions that ship
        model: whose vocabulary and context count: a name, or the folder of a model or of a run
        columns: which field of an entry stands for a format's: {"instruction": "ask"}
        template: alpaca, qa, chat, raw, or a .yaml or .json file with one of your own (default:
            the one that goes with the format)
        context: longest sequence in tokens (default: the model's)
        truncate: what of an example over the context is cut first: prompt, answer, or drop all
        prompt_weight: how much a prompt token counts in the loss, beside 1 for one of an answer
        loss: whether each answer token counts the same, or each example
    """

    data: str
    model: str = "tiny"
    columns: dict[str, str] | None = None
    template: str | None = None
    context: int | None = None
    truncate: Policy = "prompt"
    prompt_weight: float = 0.0
    loss: Literal["token", "example"] = "token"

    def __post_init__(self) -> None:
        require_at_least(0, self, "prompt_weight")
        require_at_least(1, self, "context")

    def loss_weights(self) -> LossWeights:
        """Return how tokens are weighed."""
        return LossWeights(self.prompt_weight, self.loss == "example")


class Opened(NamedTuple):
    """A data set with its examples, as long as they come, and what they were made with."""

    data: DataSet
    examples: list[Example]
    tokenizer: Tokenizer
    template: Template
    context: int


def open_data(name: str, columns: Mapping[str, str] | None = None) -> DataSet:
    """Return the records of a file or folder, or the trained questions of the almanac."""
    if name == ALMANAC:
        from minigpt2.data.almanac import questions  # it takes time to load

        return DataSet(as_records(questions(0).train), ALPACA_FORMAT)
    return load_data(Path(name), columns)


def as_records(asked: list[dict[str, str]]) -> list[Record]:
    """Return the almanac's questions as records."""
    return [Record(q["instruction"], q["input"], q["output"]) for q in asked]


def split_records(
    records: Sequence[Record], share: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Split records into those to train on and those held back for validation."""
    return split(records, share, np.random.default_rng([seed, 3]))


def open_vocabulary(model: str) -> tuple[Tokenizer, int]:
    """Return a model's tokenizer and context; of an official one without its weights, too."""
    if model in OFFICIAL:
        return gpt2_tokenizer(), OFFICIAL[model].n_positions
    folder = find_model(model)
    config = GPT2Config.load(folder / "config.json")
    return open_tokenizer(folder), config.n_positions


def open_examples(settings: DataSettings) -> Opened:
    """Open a data set and encode it, without cutting anything."""
    data = open_data(settings.data, settings.columns)
    template = open_template(settings.template or data.format.template)
    tokenizer, longest = open_vocabulary(settings.model)
    context = settings.context or longest
    if context > longest:
        raise UserError(f"context {context} is longer than the {longest} of {settings.model}")
    examples = [encode(record, tokenizer, template) for record in data.records]
    return Opened(data, examples, tokenizer, template, context)
