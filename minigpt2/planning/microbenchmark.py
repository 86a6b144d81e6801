"""Microbenchmark: how long a step takes here, from one block of it.

A step of Large takes minutes, its blocks are all alike, and no two machines are.  So one block is
run forward and backward on the rows that a micro-batch has, the loss on M′ of its triples, AdamW
on P′ parameters, and with the seconds t of each
t_step = micro-batches · ( L·(t_forward + t_backward) + t_loss·M/M′ ) + t_adamw·P/P′   (37.1)
where with recomputation t_backward has what is made again in it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.memory import keep_freed_memory
from minigpt2.model.block import block, block_backward
from minigpt2.model.config import GPT2Config
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import tensor_shapes
from minigpt2.ops.adamw import AdamW
from minigpt2.ops.cross_entropy import cross_entropy_gradient
from minigpt2.planning.memory_and_flops import Load, chunk_of
from minigpt2.training.state import Moments, adamw_step

TIMES = 2  # after one that is not counted


class Rehearsed(NamedTuple):
    """Seconds of the parts of a step."""

    forward: float  # of one block
    backward: float
    again: float  # backward, with recomputation
    loss: float  # of a micro-batch
    adamw: float

    def step(self, layers: int, micro_batches: float, recompute: bool) -> float:
        """Return the seconds of an optimiser step."""
        blocks = layers * (self.forward + (self.again if recompute else self.backward))
        return micro_batches * (blocks + self.loss) + self.adamw  # (37.1)


def seconds_of(action: Callable[[], Any]) -> float:
    """Return the median time of an action, after one that warms up."""
    found = []
    for _ in range(1 + TIMES):
        started = perf_counter()
        action()
        found.append(perf_counter() - started)
    return median(found[1:])


def rehearse(config: GPT2Config, load: Load, length: int, rng: np.random.Generator) -> Rehearsed:
    """Time the parts of a step whose rows are sequences of a length, one after the other."""
    keep_freed_memory()
    single = replace(config, n_layer=1, vocab_size=1)
    parameters = initialise(single, rng)
    gradients = gradients_of(parameters)
    row = np.arange(load.rows)
    end = np.minimum((row // length + 1) * length, load.rows)
    x = rng.standard_normal((load.rows, config.n_embd), np.float32)
    run = partial(block, x, end, parameters.block(0), n_head=config.n_head)
    forward = seconds_of(run)
    ways = [run(recompute=recompute)[1] for recompute in (False, True)]

    def way_back(saved: Any) -> None:
        gradients.clear()
        block_backward(x, saved, gradients.block(0))

    backward, again = (seconds_of(partial(way_back, saved)) for saved in ways)
    moments = Moments(parameters)
    adamw = seconds_of(lambda: adamw_step(parameters, gradients, moments, 1e-9, AdamW()))
    return Rehearsed(
        forward,
        backward,
        again,
        loss_seconds(config, load, x, rng),
        adamw * config.n_parameters / single.n_parameters,  # (37.1)
    )


def loss_seconds(config: GPT2Config, load: Load, x: Array, rng: np.random.Generator) -> float:
    """Return the seconds of the loss with its gradient, from one chunk of triples."""
    few = min(chunk_of(config), load.supervised)
    shape = tensor_shapes(config)["wte.weight"]
    wte, dwte = np.full(shape, 0.02, np.float32), np.zeros(shape, np.float32)
    rows, targets = np.arange(few) % load.rows, rng.integers(config.vocab_size, size=few)
    weights = np.full(few, 1 / few, np.float32)
    triples = rows, targets, weights
    seconds = seconds_of(lambda: cross_entropy_gradient(x, wte, *triples, dwte, accumulate=False))
    return seconds * load.supervised / few  # (37.1)
