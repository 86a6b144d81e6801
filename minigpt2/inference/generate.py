"""Generation: tokens one after the other, for many prompts at once.

The prompts form a forest: what all of them begin with is computed once.  After that
each step computes one row for each sequence, through the key/value cache (chapter
29).  A sequence ends when it has produced the stop token, or when it is as long as
the context.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from minigpt2.data.forest import common_prefix
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.sampling import GREEDY, Sampling, sample
from minigpt2.model.parameters import Parameters

GROUP_SIZE = 64  # sequences in one forest


def stream_tokens(
    parameters: Parameters,
    prompts: Sequence[list[int]],
    *,
    stop: int,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[dict[int, int], int]]:
    """Yield, step by step, the new token of each prompt that gets one, and how many continue.

    The tokens are a dictionary from the prompt's index to its token.  The stop token is left out.
    Arguments as in `generate`.
    """
    context = parameters.config.n_positions
    prefix = common_prefix(prompts) if len(prompts) > 1 else 0
    longest = min(context, max(map(len, prompts)) + max_new_tokens)
    cache = Cache(parameters, sequences=len(prompts), prefix=prefix, suffix=longest - prefix)
    h = cache.prefill(prompts)  # (B, C)
    live = list(range(len(prompts)))
    sequences = [list(prompt) for prompt in prompts]
    for step in range(1, max_new_tokens + 1):
        logits = h @ parameters["wte.weight"].T  # (B, V)
        tokens = sample(logits, sampling, rng, [sequences[i] for i in live]).tolist()
        new = {i: token for i, token in zip(live, tokens, strict=True) if token != stop}
        continuing = [b for b, i in enumerate(live) if i in new and len(sequences[i]) < context]
        continuing = continuing if step < max_new_tokens else []
        yield new, len(continuing)
        if not continuing:
            return
        for i, token in new.items():
            sequences[i].append(token)
        if len(continuing) < len(live):
            cache.keep(continuing)
            live = [live[b] for b in continuing]
        h = cache.extend(np.array([[sequences[i][-1]] for i in live]))[:, -1]  # (B, C)


def generate(
    parameters: Parameters,
    prompts: Sequence[list[int]],
    *,
    stop: int,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[list[int]]:
    """Return the ids that continue each prompt, at most max_new_tokens, without the stop token.

    A prompt is a list of ids, at least one and at most as many as the context.  `rng` draws the
    tokens; it is needed for a temperature above 0.  `progress` is called with the number of
    sequences that have just finished.
    """
    results: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])  # alike prompts share more
    for start in range(0, len(order), GROUP_SIZE):
        group = order[start : start + GROUP_SIZE]
        unfinished = len(group)
        steps = stream_tokens(
            parameters,
            [prompts[i] for i in group],
            stop=stop,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            rng=rng,
        )
        for new, continuing in steps:
            for b, token in new.items():
                results[group[b]].append(token)
            progress(unfinished - continuing)
            unfinished = continuing
        progress(unfinished)
    return results
