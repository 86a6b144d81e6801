"""Setup: the settings of a tuning run, and the one place where they become values.

Everything is opened and checked here, before anything is written.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from minigpt2.commands.dataset import (
    ALMANAC,
    Dataset,
    WeightedDataSettings,
    open_dataset,
    reader_of,
)
from minigpt2.commands.tests import choose_samples, open_tests
from minigpt2.data.batches import EpochBatches, TrainingSet, split
from minigpt2.data.loss_weights import LossWeights
from minigpt2.data.records import Record
from minigpt2.device.devices import Device, open_device
from minigpt2.errors import UserError, require_above_zero, require_at_least, require_share
from minigpt2.inference.model import Model, open_model, random_model
from minigpt2.ops.adamw import AdamW
from minigpt2.planning.room import require_state
from minigpt2.terminal import note
from minigpt2.training.evaluation import Limits
from minigpt2.training.precision import Precision, check_precision
from minigpt2.training.run import Every
from minigpt2.training.state import State, new_state
from minigpt2.training.step import TrainingConfig

MOST_STEPS = 2**63 - 1
VALIDATIONS = 10  # in a run, after that before its first step
START = 0  # the stream of random numbers for initial weights and samples


@dataclass(frozen=True, kw_only=True)
class TrainSettings(WeightedDataSettings):
    """Tune a model on questions and answers.

    Examples:
        minigpt2 train         # the questions that ship, the small base
        minigpt2 train questions.json --model gpt2 --epochs 3
        minigpt2 train --config settings.yaml --learning-rate 1e-4

    Output:
        step 10/184  loss 2.1025  lr 6.7e-04  norm 10.61  2,028 tok/s  254 MB
            loss       what the step lowers: a weighted mean over the batch's tokens
            lr         learning rate of this step
            norm       norm of the gradient before clipping
            tok/s      tokens computed a second
            254 MB     peak memory of the run so far
        step 184/184  validation loss 0.0403  by example 0.1174
            on the validation examples: mean over answer tokens, mean over examples
        step 7/184  overflowed in float16: again with loss scale 32,768
            the gradient was not finite: nothing changed; the step is taken again

    Args:
        data: file or folder of questions and answers (JSON or JSONL; the README lists the
            formats), or "almanac" for the questions that ship
        model: tiny, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or the folder of a model or of a run
        out: folder of the run, new or empty (default: the first free of runs/<data>-1,
            runs/<data>-2, ...)
        test: questions to answer before and after tuning, scored by exact match, in one file or
            in several: [a.json,b.json] (the almanac brings its own)
        from_scratch: start from random weights of the model's size
        epochs: passes over the training examples
        steps: number of optimiser steps, instead of epochs
        batch_size: examples in one optimiser step
        micro_batch: examples computed at once; changes memory, not the result (default:
            batch_size)
        learning_rate: peak learning rate; the default suits the official weights
        schedule: curve on which the learning rate falls after the warm-up
        warmup: share of the steps during which the learning rate rises
        weight_decay: AdamW weight decay; applies to weight matrices, not to biases or layer
            norms
        beta1: AdamW's decay of the first moment
        beta2: AdamW's decay of the second moment
        eps: AdamW's epsilon, added to the root of the second moment
        clip: largest norm of the gradient over all parameters; 0 for no limit
        dropout: share of features and attention weights that are set to 0 in training
        recompute: gradient checkpointing: keep 3/8 of each block's activations and recompute the
            rest in the backward pass; saves memory, costs time
        validation: share of the examples for validation
        evaluate_every: steps between validations; 0 validates at the start and the end only
            (default: a tenth of the steps)
        patience: validations without an improvement after which the run stops; each model that is
            the best so far is saved; 0 is off
        save_every: steps between checkpoints; 0 saves at the end only
        log_every: steps between printed lines (log.jsonl has every step)
        tensorboard: also write event files for TensorBoard
        samples: number of questions whose answers are printed before and after tuning
        max_new_tokens: longest answer in tokens (default: as long as the longest reference)
        seed: seed of the split, the order, the initial weights and dropout
        device: auto takes cuda (a GPU, through CuPy) if it works, else cpu; emulated runs the GPU's
            kernels on the CPU, very slowly
        precision: number type of the passes on a GPU; AdamW's weights and moments stay float32
    """

    data: str = ALMANAC
    out: Path | None = None
    test: list[str] | str | None = None
    from_scratch: bool = False
    epochs: float = 2.0
    steps: int | None = None
    batch_size: int = 8
    micro_batch: int | None = None
    learning_rate: float = 5e-5
    schedule: Literal["linear", "cosine"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0
    dropout: float = 0.0
    recompute: bool = False
    validation: float = 0.05
    evaluate_every: int | None = None
    patience: int = 0
    save_every: int = 0
    log_every: int = 10
    tensorboard: bool = False
    samples: int = 3
    max_new_tokens: int | None = None
    seed: int = 0
    device: Device = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "warmup", "validation", "dropout", "beta1", "beta2")
        require_above_zero(self, "epochs", "learning_rate", "eps")
        require_at_least(1, self, "steps", "batch_size", "micro_batch", "log_every")
        require_at_least(0, self, "weight_decay", "clip", "evaluate_every", "patience")
        require_at_least(0, self, "save_every", "samples", "max_new_tokens", "seed")


class Run(NamedTuple):
    """The values of a tuning run."""

    model_name: str
    from_scratch: bool
    model: Model  # with the template that it is tuned with
    dataset: Dataset
    examples: TrainingSet
    loss_weights: LossWeights
    tests: dict[str, list[Record]]  # every question is answered, and scored by exact match
    samples: list[Record]  # these questions' answers are printed
    limits: Limits
    state: State
    batches: EpochBatches
    config: TrainingConfig
    every: Every


def setup(settings: TrainSettings) -> Run:
    """Open the model and the data.  Raises UserError if something cannot be used."""
    library = open_device(settings.device)
    check_precision(settings.precision, library)
    rng = np.random.default_rng([settings.seed, START])
    tests = open_tests(settings.data, settings.test, settings.columns, settings.skip_bad)
    model = open_start(settings.model, settings.from_scratch, rng)
    require_state(model.parameters.config, library)
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
    config = training_config(settings, batches.steps)
    return Run(
        model_name=settings.model,
        from_scratch=settings.from_scratch,
        model=Model(parameters, model.tokenizer, dataset.template),
        dataset=dataset,
        examples=examples,
        loss_weights=settings.loss_weights(),
        tests=tests,
        samples=choose_samples(sources, settings.samples, rng),
        limits=Limits(dataset.context, settings.truncate, settings.max_new_tokens),
        state=new_state(parameters, settings.precision, settings.seed),
        batches=batches,
        config=config,
        every=every_of(settings, config.steps),
    )


def every_of(settings: TrainSettings, steps: int) -> Every:
    """Return how often a run of so many steps logs, validates and saves."""
    validate = settings.evaluate_every
    return Every(
        log=settings.log_every,
        validate=ceil(steps / VALIDATIONS) if validate is None else validate,
        save=settings.save_every,
        patience=settings.patience,
    )


def training_config(settings: TrainSettings, steps_per_epoch: int) -> TrainingConfig:
    """Return the number of steps, the learning rate and AdamW's constants."""
    epochs = settings.epochs * steps_per_epoch  # in steps
    if not settings.steps and epochs > MOST_STEPS:
        raise UserError(f"epochs is too large: {settings.epochs:g}")
    steps = settings.steps or max(1, round(epochs))
    return TrainingConfig(
        steps=steps,
        learning_rate=settings.learning_rate,
        warmup=round(settings.warmup * steps),
        schedule=settings.schedule,
        adamw=AdamW(
            beta1=settings.beta1,
            beta2=settings.beta2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            clip=settings.clip,
        ),
        dropout=settings.dropout,
        recompute=settings.recompute,
    )


def open_start(model: str, from_scratch: bool, rng: np.random.Generator) -> Model:
    """Return the model to start from, trained or random."""
    if from_scratch:
        return random_model(model, rng, warn=note)
    return open_model(model, warn=note)
