"""Generation: tokens one after the other, for many prompts at once.

The prompts form a forest: what all of them begin with is computed once.  After that
each step computes one row for each sequence, through the key/value cache (chapter
29).  A sequence ends when it has produced the stop token, or when the context has no
place for another row: its last token needs none.

A decoder computes the steps.  The one here is a few lines for any array library; a device
brings its own (device/decoding), which does the same with a fixed list of launches.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from minigpt2.backend import Array, fusible
from minigpt2.data.forest import common_prefix
from minigpt2.errors import UserError
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.sampling import GREEDY, Sampling, sample
from minigpt2.model.parameters import Parameters
from minigpt2.parallel import matmul

GROUP_SIZE = 64  # sequences in one forest
Sequences = Sequence[Sequence[int]]


class Decoder(Protocol):
    """What draws the tokens of all sequences of a cache, step by step."""

    def first(self, h: Array, sequences: Sequences) -> list[int]:
        """Return the token after each sequence whose last row in the cache is h (B, C)."""

    def next(self, sequences: Sequences) -> list[int]:
        """Let the cache grow by the last token of each sequence; return the one after it."""

    def keep(self, chosen: Sequence[int]) -> None:
        """Drop all sequences but the chosen ones."""


class FormulaDecoder:
    """A decoder by the formulas of the cache and of sampling."""

    def __init__(self, cache: Cache, sampling: Sampling, rng: np.random.Generator | None):
        self.cache, self.sampling, self.rng = cache, sampling, rng
        self.keep = cache.keep

    def first(self, h: Array, sequences: Sequences) -> list[int]:
        """Return the token after each sequence whose last row in the cache is h (B, C).

        Raises UserError if a row is not finite.
        """
        if isinstance(h, np.ndarray) and not np.isfinite(h).all():
            raise UserError("the model's hidden rows are not finite: its weights are damaged")
        logits = matmul(h, self.cache.parameters["wte.weight"].T)  # (B, V)
        return sample(logits, self.sampling, self.rng, sequences).tolist()

    def next(self, sequences: Sequences) -> list[int]:
        """Let the cache grow by the last token of each sequence; return the one after it."""
        h = self.cache.extend(np.array([[sequence[-1]] for sequence in sequences]))  # (B, 1, C)
        return self.first(h[:, -1], sequences)


@fusible
def decoder_of(
    flat: Array, cache: Cache, sampling: Sampling, rng: np.random.Generator | None
) -> Decoder:
    """Return a decoder for a cache whose model has the parameters `flat` (P,)."""
    return FormulaDecoder(cache, sampling, rng)


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
    decoder = decoder_of(parameters.flat, cache, sampling, rng)
    tokens = decoder.first(cache.prefill(prompts), prompts)
    live = list(range(len(prompts)))
    sequences = [list(prompt) for prompt in prompts]
    for step in range(1, max_new_tokens + 1):
        new = {i: token for i, token in zip(live, tokens, strict=True) if token != stop}
        continuing = [b for b, i in enumerate(live) if i in new and len(sequences[i]) < context]
        continuing = continuing if step < max_new_tokens else []
        yield new, len(continuing)
        if not continuing:
            return
        for i, token in new.items():
            sequences[i].append(token)
        if len(continuing) < len(live):
            decoder.keep(continuing)
            live = [live[b] for b in continuing]
        tokens = decoder.next([sequences[i] for i in live])


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
