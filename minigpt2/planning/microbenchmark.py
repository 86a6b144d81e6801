"""Microbenchmark: the time of a step on this machine, estimated from one block.

A step of GPT-2 Large takes minutes on a CPU, and its blocks are all alike.  So one block is timed
forward and backward on N′ of the N rows of a micro-batch, the loss on M′ of its M triples, and
AdamW on P′ of the P parameters.  From the seconds t of each,
t_step = micro-batches · ( L·(t_forward + t_backward)·N/N′ + t_loss·M/M′ ) + t_adamw·P/P′   (50.1)
where t_backward includes the recomputation, if there is any.

PPO and GRPO draw answers first, S of them.  As many as keys and values leave room for, B, are
written at once, a token of each at a time: a row of each in all blocks, timed on one block with the
keys and values of half-written answers, and the logits, from which a token is drawn.  So for A
tokens each
t_draw = ⌈S/B⌉·A·( L·t_row + t_token )                             (50.2)
Before that the policy reads the prompts, and behind it models read the answers, R rows in forward
passes, and one of them makes the S·A log-probabilities, a third of what a loss computes:
t_read = L·t_forward·R/N + t_loss·(S·A/M)/3                        (50.3)

Example: L = 12 blocks, 2 micro-batches; a block takes 0.2 s forward and 0.4 s backward
    The loss of a micro-batch takes 0.6 s and AdamW 0.3 s, all already scaled to N, M and P:
    2 · (12 · (0.2 + 0.4) + 0.6) + 0.3 = 15.9 s.  With recomputation, here 0.1 s a block, it is
    2 · (12 · (0.2 + 0.5) + 0.6) + 0.3 = 18.3 s.
    >>> times = StepTimes(0.2, 0.4, backward_with_recomputation=0.5, loss=0.6, adamw=0.3)
    >>> for recompute in (False, True):
    ...     print(round(times.step(layers=12, micro_batches=2, recompute=recompute), 3))
    15.9
    18.3

    20 answers of 30 tokens, 8 at once: three groups.  A row of 8 answers takes 0.01 s in a block
    and a token 0.03 s: 3 · 30 · (12 · 0.01 + 0.03) = 13.5 s.
    >>> round(TokenTimes(row=0.01, token=0.03).draw(layers=12, groups=3, tokens=30), 3)
    13.5
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.rollout import draw
from minigpt2.backend import Array
from minigpt2.inference.kv_cache import Cache
from minigpt2.memory import keep_freed_memory
from minigpt2.model.adapters import LoRA, with_adapters
from minigpt2.model.block import block, block_backward
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import tensor_shapes
from minigpt2.ops.adamw import AdamW, Update, adamw_flat
from minigpt2.ops.cross_entropy import cross_entropy_gradient
from minigpt2.parallel import matmul
from minigpt2.planning.memory_and_flops import (
    MemoryOptions,
    MicroBatch,
    chunk_of,
    memory,
    peak,
    trained_numbers,
)
from minigpt2.training.state import new_state

MOST_ROWS = 8192  # that a block is timed on
TIMES = 2  # runs that count, after one that does not


class StepTimes(NamedTuple):
    """Seconds of the parts of a step."""

    forward: float  # of one block
    backward: float
    backward_with_recomputation: float
    loss: float  # of a micro-batch
    adamw: float

    def step(self, *, layers: int, micro_batches: float, recompute: bool) -> float:
        """Return the seconds of an optimiser step."""
        backward = self.backward_with_recomputation if recompute else self.backward
        blocks = layers * (self.forward + backward)
        return micro_batches * (blocks + self.loss) + self.adamw  # (50.1)

    def read(self, *, layers: int, rows: float, triples: float) -> float:
        """Return the seconds of forward passes: over so many rows, times those of a micro-batch.

        Log-probabilities are made for so many triples, times those of a micro-batch.
        """
        return layers * self.forward * rows + self.loss * triples / 3  # (50.3)


class TokenTimes(NamedTuple):
    """Seconds of the parts of a token of some answers that are written at once."""

    row: float  # in one block
    token: float  # its logits, and drawing it

    def draw(self, *, layers: int, groups: int, tokens: int) -> float:
        """Return the seconds to draw so many tokens of so many groups of answers."""
        return groups * tokens * (layers * self.row + self.token)  # (50.2)


def seconds_of(action: Callable[[], Any]) -> float:
    """Return the median seconds of TIMES runs of an action, after one to warm up."""
    times = []
    for _ in range(1 + TIMES):
        started = perf_counter()
        action()
        times.append(perf_counter() - started)
    return median(times[1:])


def rows_to_time(batch: MicroBatch, length: int) -> int:
    """Return N′: all rows of a micro-batch, or as many whole sequences as MOST_ROWS are."""
    return min(batch.rows, max(1, MOST_ROWS // length) * length)


def bytes_to_time(
    config: GPT2Config, batch: MicroBatch, length: int, lora: LoRA | None = None
) -> int:
    """Return the memory that `time_step` takes, in bytes."""
    rows = rows_to_time(batch, length)
    timed = MicroBatch(rows, min(batch.supervised, rows))
    return peak(memory(replace(config, n_layer=1), timed, MemoryOptions(lora=lora)))


def time_step(
    config: GPT2Config,
    batch: MicroBatch,
    length: int,
    rng: np.random.Generator,
    lora: LoRA | None = None,
) -> StepTimes:
    """Time the parts of a step whose micro-batches are packed sequences of this length."""
    keep_freed_memory()
    single = replace(config, n_layer=1, vocab_size=1)
    parameters = initialise(single, rng)
    state = new_state(with_adapters(parameters, lora, rng) if lora else parameters)
    few = rows_to_time(batch, length)
    row, share = np.arange(few), batch.rows / few
    end = np.minimum((row // length + 1) * length, few)
    x = rng.standard_normal((few, config.n_embd), np.float32)
    scale = state.parameters.lora_scale
    sizes: dict[str, Any] = {"n_head": config.n_head, "lora_scale": scale}
    run_block = partial(block, x, end, state.parameters.block(0), **sizes)
    saved, checkpointed = (run_block(recompute=recompute)[1] for recompute in (False, True))

    def backward(saved: Any) -> None:
        state.gradients.clear()
        block_backward(x, saved, state.gradients.block(0))

    update = Update(1, learning_rate=1e-9, n_decayed=state.parameters.n_decayed, constants=AdamW())
    theta, g = state.parameters.trainable, state.gradients.flat
    adamw = seconds_of(lambda: adamw_flat(theta, g, state.m, state.v, update))
    return StepTimes(
        forward=share * seconds_of(run_block),  # (50.1)
        backward=share * seconds_of(lambda: backward(saved)),
        backward_with_recomputation=share * seconds_of(lambda: backward(checkpointed)),
        loss=loss_seconds(config, batch, x, rng, trains=not lora),
        adamw=adamw * trained_numbers(config, lora) / trained_numbers(single, lora),  # (50.1)
    )


def loss_seconds(
    config: GPT2Config,
    batch: MicroBatch,
    x: Array,
    rng: np.random.Generator,
    trains: bool = True,
) -> float:
    """Return the seconds of the loss with its gradient, timed on one chunk of triples.

    `trains` says whether the table has a gradient.
    """
    few = min(chunk_of(config), batch.supervised)
    wte = table_of(config)
    dwte = np.zeros_like(wte) if trains else None
    rows, targets = np.arange(few) % len(x), rng.integers(config.vocab_size, size=few)
    weights = np.full(few, 1 / few, np.float32)
    seconds = seconds_of(
        lambda: cross_entropy_gradient(x, wte, rows, targets, weights, dwte, accumulate=False)
    )
    return seconds * batch.supervised / few  # (50.1)


def table_of(config: GPT2Config) -> Array:
    """Return a table of tokens (V, C) to time with."""
    return np.full(tensor_shapes(config)["wte.weight"], 0.02, np.float32)


def time_token(config: GPT2Config, answers: int, rows: int, rng: np.random.Generator) -> TokenTimes:
    """Time a token of each of some answers, whose caches hold so many rows."""
    keep_freed_memory()
    single = initialise(replace(config, n_layer=1, vocab_size=1), rng)
    cache = Cache(single, sequences=answers, prefix=0, suffix=rows + 1)
    ids, u = np.zeros((answers, 1), np.int64), rng.random(answers)

    def extend() -> Array:
        cache.lengths[:] = rows
        return cache.extend(ids)[:, -1]  # (A, C)

    h, wte = extend(), table_of(config)
    return TokenTimes(
        row=seconds_of(extend), token=seconds_of(lambda: draw(matmul(h, wte.T), u, 1.0))
    )
