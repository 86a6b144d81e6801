"""Batch profile: what the steps of a run compute, and the settings with which they fit a memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import NamedTuple

import numpy as np

from minigpt2.commands.dataset import DataSettings
from minigpt2.data.batches import windows
from minigpt2.data.examples import Example
from minigpt2.data.truncation import truncate_all
from minigpt2.errors import UserError, require_above_zero, require_at_least, require_share
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.planning.memory_and_flops import How, Load, memory, peak
from minigpt2.weights import find_model

SHORTEST = 64  # context that is proposed


@dataclass(frozen=True)
class PlanSettings(DataSettings):
    """Tell what a run will need.

    Args:
        data: file or folder of questions and answers, whose batches are counted, or "almanac"
            (default: none; every example is as long as the context, every token supervised)
        batch_size: examples in one optimiser step
        micro_batch: examples computed at once (default: batch_size)
        recompute: keep 3/8 of what each block makes, and make the rest again on the way back
        dropout: share of features and attention weights that are dropped
        seed: of the order, as of a training run
        memory: what the run may take, in GB of 10⁹ bytes (default: what this machine has left)
        time: whether to rehearse a block, to tell the time of a step
    """

    data: str = ""
    batch_size: int = 8
    micro_batch: int | None = None
    recompute: bool = False
    dropout: float = 0.0
    seed: int = 0
    memory: float | None = None
    time: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "batch_size", "micro_batch")
        require_at_least(0, self, "seed")
        require_share(self, "dropout")
        if self.memory is not None:
            require_above_zero(self, "memory")

    @property
    def at_once(self) -> int:
        """Examples computed at once."""
        return min(self.micro_batch or self.batch_size, self.batch_size)


class Job(NamedTuple):
    """What is to be computed: every micro-batch of an epoch, or of one step where all are alike."""

    config: GPT2Config
    context: int
    loads: list[Load]
    steps: int  # that the loads are enough for
    length: int  # of a sequence, on average

    @property
    def largest(self) -> Load:
        """The micro-batch that memory is needed for."""
        return Load(max(load.rows for load in self.loads), max(x.supervised for x in self.loads))

    @property
    def typical(self) -> Load:
        """The micro-batch that takes the average time."""
        rows, supervised = (np.mean(counts) for counts in zip(*self.loads, strict=True))
        return Load(max(1, round(rows)), max(1, round(supervised)))


class Choice(NamedTuple):
    """Settings that fit, with their peak in bytes."""

    micro_batch: int
    recompute: bool
    context: int
    bytes: int

    def put_into(self, settings: PlanSettings) -> PlanSettings:
        """Return the settings with these in place."""
        return replace(
            settings,
            micro_batch=self.micro_batch,
            recompute=self.recompute,
            context=self.context,
        )


def job_of(settings: PlanSettings, config: GPT2Config, examples: Sequence[Example]) -> Job:
    """Count the micro-batches; without examples each is as long as the context."""
    context = settings.context or config.n_positions
    if examples:
        return job_of_data(settings, config, context, examples)
    full, rest = divmod(settings.batch_size, settings.at_once)
    sizes = [settings.at_once] * full + [rest] * bool(rest)
    return Job(config, context, [dense(size, context) for size in sizes], 1, context - 1)


def dense(examples: int, context: int) -> Load:
    """Return the load of examples as long as the context; a last token needs no row."""
    return Load(examples * (context - 1), examples * (context - 1))


def job_of_data(
    settings: PlanSettings, config: GPT2Config, context: int, whole: Sequence[Example]
) -> Job:
    """Count the micro-batches of an epoch of examples."""
    examples, _ = truncate_all(whole, context, settings.truncate)
    steps = ceil(len(examples) / settings.batch_size)
    sizes = settings.batch_size, settings.at_once
    epoch = islice(windows(examples, *sizes, settings.seed, settings.loss_weights()), steps)
    batches = [batch for window in epoch for batch in window]
    loads = [Load(len(b.ids), int(np.count_nonzero(b.weights))) for b in batches]
    length = round(np.mean([len(example.ids) for example in examples]))
    return Job(config, context, loads, steps, max(1, length))


def config_of(settings: PlanSettings) -> GPT2Config:
    """Return a model's configuration; of an official one without its weights, too.

    Raises UserError for a context that the model does not have.
    """
    name = settings.model
    config = OFFICIAL.get(name) or GPT2Config.load(find_model(name) / "config.json")
    if settings.context and settings.context > config.n_positions:
        text = f"longer than the model's {config.n_positions}"
        raise UserError(f"context {settings.context} is {text}")
    if settings.context == 1:
        raise UserError("a context of 1 leaves nothing to predict: choose a longer one")
    return config


def choices(
    settings: PlanSettings, job: Job, examples: Sequence[Example], program: int
) -> Iterator[Choice]:
    """Yield settings, the best first: a long context, nothing computed twice, much at once."""
    contexts = [job.context >> k for k in range(11)]
    sizes = [max(1, settings.at_once >> k) for k in range(settings.at_once.bit_length())]
    for context in (c for c in contexts if c >= min(SHORTEST, job.context)):
        loads = {}
        for size in sizes:
            there = replace(settings, micro_batch=size, context=context)
            loads[size] = job_of(there, job.config, examples).largest
        for again in (False, True):
            for size, load in loads.items():
                parts = memory(job.config, load, How(again, settings.dropout > 0), program)
                yield Choice(size, again, context, peak(parts))
