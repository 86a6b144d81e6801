"""Memory of alignment: what reward models, DPO, PPO and GRPO take besides a step of tuning.

Why
    A step on pairs, or on answers that were drawn, is one of instruction tuning with other weights
    (chapter 34).  What differs is how many models are in memory, and that answers are drawn.

Definition, in numbers of 4 bytes, for a model of P parameters
    DPO needs two numbers for each pair of its reference (chapter 37), and no second model.  A
    reward model reads one row of each answer and makes no logits: it is counted with M = 0.
    PPO and GRPO hold models that are only read: the reference and, unless a program scores the
    answers, the reward model.  A value function apart (chapter 41) is trained as the policy is.
    With f models that are read and t that are trained besides the policy,
    models = f·P + t·4·P                                           (51.1)
    A value head on the policy's rows has C + 1 parameters, too few to count.

    A pair is P + (C − 1) + (R − 1) rows (33.1), a prompt with K drawn answers of A tokens
    rows = prompt + K·A                                            (51.2)

    While answers are drawn, each keeps the keys and values of its rows in all L blocks:
    row = 2·L·C                                                    (51.3)
    As many answers are written at once as CACHE_BYTES of keys and values allow, of S in all, of T
    rows each.  For the last row of each, its logits are there in float32, and probabilities and
    their sums in float64:
    rollout = min( S, CACHE_BYTES / (4·row·T) ) · ( row·T + 5·V )  (51.4)
    No activations are kept then, so a rollout and a step do not add up:
    peak = 4·P + models + max( activations + workspace, rollout )  (51.5)
    with the other parts of (48.7) or (50.7).

Example: GPT-2 Large, L = 36, C = 1280: a row takes 2 · 36 · 1280 numbers, 369 KB (51.3)
    >>> from minigpt2.model.config import OFFICIAL
    >>> from minigpt2.planning.memory_and_flops import memory, peak
    >>> large = OFFICIAL["gpt2-large"]
    >>> NUMBER * cache_row(large)
    368640

    With 774,030,080 parameters (48.1) takes 12.38 GB.  PPO with a reference and a reward model, and
    a value function apart, adds 2 and 4 times 774,030,080 numbers (51.1), 18.58 GB:
    >>> ppo = Needs(read=("reference", "reward model"), trained=1)
    >>> nothing = large, MicroBatch(0, 0), MemoryOptions()
    >>> round((peak(aligned(*nothing, memory, ppo)) - peak(memory(*nothing))) / 1e9, 2)
    18.58
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from minigpt2.alignment.pair_batches import PairBatches
from minigpt2.alignment.pairs import Pair
from minigpt2.alignment.rollout import CACHE_BYTES
from minigpt2.data.batches import split
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.planning.batch_profile import BatchProfile, RunShape
from minigpt2.planning.memory_and_flops import NUMBER, MemoryOptions, MicroBatch, PartsOf

TRAINED = ("weights", "copy", "gradients", "moments")  # the parts of a model that is trained


class Needs(NamedTuple):
    """What a run of alignment holds besides a step of instruction tuning."""

    read: tuple[str, ...] = ()  # whole models that are only read, by name
    trained: int = 0  # whole models that are trained besides the policy
    projects: bool = True  # the loss reads the vocabulary
    answers: int = 0  # of a rollout
    rows: int = 0  # of an answer with its prompt, at most


def cache_row(config: GPT2Config) -> int:
    """Return the numbers of the keys and values of one row."""
    return 2 * config.n_layer * config.n_embd  # (51.3)


def rollout_numbers(config: GPT2Config, needs: Needs) -> int:
    """Return the numbers that drawing answers takes."""
    cache = cache_row(config) * needs.rows  # of an answer
    at_once = max(1, CACHE_BYTES // (NUMBER * cache)) if cache else 0
    return min(needs.answers, at_once) * (cache + 5 * config.vocab_size)  # (51.4)


def aligned(
    config: GPT2Config, batch: MicroBatch, options: MemoryOptions, parts_of: PartsOf, needs: Needs
) -> dict[str, int]:
    """Return the bytes of every part at the peak, of which `parts_of` counts those of tuning."""
    batch = batch if needs.projects else MicroBatch(batch.rows, 0)
    parts = dict(parts_of(config, batch, options))
    step = parts["activations"] + parts["workspace"]
    for name in TRAINED:
        if name in parts:
            parts[name] *= 1 + needs.trained  # (51.1)
    parts |= dict.fromkeys(needs.read, NUMBER * config.n_parameters)  # (51.1)
    if needs.answers:
        parts["rollout"] = max(0, NUMBER * rollout_numbers(config, needs) - step)  # (51.5)
    return parts


def counter_of(parts_of: PartsOf, needs: Needs) -> PartsOf:
    """Return what counts the parts of a run with these needs."""
    return partial(aligned, parts_of=parts_of, needs=needs)


def repeated(shape: RunShape, rows: int, supervised: int, length: int) -> BatchProfile:
    """Return the micro-batches of a step of items that have all the same size."""
    full, rest = divmod(shape.batch_size, shape.micro_batch)
    counts = [count for count in (shape.micro_batch, rest) if count]
    sizes = [MicroBatch(count * rows, count * supervised) for count in counts]
    return BatchProfile(sizes, 1, length, [full, 1][: len(sizes)])


def profile_of_pairs(
    shape: RunShape, read: Callable[[int], Sequence[Pair]] | None = None
) -> BatchProfile:
    """Count the rows of the micro-batches of an epoch of pairs; `read` reads those for a context.

    Without pairs, all have a prompt of half of the context, and two answers that fill it.  Raises
    UserError if no pair fits.

    >>> profile_of_pairs(RunShape(context=8, batch_size=4, micro_batch=4)).micro_batches
    [MicroBatch(rows=40, supervised=32)]
    """
    if not read:
        prompt = max(1, shape.context // 2)
        answer = [0] * max(1, shape.context - prompt)
        pair = Pair([0] * prompt, answer, answer)
        return repeated(shape, pair.rows, supervised(pair), shape.context)
    pairs, _ = split(read(shape.context), shape.validation, shape.seed)
    if not pairs:
        raise UserError(f"no pair fits the context of {shape.context:,}")
    epoch = PairBatches(
        pairs, batch_size=shape.batch_size, micro_batch=shape.micro_batch, seed=shape.seed
    )
    sizes = [
        MicroBatch(sum(pair.rows for pair in part), sum(map(supervised, part)))  # (33.1)
        for part in epoch.epoch()
    ]
    length = round(sum(pair.rows for pair in pairs) / len(pairs))
    return BatchProfile(sizes, epoch.steps, length)


def supervised(pair: Pair) -> int:
    """Return the triples of a pair: the tokens of both answers."""
    return len(pair.chosen) + len(pair.rejected)


def profile_of_answers(shape: RunShape, prompt: int, answer: int, samples: int) -> BatchProfile:
    """Count the rows of a step on prompts of a size, each with so many answers.

    >>> counted = profile_of_answers(RunShape(99, batch_size=4, micro_batch=2), 10, 5, 3)
    >>> counted.micro_batches, counted.times  # 2 · (10 + 3 · 5) rows
    ([MicroBatch(rows=50, supervised=30)], [2])
    """
    rows = prompt + samples * answer  # (51.2)
    return repeated(shape, rows, samples * answer, min(shape.context, prompt + answer))
