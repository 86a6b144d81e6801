"""Setup: what a tuning run works on, opened and checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt2.commands.dataset import ALMANAC, as_records, open_data, split_records
from minigpt2.commands.train_settings import TrainSettings
from minigpt2.data.almanac import questions
from minigpt2.data.examples import Example, encode
from minigpt2.data.formats import DataSet, load_records
from minigpt2.data.records import Record
from minigpt2.data.template import Template, open_template
from minigpt2.data.tokenizer import Tokenizer, gpt2_tokenizer, open_tokenizer
from minigpt2.data.truncation import Cuts, truncate_all
from minigpt2.device.devices import open_device
from minigpt2.errors import UserError
from minigpt2.inference.model import open_model
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.training.precision import short_type
from minigpt2.weights import find_model


@dataclass
class Material:
    """A model with its tokenizer, examples, and questions to ask before and after."""

    parameters: Parameters
    tokenizer: Tokenizer
    template: Template
    format: str  # of the data
    training: list[Example]
    validation: list[Example]
    tests: dict[str, list[Record]]  # every question is asked, and counted by exact match
    samples: list[Record]  # these questions' answers are printed
    cuts: Cuts  # of the examples to train on and to validate


def open_material(settings: TrainSettings) -> Material:
    """Open the model and the data; raises UserError for what cannot be used."""
    library = open_device(settings.device)
    if settings.precision != "float32" and library is np:
        raise UserError(
            f"--precision {settings.precision} needs a GPU: this run computes on the cpu"
        )
    short_type(settings.precision)
    rng = np.random.default_rng([settings.seed, 0])
    data, tests = open_questions(settings)
    template = open_template(settings.template or data.format.template)
    parameters, tokenizer = open_start(settings.model, settings.from_scratch, rng)
    longest = parameters.config.n_positions
    context = settings.context or longest
    if context > longest:
        raise UserError(f"context {context} is longer than the model's {longest}")
    kept, held = split_records(data.records, settings.validation, settings.seed)
    (training, cuts), (validation, held_cuts) = (
        truncate_all((encode(r, tokenizer, template) for r in part), context, settings.truncate)
        for part in (kept, held)
    )
    asked = [[r for r in part if not r.is_text] for part in list(tests.values()) or [held]]
    return Material(
        parameters.on(library),
        tokenizer,
        template,
        data.format.name,
        training,
        validation,
        tests,
        choose_samples(asked, settings.samples, rng),
        cuts + held_cuts,
    )


def open_questions(settings: TrainSettings) -> tuple[DataSet, dict[str, list[Record]]]:
    """Return the records to learn from, and the test questions by name."""
    data, tests = open_data(settings.data, settings.columns), {}
    if settings.data == ALMANAC:
        asked = questions(0)
        tests = {
            "held-out facts": as_records(asked.held_out_facts),
            "held-out arithmetic": as_records(asked.held_out_arithmetic),
        }
    files = [settings.test] if isinstance(settings.test, str) else settings.test or []
    for path in map(Path, files):
        if path.stem in tests:
            raise UserError(f"two tests are called {path.stem!r}: rename the file {path}")
        tests[path.stem] = load_records(path, settings.columns)
        if any(record.is_text for record in tests[path.stem]):
            raise UserError(f"{path} holds texts, not questions: a test needs questions")
    return data, tests


def open_start(
    model: str, from_scratch: bool, rng: np.random.Generator
) -> tuple[Parameters, Tokenizer]:
    """Return the parameters to start from, trained or random, and the tokenizer."""
    if from_scratch and model in OFFICIAL:
        return initialise(OFFICIAL[model], rng), gpt2_tokenizer()
    if from_scratch:
        folder = find_model(model)
        config = GPT2Config.load(folder / "config.json")
        return initialise(config, rng), open_tokenizer(folder)
    opened = open_model(model)
    return opened.parameters, opened.tokenizer


def choose_samples(
    sources: list[list[Record]], count: int, rng: np.random.Generator
) -> list[Record]:
    """Draw `count` records, from each source in turn."""
    shuffled = [[source[i] for i in rng.permutation(len(source))] for source in sources]
    rounds = zip(*(s[:count] for s in shuffled), strict=False)
    return [record for together in rounds for record in together][:count]
