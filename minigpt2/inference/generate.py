"""Generation: tokens one after the other, for many prompts at once.

The prompts form a forest: what all of them begin with stands there once.  A
sequence leaves when it has produced the stop token, or when it is as long as the
context.  Every step computes the whole forest again.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minigpt2.data.forest import Segment, common_prefix, lay_out
from minigpt2.inference.sampling import sample
from minigpt2.model.gpt2 import Batch, gpt2
from minigpt2.model.parameters import Parameters

AT_ONCE = 64  # sequences in one forest


def forest_of(sequences: Sequence[list[int]]) -> Batch:
    """Lay sequences out in their order, with one triple each: its last row, target 0, weight 1."""
    shared = common_prefix(sequences)
    tails = [s[shared:] for s in sequences]
    children = [Segment([*tail, 0], [0.0] * len(tail) + [1.0]) for tail in tails]
    return lay_out([Segment(list(sequences[0][:shared]), [0.0] * shared, children)])


def generate(
    parameters: Parameters,
    prompts: Sequence[list[int]],
    stop: int,
    max_new: int,
    temperature: float = 0.0,
    rng: np.random.Generator | None = None,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[list[int]]:
    """Return what follows each prompt, without the stop token: at most max_new tokens.

    `progress` is called with the number of sequences that have just finished.
    """
    context = parameters.config.n_positions
    results: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])  # alike prompts share more
    for start in range(0, len(order), AT_ONCE):
        live = order[start : start + AT_ONCE]
        for _ in range(max_new):
            sequences = [prompts[i] + results[i] for i in live]
            batch = forest_of(sequences)
            h, _ = gpt2(parameters, batch)
            logits = h[batch.rows] @ parameters["wte.weight"].T  # (B, V)
            tokens = sample(logits, temperature, rng)
            going = []
            for i, token, sequence in zip(live, tokens.tolist(), sequences, strict=True):
                if token != stop:
                    results[i].append(token)
                    if len(sequence) < context:
                        going.append(i)
            progress(len(live) - len(going))
            live = going
            if not live:
                break
        progress(len(live))
    return results
