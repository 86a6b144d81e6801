"""Generation: tokens one after the other, for many prompts at once.

The prompts form a forest: what all of them begin with stands there once.  After
that each step computes one row a sequence, through the key/value cache (chapter
29).  A sequence leaves when it has produced the stop token, or when it is as long
as the context.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from minigpt2.data.forest import Segment, common_prefix, lay_out
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.sampling import GREEDY, Sampling, sample
from minigpt2.model.batch import Batch
from minigpt2.model.parameters import Parameters

AT_ONCE = 64  # sequences in one forest


def forest_of(sequences: Sequence[list[int]]) -> Batch:
    """Lay sequences out in their order, with one triple each: its last row, target 0, weight 1."""
    shared = common_prefix(sequences)
    tails = [s[shared:] for s in sequences]
    children = [Segment([*tail, 0], [0.0] * len(tail) + [1.0]) for tail in tails]
    return lay_out([Segment(list(sequences[0][:shared]), [0.0] * shared, children)])


def tokens_of(
    parameters: Parameters,
    prompts: Sequence[list[int]],
    stop: int,
    max_new: int,
    how: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[dict[int, int], int]]:
    """Yield the next token of each prompt that has one, by index, and how many prompts go on."""
    context = parameters.config.n_positions
    trunk = common_prefix(prompts) if len(prompts) > 1 else 0
    room = min(context, max(map(len, prompts)) + max_new) - trunk
    cache = Cache(parameters, len(prompts), trunk, room)
    h = cache.begin(prompts, forest_of(prompts))  # (B, C)
    live = list(range(len(prompts)))
    sequences = [list(prompt) for prompt in prompts]
    for made in range(1, max_new + 1):
        logits = h @ parameters["wte.weight"].T  # (B, V)
        tokens = sample(logits, how, rng, [sequences[i] for i in live]).tolist()
        new = {i: token for i, token in zip(live, tokens, strict=True) if token != stop}
        going = [b for b, i in enumerate(live) if i in new and len(sequences[i]) < context]
        going = going if made < max_new else []
        yield new, len(going)
        if not going:
            return
        for i, token in new.items():
            sequences[i].append(token)
        if len(going) < len(live):
            cache.keep(going)
            live = [live[b] for b in going]
        h = cache.extend(np.array([[sequences[i][-1]] for i in live]))[:, -1]  # (B, C)


def generate(
    parameters: Parameters,
    prompts: Sequence[list[int]],
    stop: int,
    max_new: int,
    how: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[list[int]]:
    """Return what follows each prompt, without the stop token: at most max_new tokens.

    `progress` is called with the number of sequences that have just finished.
    """
    results: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])  # alike prompts share more
    for start in range(0, len(order), AT_ONCE):
        group = order[start : start + AT_ONCE]
        going = len(group)
        steps = tokens_of(parameters, [prompts[i] for i in group], stop, max_new, how, rng)
        for new, left in steps:
            for b, token in new.items():
                results[group[b]].append(token)
            progress(going - left)
            going = left
        progress(going)
    return results
