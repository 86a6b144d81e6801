"""Memory of alignment: what reward models, DPO, PPO and GRPO take besides a step of tuning.

Why
    A step on pairs, or on answers that were drawn, is one of instruction tuning with other weights
    (chapter 35).  What differs is how many models are in memory, and that answers are drawn.

Definition, in numbers of 4 bytes, for a model of P parameters
    DPO needs two numbers for each pair of its reference (chapter 38), and no second model.  A
    reward model reads one row of each answer and makes no logits: it is counted with M = 0.
    PPO and GRPO hold models that are only read: the reference and, unless a program scores the
    answers, the reward model.  A value function apart (chapter 42) is trained as the policy is.
    With f models that are read and t that are trained besides the policy,
    models = f·P + t·4·P                                           (52.1)
    A value head on the policy's rows has C + 1 parameters, too few to count.

    A prompt with K answers of A tokens, whose last ones need no row, has
    rows = prompt + K·(A − 1)                                      (52.2)
    and a pair, with answers of two lengths, those of (34.1).

    While answers are drawn, each keeps the keys and values of its rows in all L blocks:
    row = 2·L·C                                                    (52.3)
    As many answers are written at once as CACHE_BYTES of keys and values allow, of S in all, of T
    rows each.  Those are there twice for a moment, when a prompt's are repeated for its answers.
    For the last row of each answer its logits are there, and become probabilities in place:
    rollout = min( S, CACHE_BYTES / (4·row·T) ) · ( 2·row·T + V )          (52.4)
    The reference, the reward model and the values read AT_ONCE answers at once, N rows by (52.2)
    with M tokens.  No backward pass follows, so only one block counts: what (49.2) lists, with u in
    place of the slope of GELU, and its input, r and its output.  After the last one, the reference
    reads the rows of the tokens, divided by the temperature, and a chunk of B of them at once has
    logits:
    scores = max( 19·N·C + N·H, 2·M·C + B·(V + C) )                (52.5)
    These and a step follow each other, so they do not add up:
    peak = 4·P + models + max( activations + workspace, rollout, scores )  (52.6)
    with the other parts of (49.7) or (51.9).

Example: GPT-2 Large, L = 36, C = 1280: a row takes 2 · 36 · 1280 numbers, 369 KB (52.3)
    >>> from minigpt2.model.config import OFFICIAL
    >>> from minigpt2.planning.memory_and_flops import memory, peak
    >>> large = OFFICIAL["gpt2-large"]
    >>> NUMBER * cache_row(large)
    368640

    With 774,030,080 parameters (49.1) takes 12.38 GB.  PPO with a reference and a reward model, and
    a value function apart, adds 2 and 4 times 774,030,080 numbers (52.1), 18.58 GB:
    >>> ppo = Needs(read=("reference", "reward model"), trained=1)
    >>> nothing = large, MicroBatch(0, 0), MemoryOptions()
    >>> round((peak(aligned(*nothing, memory, ppo)) - peak(memory(*nothing))) / 1e9, 2)
    18.58

    64 answers of 1,024 rows, 8 to a prompt of 512: to score 64 at once takes more than to draw 2
    at once.  Both in GB:
    >>> needs = Needs(answers=64, samples=8, prompt=512, rows=1024)
    >>> [round(NUMBER * f(large, needs) / 1e9, 2) for f in (rollout_numbers, scores_numbers)]
    [1.51, 3.58]
"""

from functools import partial
from typing import NamedTuple

from minigpt2.alignment.on_policy import AT_ONCE
from minigpt2.alignment.rollout import answers_at_once
from minigpt2.model.config import GPT2Config
from minigpt2.planning.memory_and_flops import (
    NUMBER,
    MemoryOptions,
    MicroBatch,
    PartsOf,
    chunk_of,
)

REFERENCE, REWARD_MODEL = "reference", "reward model"
BEYOND = "rollout beyond step"
TUNING, ALIGNED = 6, 8  # operations of a loss for each V·C·M
TRAINED = ("weights", "copy", "gradients", "moments")  # the parts of a model that is trained


class Needs(NamedTuple):
    """What a run of alignment holds besides a step of instruction tuning."""

    read: tuple[str, ...] = ()  # whole models that are only read, by name
    trained: int = 0  # whole models that are trained besides the policy
    projections: int = TUNING  # operations of the loss for each V·C·M; 0: it reads no vocabulary
    answers: int = 0  # of a rollout
    rows: int = 0  # of an answer with its prompt, at most
    samples: int = 1  # answers to a prompt
    prompt: int = 0  # its rows

    def size_of(self, answers: int) -> MicroBatch:
        """Return the size of so many answers, those to one prompt together."""
        prompts, length = -(-answers // self.samples), self.rows - self.prompt
        rows = prompts * self.prompt + answers * (length - 1)  # (52.2)
        return MicroBatch(rows, answers * length)


def cache_row(config: GPT2Config) -> int:
    """Return the numbers of the keys and values of one row."""
    return 2 * config.n_layer * config.n_embd  # (52.3)


def rollout_numbers(config: GPT2Config, needs: Needs) -> int:
    """Return the numbers that drawing answers takes."""
    cache = cache_row(config) * needs.rows  # of an answer
    return written_at_once(config, needs) * (2 * cache + config.vocab_size)  # (52.4)


def written_at_once(config: GPT2Config, needs: Needs) -> int:
    """Return how many answers are drawn at once."""
    return min(needs.answers, answers_at_once(config, needs.rows, NUMBER)) if needs.rows else 0


def scores_numbers(config: GPT2Config, needs: Needs) -> int:
    """Return the numbers of a forward pass over the answers that are read at once."""
    rows, tokens = needs.size_of(min(needs.answers, AT_ONCE))
    c, v = config.n_embd, config.vocab_size
    block = rows * (19 * c + config.n_head)
    return max(block, 2 * tokens * c + min(tokens, chunk_of(config)) * (v + c))  # (52.5)


def aligned(
    config: GPT2Config, batch: MicroBatch, options: MemoryOptions, parts_of: PartsOf, needs: Needs
) -> dict[str, int]:
    """Return the bytes of every part at the peak, of which `parts_of` counts those of tuning."""
    batch = batch if needs.projections else MicroBatch(batch.rows, 0)
    parts = dict(parts_of(config, batch, options))
    step = parts["activations"] + parts["workspace"]
    for name in TRAINED:
        if name in parts:
            parts[name] *= 1 + needs.trained  # (52.1)
    parts |= dict.fromkeys(needs.read, NUMBER * config.n_parameters)  # (52.1)
    if needs.answers:
        most = NUMBER * max(rollout_numbers(config, needs), scores_numbers(config, needs))
        parts[BEYOND] = max(0, most - step)  # (52.6)
    return parts


def counter_of(parts_of: PartsOf, needs: Needs) -> PartsOf:
    """Return what counts the parts of a run with these needs."""
    return partial(aligned, parts_of=parts_of, needs=needs)
