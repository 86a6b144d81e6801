"""Completions: a group of answers is written, and the log-probability of each token recorded.

Each distinct prompt is computed once, and its keys and values are repeated for all answers to it.
On a CPU the log-probabilities are those of the draws.  On a device, whose decoder keeps its logits
to itself, they are computed in a forward pass over the finished answers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt2.alignment.log_probs import Answer, batch_of_answers, by_answer, log_probs
from minigpt2.backend import Array, array_module
from minigpt2.data.forest import common_prefix
from minigpt2.inference.generate import FormulaDecoder, Sequences, decoder_of
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.sampling import Sampling
from minigpt2.model.parameters import Parameters
from minigpt2.parallel import matmul

LEAST_ALIVE = 3 / 4  # of the rows of a group; with fewer, those alive move together
AT_ONCE = 64  # answers of one forward pass

Draw = Callable[[Array, Array, float], tuple[Array, Array]]  # alignment/rollout has it


class Completion(NamedTuple):
    """An answer that a policy wrote, with the log-probability of each token."""

    prompt: list[int]
    ids: list[int]  # end-of-text included, if it ended
    ended: bool  # else it was cut
    log_probs: list[float]  # at the temperature of the policy


class Draws:
    """The random numbers of a group: each answer has its own, so it depends on no other.

    In a decoder it takes the place of a generator.
    """

    def __init__(self, u: Array):
        self.u, self.step = u, 0  # (A, max_new_tokens)
        self.live = list(range(len(u)))  # the answers that continue

    def random(self, shape: tuple[int, int]) -> Array:
        """Return the next number of each answer that continues, (len(live), 1)."""
        self.step += 1
        return self.u[self.live, self.step - 1, None]


class Recorder(FormulaDecoder):
    """A decoder that records the log-probability of each token that it draws.

    Sequences that have ended stay in the cache as idle rows, until few others are left or an idle
    row is as long as the cache.
    """

    def __init__(self, cache: Cache, sampling: Sampling, draws: Any, draw: Draw):
        super().__init__(cache, sampling, draws)
        self.draw = draw
        self.keep = self.keep_rows
        self.live = list(range(len(cache.lengths)))  # rows of the cache that continue
        self.log_probs = np.empty(0)  # of the last tokens, one for each live row

    def first(self, h: Array, sequences: Sequences) -> list[int]:
        """Return the token after each sequence whose last row in the cache is h (A, C)."""
        logits = matmul(h, self.cache.parameters["wte.weight"].T)  # (A, V)
        u = self.rng.random((len(h), 1))[:, 0] if self.rng else np.zeros(len(h))  # (A,)
        tokens, self.log_probs = self.draw(logits, u, self.sampling.temperature)
        return tokens.tolist()

    def next(self, sequences: Sequences) -> list[int]:
        """Let the cache grow by the last token of each sequence; return the one after it."""
        if not self.cache.free:
            self.drop_idle_rows()
        ids = np.zeros((len(self.cache.lengths), 1), np.int64)  # (B, 1)
        ids[self.live, 0] = [sequence[-1] for sequence in sequences]
        h = self.cache.extend(ids)  # (B, 1, C)
        return self.first(h[self.live, -1], sequences)

    def keep_rows(self, chosen: Sequence[int]) -> None:
        """Let only the chosen sequences continue."""
        self.live = [self.live[b] for b in chosen]
        if len(self.live) < LEAST_ALIVE * len(self.cache.lengths):
            self.drop_idle_rows()

    def drop_idle_rows(self) -> None:
        """Take the rows of sequences that have ended out of the cache."""
        self.cache.keep(self.live)
        self.live = list(range(len(self.live)))


def filled_cache(
    parameters: Parameters, prompts: Sequence[list[int]], max_new_tokens: int
) -> tuple[Cache, Array]:
    """Return a cache that holds each prompt, and its last row of h (A, C).

    Each distinct prompt is computed once.
    """
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    place = {prompt: number for number, prompt in enumerate(distinct)}
    copies = [place[tuple(prompt)] for prompt in prompts]
    once = [list(prompt) for prompt in distinct]
    prefix = common_prefix(once) if len(prompts) > 1 else 0
    longest = min(parameters.config.n_positions, max(map(len, once)) + max_new_tokens)
    cache = Cache(parameters, sequences=len(once), prefix=prefix, suffix=longest - prefix)
    xp = array_module(cache.suffixes)
    h = cache.prefill(once)[xp.asarray(copies)]  # (A, C)
    cache.keep(copies)  # the keys and values of a prompt, once for each of its answers
    cache.suffixes = xp.ascontiguousarray(cache.suffixes)
    return cache, h


def write_answers(
    parameters: Parameters,
    prompts: Sequence[list[int]],
    u: Array,
    *,
    stop: int,
    temperature: float,
    draw: Draw,
    progress: Callable[[int], None],
) -> list[Completion]:
    """Return an answer to each prompt, drawn with its row of u (A, max_new_tokens).

    `progress` is called with the number of answers that have just finished.
    """
    cache, h = filled_cache(parameters, prompts, u.shape[1])
    draws: Any = Draws(u)
    sampling = Sampling(temperature)
    records = array_module(cache.suffixes) is np
    decoder: Any = (
        Recorder(cache, sampling, draws, draw)
        if records
        else decoder_of(parameters.flat, cache, sampling, draws)
    )
    ids: list[list[int]] = [[] for _ in prompts]
    recorded: list[list[float]] = [[] for _ in prompts]
    tokens = decoder.first(h, prompts)
    while draws.live:
        for i, token in zip(draws.live, tokens, strict=True):
            ids[i].append(token)
        if records:
            for i, log_prob in zip(draws.live, decoder.log_probs.tolist(), strict=True):
                recorded[i].append(log_prob)
        room = parameters.config.n_positions if draws.step < u.shape[1] else 0
        rows = [
            row
            for row, (i, token) in enumerate(zip(draws.live, tokens, strict=True))
            if token != stop and len(prompts[i]) + len(ids[i]) <= room
        ]
        progress(len(draws.live) - len(rows))
        if 0 < len(rows) < len(draws.live):
            decoder.keep(rows)
        draws.live = [draws.live[row] for row in rows]
        if rows:
            tokens = decoder.next([ids[i] for i in draws.live])
    if not records:
        recorded = computed_again(parameters, prompts, ids, temperature)
    return [
        Completion(prompt, answer, answer[-1] == stop, values)
        for prompt, answer, values in zip(prompts, ids, recorded, strict=True)
    ]


def computed_again(
    parameters: Parameters, prompts: Sequence[list[int]], ids: list[list[int]], temperature: float
) -> list[list[float]]:
    """Return the log-probability of each token of answers, by forward passes over them."""
    result: list[list[float]] = []
    for start in range(0, len(ids), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        batch = batch_of_answers(list(map(Answer, prompts[part], ids[part])))
        values = by_answer(log_probs(parameters, batch, temperature), batch)
        result += [answer.tolist() for answer in values]
    return result
