"""Sampling: from logits to the next token.

Definition
    Greedy decoding takes the likeliest token,
    t = argmaxᵥ ℓᵥ                                                 (28.1)
    and with a temperature τ > 0 the token is drawn from
    p = softmax( ℓ / τ )                                           (28.2)
    by inverting the cumulative sum: with one uniform number u in [0, 1),
    t = min { v : p₀ + … + pᵥ > u }                                (28.3)
    Token v is chosen when u falls into an interval of length pᵥ, so with
    probability pᵥ.
    The largest ℓ of a row is taken off before the division, which changes no p: a
    small τ would make the scores infinite.

Three ways to change what is drawn from, in this order
    A repetition penalty ρ makes the tokens that the sequence holds already less
    likely, whatever the sign of their logits:
    ℓᵥ → ℓᵥ / ρ  where ℓᵥ > 0,  ℓᵥ · ρ  elsewhere                  (28.4)
    Top-k keeps the k largest logits of a row:
    ℓᵥ → −∞  where ℓᵥ < the k-th largest of the row                (28.5)
    Top-p keeps the likeliest tokens until they have the probability P together.
    Sort a row's tokens from the likeliest down; of those before v, Σ is the probability:
    pᵥ → 0  where Σ is at least P                                  (28.6)
    with the p of (28.2), whose rest (28.3) draws from in proportion.  The likeliest
    token always stays.
    (28.4) is equation 5 of Keskar et al. 2019 but for the case distinction, which is
    usual; (28.6) is Holtzman et al. 2020, section 3.1.

Read it
    τ → 0 becomes greedy, τ = 1 is the model's own distribution, and a large τ
    comes close to uniform.  k = 1 is greedy at any temperature, ties aside; ρ = 1
    and P = 1 change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.errors import UserError, require_above_zero, require_at_least
from minigpt2.ops.softmax import softmax


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.  Raises UserError for values outside the ranges of the chapter.

    Args:
        temperature: 0 for the likeliest token each time, 1 to draw from the model
        top_k: draw from the k likeliest tokens only; 0 from all
        top_p: draw from the likeliest tokens that have this probability together; 1 from all
        repetition_penalty: above 1 makes tokens that are there already less likely
    """

    temperature: float = 0.0  # τ; 0 is greedy
    top_k: int = 0  # k; 0 keeps all
    top_p: float = 1.0  # P
    repetition_penalty: float = 1.0  # ρ

    def __post_init__(self) -> None:
        require_at_least(0, self, "temperature", "top_k")
        require_above_zero(self, "top_p", "repetition_penalty")
        if self.top_p > 1:
            raise UserError(f"top_p must be at most 1, not {self.top_p:g}")


GREEDY = Sampling()


def sample(
    logits: Array,
    how: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    seen: Sequence[Sequence[int]] = (),
) -> Array:
    """Pick a token for each row of logits (N, V).

    `seen` has the tokens of each row's sequence, for the repetition penalty.
    """
    xp = array_module(logits)
    if how.repetition_penalty != 1:
        logits = penalised(logits, how.repetition_penalty, seen)
    if how.temperature == 0:
        return logits.argmax(-1)  # (N,)  (28.1)
    if rng is None:
        raise ValueError("a temperature draws random numbers: pass rng")
    if 0 < how.top_k < logits.shape[-1]:
        kth = xp.partition(logits, -how.top_k, axis=-1)[:, -how.top_k, None]  # (N, 1)
        logits = xp.where(logits < kth, -xp.inf, logits)  # (N, V)  (28.5)
    relative = logits - logits.max(-1, keepdims=True)  # (N, V)
    p, _ = softmax(relative / how.temperature)  # (N, V)  (28.2)
    if how.top_p < 1:
        p = nucleus(p, how.top_p)
    u = xp.asarray(rng.random((len(p), 1)))  # (N, 1)
    cumulative = p.cumsum(-1, dtype=np.float64)  # (N, V)
    cumulative /= cumulative[:, -1:]
    return (cumulative <= u).sum(-1)  # (N,)  (28.3)


def penalised(logits: Array, penalty: float, seen: Sequence[Sequence[int]]) -> Array:
    """Return the logits (N, V) with those of the seen tokens made smaller."""
    xp = array_module(logits)
    logits = logits.copy()
    for row, tokens in zip(logits, seen, strict=True):
        v = xp.asarray(sorted(set(tokens)), np.int64)
        row[v] = xp.where(row[v] > 0, row[v] / penalty, row[v] * penalty)  # (28.4)
    return logits


def nucleus(p: Array, least: float) -> Array:
    """Return the probabilities (N, V) without the tail that top-p cuts off: 0 there."""
    xp = array_module(p)
    order = xp.argsort(-p, axis=-1, kind="stable")  # (N, V) likeliest first
    falling = xp.take_along_axis(p, order, -1)  # (N, V)
    before = falling.cumsum(-1, dtype=np.float64) - falling  # (N, V) mass of the likelier ones
    kept = xp.where(before >= least, 0, falling).astype(p.dtype)  # (28.6)
    result = xp.empty_like(p)
    xp.put_along_axis(result, order, kept, -1)
    return result
