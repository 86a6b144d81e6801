"""Settings of every run: the options that the commands which train a model have in common.

The values that steps need are made of them here.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

from minigpt2.device.devices import Device
from minigpt2.errors import (
    UserError,
    require_above_zero,
    require_at_least,
    require_share,
    require_with,
)
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from minigpt2.training.precision import Precision
from minigpt2.training.run import Every

MOST_STEPS = 2**63 - 1
VALIDATIONS = 10  # in a run, after that before its first step


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of a run: its folder, its log and its checkpoints.

    Args:
        out: folder of the run, new or empty (default: the first free of runs/<data>-1,
            runs/<data>-2, ...)
        learning_rate: peak learning rate
        save_every: steps between checkpoints; 0 for none by steps
        save_minutes: minutes between checkpoints; 0 for none by time (one is saved at the end)
        keep: newest checkpoints that stay; 0 keeps all
        resume: continue an unfinished run: its folder, or nothing for the newest of the data set
            that has these settings (if there is none, a new run starts)
        resume_anyway: resume although data or settings have changed; then it is another run
        log_every: steps between printed lines (log.jsonl has every step)
        seed: seed of the order
    """

    out: Path | None = None
    learning_rate: float = 5e-5
    save_every: int = 0
    save_minutes: float = 10.0
    keep: int = 2
    resume: bool | Path = False
    resume_anyway: bool = False
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require_above_zero(self, "learning_rate")
        require_at_least(1, self, "log_every")
        require_at_least(0, self, "save_every", "save_minutes", "keep", "seed")


@dataclass(frozen=True, kw_only=True)
class TuningSettings(RunSettings):
    """The settings of a run that changes a model: its steps, AdamW's constants, its device.

    Args:
        steps: number of optimiser steps
        micro_batch: examples computed at once, with gradient accumulation over a step; changes
            memory, and with dropout its random numbers, but nothing else (default: batch_size)
        schedule: curve on which the learning rate falls after the warm-up
        warmup: share of the steps during which the learning rate rises
        weight_decay: AdamW weight decay; applies to weight matrices, not to biases or layer
            norms
        beta1: AdamW's decay of the first moment
        beta2: AdamW's decay of the second moment
        eps: AdamW's epsilon, added to the root of the second moment
        clip: gradient clipping: largest norm over all parameters; 0 for no limit
        recompute: gradient checkpointing: keep 3/8 of each block's activations and recompute the
            rest in the backward pass; saves memory, costs time
        tensorboard: also write event files for TensorBoard
        device: auto takes cuda (a GPU, through CuPy) if it works, else cpu; emulated runs the GPU's
            kernels on the CPU, very slowly
        precision: number type of the passes on a GPU; AdamW's weights and moments stay float32
    """

    steps: int | None = None
    micro_batch: int | None = None
    schedule: Literal["linear", "cosine"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0
    recompute: bool = False
    tensorboard: bool = False
    device: Device = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "warmup", "beta1", "beta2")
        require_above_zero(self, "eps")
        require_at_least(1, self, "steps", "micro_batch")
        require_at_least(0, self, "weight_decay", "clip")


@dataclass(frozen=True, kw_only=True)
class EpochSettings(TuningSettings):
    """The settings of a run over a data set, with some of it for validation.

    Args:
        epochs: passes over the training examples
        steps: number of optimiser steps, instead of epochs
        batch_size: examples in one optimiser step
        validation: share of the examples for validation
        evaluate_every: steps between validations; 0 validates at the start and the end only
            (default: a tenth of the steps)
        patience: validations without an improvement after which the run stops; 0 is off
        save_every: steps between checkpoints; 0 for none by steps (one is saved at the end, and
            one after each validation that is the best so far)
        save_minutes: minutes between checkpoints; 0 for none by time
        keep: newest checkpoints that stay, besides that of the best validation; 0 keeps all
    """

    epochs: float = 1.0
    batch_size: int = 8
    validation: float = 0.05
    evaluate_every: int | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "validation")
        require_above_zero(self, "epochs")
        require_at_least(1, self, "batch_size")
        require_at_least(0, self, "evaluate_every", "patience")
        require_with("validation", self, "patience")


def steps_of(settings: EpochSettings, steps_per_epoch: int) -> int:
    """Return the number of steps of a run over a data set; raises UserError."""
    epochs = settings.epochs * steps_per_epoch  # in steps
    if not settings.steps and epochs > MOST_STEPS:
        raise UserError(f"epochs is too large: {settings.epochs:g}")
    return settings.steps or max(1, round(epochs))


def training_config(settings: TuningSettings, steps: int, dropout: float = 0.0) -> TrainingConfig:
    """Return the learning rate of so many steps, and AdamW's constants."""
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
        dropout=dropout,
        recompute=settings.recompute,
    )


def every_of(settings: EpochSettings, steps: int) -> Every:
    """Return how often a run of so many steps logs, validates and saves."""
    validate = settings.evaluate_every
    return Every(
        log=settings.log_every,
        validate=ceil(steps / VALIDATIONS) if validate is None else validate,
        save=settings.save_every,
        save_minutes=settings.save_minutes,
        patience=settings.patience,
    )
