"""Operations of alignment: those of a step on pairs or drawn answers, and of a rollout.

Why
    Answers to one prompt share its rows, so a batch is a forest and not a row of packed sequences
    (chapter 49).  And a loss of log-probabilities reads the vocabulary more or less often.

Definition
    A row of the prompt sees (P + 1)/2 rows on average, with P rows in the prompt; one of an answer
    sees the whole prompt, and half of its answer.  With answers of a tokens each, those are
    pairs = P·(P + 1)/2 + Σ (a − 1)·(P + a/2)                      (53.1)
    with the sum over all answers.  Packed sequences of T rows, for which (49.10) holds, have as
    many if
    T = 2·pairs / N − 1                                            (53.2)
    A forward pass takes a third of (49.9) and (49.11), and 4 of 14
    parts of (49.10):
    24·L·C²·N − 18·C²·(N − M) + 4·L·C·N·(T + 1)/2 + 2·V·C·M                (53.3)
    A rollout takes as much for its answers, and so does the reference.  The reward model, which
    reads one row of each answer, and the values have no logits: 0 in place of 2·V·C·M.  A step's
    loss computes the projection once more than tuning does, to know the log-probabilities before
    their weights (chapter 35); that of a reward model, never:
    8·V·C·M  in place of (49.11), or 0                             (53.4)

Example: two answers of 3 tokens to a prompt of 4
    Rows see 1, 2, 3, 4, and in each answer 5 and 6, in all 32 pairs.  8 rows in packed sequences of
    7 have as many, 8 · (7 + 1)/2:
    >>> length_of(4, [3, 3])
    7.0
"""

from collections.abc import Sequence

from minigpt2.model.config import GPT2Config
from minigpt2.planning.alignment_memory import REFERENCE, REWARD_MODEL, TUNING, Needs
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, operations


def length_of(prompt: int, answers: Sequence[int]) -> float:
    """Return the length of packed sequences whose rows see as many as those of a prompt's answers.

    `prompt` and `answers` are in tokens.
    """
    rows = prompt + sum(answers) - len(answers)  # (52.2)
    pairs = prompt * (prompt + 1) / 2 + sum((a - 1) * (prompt + a / 2) for a in answers)  # (53.1)
    return 2 * pairs / rows - 1  # (53.2)


def forward_operations(
    config: GPT2Config, batch: MicroBatch, length: float, logits: bool = True
) -> float:
    """Return the operations of a forward pass over sequences of this length.

    Of the last block, as many rows are read as the batch has triples.
    """
    c, layers = config.n_embd, config.n_layer
    rows, read = batch
    products = 24 * layers * c * c * rows - 18 * c * c * max(0, rows - read)  # (53.3)
    pairs = 4 * layers * c * rows * (length + 1) / 2  # (53.3)
    return products + pairs + 2 * config.vocab_size * c * read * logits  # (53.3)


def step_operations(
    config: GPT2Config,
    batch: MicroBatch,
    length: float,
    options: MemoryOptions,
    needs: Needs,
) -> dict[str, float]:
    """Return the operations of a micro-batch of a step by part, as `operations` does."""
    counts = operations(config, batch, length, options.recompute, options.lora)
    models = 1 + needs.trained
    return {
        "products": counts["products"] * models,
        "attention": counts["attention"] * models,
        "projection": counts["projection"] * needs.projections / TUNING,  # (53.4)
    }


def rollout_operations(config: GPT2Config, needs: Needs, values: bool) -> float:
    """Return the operations of drawing and scoring the answers of a rollout."""
    batch = needs.size_of(needs.answers)
    length = length_of(needs.prompt, [needs.rows - needs.prompt] * needs.samples)
    policy = forward_operations(config, batch, length)
    scores = forward_operations(config, MicroBatch(batch.rows, needs.answers), length, logits=False)
    value = forward_operations(config, batch, length, logits=False)
    return (
        policy * (1 + (REFERENCE in needs.read))
        + scores * (REWARD_MODEL in needs.read)
        + value * values
    )
