"""Setup: the settings of a tuning run, and the one place where they become values.

Everything is opened and checked here, before anything is written.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigpt2.adapter_weights import (
    check_shape,
    checksum_of,
    is_adapter,
    load_adapters,
    open_adapters,
)
from minigpt2.backend import array_module
from minigpt2.commands.dataset import (
    Dataset,
    open_dataset,
    reader_of,
)
from minigpt2.commands.run_settings import every_of, steps_of, training_config
from minigpt2.commands.tests import choose_samples, open_tests
from minigpt2.commands.train_settings import TrainSettings
from minigpt2.commands.tuning_run import TuningRun
from minigpt2.data.batches import EpochBatches, TrainingSet, split
from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.records import Record
from minigpt2.device.devices import open_device
from minigpt2.inference.model import Model, open_model, random_model
from minigpt2.model.adapters import Adapted, LoRA, Origin, with_adapters
from minigpt2.model.config import OFFICIAL
from minigpt2.model_folders import find_model
from minigpt2.planning.batch_profile import RunShape
from minigpt2.planning.room import check_step, require_state
from minigpt2.terminal import note
from minigpt2.training.config import TrainingConfig
from minigpt2.training.evaluation import Limits
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.precision import check_precision
from minigpt2.training.run import Every
from minigpt2.training.state import State, new_state

START = 0  # the stream of random numbers for initial weights and samples


class Run(NamedTuple):
    """The values of a tuning run."""

    model_name: str
    from_scratch: bool
    model: Model  # with the template that it is tuned with
    dataset: Dataset
    examples: TrainingSet
    entry_numbers: Callable[[], list[int]]  # of the examples to train on, in the data
    loss_weights: LossWeights
    tests: dict[str, list[Record]]  # every question is answered, and scored by exact match
    samples: list[Record]  # these questions' answers are printed
    limits: Limits
    state: State
    batches: EpochBatches
    config: TrainingConfig
    every: Every

    @property
    def lora(self) -> LoRA | None:
        """The adapters that are tuned; None if all weights are."""
        parameters = self.model.parameters
        return parameters.lora if isinstance(parameters, Adapted) else None

    @property
    def tuning(self) -> TuningRun:
        """What the steps need."""
        return TuningRun(
            self.model, self.state, self.batches, WeightedNLL(), self.config, self.every
        )


def setup(settings: TrainSettings, start: str | None = None) -> Run:
    """Open the model and the data; `start` is the model of a run that continues.

    Raises UserError if something cannot be used.
    """
    library = open_device(settings.device)
    check_precision(settings.precision, library)
    tests = open_tests(settings.data, settings.test, settings.columns, settings.skip_bad)
    model = open_tuned(settings, start)
    require_state(model.parameters.config, library, settings.lora)
    dataset = open_dataset(settings, reader_of(model))
    examples = dataset.training_set(settings.validation, settings.seed)
    _, held_out = split(dataset.records, settings.validation, settings.seed)
    sources = list(tests.values()) or [[r for r in held_out if not r.is_text]]
    parameters = model.parameters.on(library)
    batches = EpochBatches(
        examples.training,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch or settings.batch_size,
        seed=settings.seed,
        loss_weights=settings.loss_weights(),
    )
    config = training_config(settings, steps_of(settings, batches.steps), settings.dropout)
    return Run(
        model_name=settings.model,
        from_scratch=settings.from_scratch,
        model=Model(parameters, model.tokenizer, dataset.template),
        dataset=dataset,
        examples=examples,
        entry_numbers=partial(dataset.training_numbers, settings.validation, settings.seed),
        loss_weights=settings.loss_weights(),
        tests=tests,
        samples=choose_samples(sources, settings.samples, first_numbers(settings.seed)),
        limits=Limits(dataset.context, settings.truncate, settings.max_new_tokens),
        state=new_state(parameters, settings.precision, settings.seed),
        batches=batches,
        config=config,
        every=every_of(settings, config.steps),
    )


def check_memory(run: Run) -> str | None:
    """Return a warning if a step of a run takes more memory than is free.

    Raises UserError if it takes more than there is.
    """
    batches, config = run.batches, run.config
    shape = RunShape(
        context=run.dataset.context,
        batch_size=batches.batch_size,
        micro_batch=min(batches.micro_batch, batches.batch_size),
        recompute=config.recompute,
        dropout=config.dropout > 0,
        truncate=run.dataset.truncate,
        loss_weights=run.loss_weights,
        lora=run.lora,
    )
    parameters, precision = run.model.parameters, run.state.precision
    library = array_module(parameters.flat)
    return check_step(parameters.config, library, precision, batches, shape, config.steps)


def first_numbers(seed: int) -> np.random.Generator:
    """Return the random numbers for initial weights, and the same ones for the samples."""
    return np.random.default_rng([seed, START])


def open_tuned(settings: TrainSettings, start: str | None) -> Model:
    """Return the model that is tuned, on the host, with its adapters if only these are.

    `start` is the model of a run that continues: of adapters, the folder that has them.
    """
    rng = first_numbers(settings.seed)
    lora = settings.lora
    if not lora or (start and not is_adapter(Path(start))):  # the latter is refused later
        return open_start(start or settings.model, settings.from_scratch and not start, rng)
    model = open_model(settings.model, warn=note)
    check_shape(model.parameters.config, lora)
    folder = find_model(settings.model)
    checksum = checksum_of(folder, model.parameters)
    origin = Origin(base_name(settings.model), checksum)
    if not start:
        return model._replace(parameters=with_adapters(model.parameters, lora, rng, origin))
    adapted = load_adapters(open_adapters(Path(start)), model.parameters, checksum)
    adapted.origin = origin  # it may have moved
    return model._replace(parameters=adapted)


def base_name(model: str) -> str:
    """Return how adapters name the model that they belong to: its name, or where its folder is."""
    is_name = model in (*OFFICIAL, "tiny") and not Path(model).exists()
    return model if is_name else str(find_model(model).resolve())


def open_start(model: str, from_scratch: bool, rng: np.random.Generator) -> Model:
    """Return the model to start from, trained or random."""
    if from_scratch:
        return random_model(model, rng, warn=note)
    return open_model(model, warn=note)
