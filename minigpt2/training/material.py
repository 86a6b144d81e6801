"""Material: what a tuning run works on, opened and checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt2.data.almanac import questions
from minigpt2.data.batches import Cuts, Example, encode_all, split
from minigpt2.data.records import Record, load_records
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer, open_tokenizer
from minigpt2.errors import UserError
from minigpt2.inference.answer import open_model
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.parameters import Parameters, initialise
from minigpt2.training.settings import TrainSettings
from minigpt2.weights import find_model

ALMANAC = "almanac"


@dataclass
class Material:
    """A model with its tokenizer, examples, and questions to ask before and after."""

    parameters: Parameters
    tokenizer: Tokenizer
    training: list[Example]
    validation: list[Example]
    tests: dict[str, list[Record]]  # every question is asked, and counted by exact match
    samples: list[Record]  # these questions' answers are printed
    cuts: Cuts


def open_material(settings: TrainSettings) -> Material:
    """Open the model and the data; raises UserError for what cannot be used."""
    rng = np.random.default_rng([settings.seed, 0])
    records, tests = open_records(settings)
    parameters, tokenizer = open_start(settings, rng)
    longest = parameters.config.n_positions
    context = settings.context or longest
    if context > longest:
        raise UserError(f"context {context} is longer than the model's {longest}")
    kept, held = split(records, settings.validation, rng)
    training, cuts = encode_all(kept, tokenizer, context)
    validation, held_cuts = encode_all(held, tokenizer, context)
    samples = choose_samples(list(tests.values()) or [held], settings.samples, rng)
    return Material(parameters, tokenizer, training, validation, tests, samples, cuts + held_cuts)


def open_records(settings: TrainSettings) -> tuple[list[Record], dict[str, list[Record]]]:
    """Return the records to learn from, and the test questions by name."""
    if settings.data == ALMANAC:
        asked = questions(0)
        records = [Record(**r) for r in asked.train]
        tests = {
            "held-out facts": [Record(**r) for r in asked.held_out_facts],
            "held-out arithmetic": [Record(**r) for r in asked.held_out_arithmetic],
        }
    else:
        records, tests = load_records(Path(settings.data)), {}
    files = [settings.test] if isinstance(settings.test, str) else settings.test or []
    for path in map(Path, files):
        if path.stem in tests:
            raise UserError(f"two tests are called {path.stem!r}: rename the file {path}")
        tests[path.stem] = load_records(path)
    return records, tests


def open_start(settings: TrainSettings, rng: np.random.Generator) -> tuple[Parameters, Tokenizer]:
    """Return the parameters to start from, and the tokenizer."""
    if settings.from_scratch and settings.model in OFFICIAL:
        return initialise(OFFICIAL[settings.model], rng), gpt2_tokenizer()
    if settings.from_scratch:
        folder = find_model(settings.model)
        config = GPT2Config.load(folder / "config.json")
        return initialise(config, rng), open_tokenizer(folder)
    return open_model(settings.model)


def choose_samples(
    sources: list[list[Record]], count: int, rng: np.random.Generator
) -> list[Record]:
    """Draw `count` records, from each source in turn."""
    shuffled = [[source[i] for i in rng.permutation(len(source))] for source in sources]
    rounds = zip(*(s[:count] for s in shuffled), strict=False)
    return [record for together in rounds for record in together][:count]
