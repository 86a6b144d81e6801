"""Sampling: from logits to the next token.

Definition, for one row of logits ℓ
    Greedy decoding takes the likeliest token,
    t = argmaxᵥ ℓᵥ                                                 (29.1)
    and with a temperature τ > 0 the token is drawn from
    p = softmax( ℓ / τ )                                           (29.2)
    by inverting the cumulative sum: with one uniform number u in [0, 1),
    t = min { v : p₀ + … + pᵥ > u }                                (29.3)
    Token v is drawn when u falls into an interval of length pᵥ, so with
    probability pᵥ.
    The largest ℓ of a row is subtracted before the division.  That changes no p,
    and without it a small τ would make the scores infinite.

Three ways to change the distribution, in this order
    A repetition penalty ρ makes the tokens that the sequence already holds less
    likely, whatever the sign of their logits:
    ℓᵥ → ℓᵥ / ρ  where ℓᵥ > 0,  ℓᵥ · ρ  elsewhere                  (29.4)
    Top-k keeps the k largest logits of a row:
    ℓᵥ → −∞  where ℓᵥ < the k-th largest of the row                (29.5)
    Top-p keeps the fewest tokens, the likeliest, whose probabilities add up to a
    threshold θ.  Sort the tokens by falling probability, and let cᵥ be the sum of
    those before v.  Drop every token before which the sum is already θ:
    pᵥ → 0  where cᵥ ≥ θ                                           (29.6)
    with the p of (29.2); (29.3) then draws in proportion to what is left.  The
    likeliest token always stays: its c is 0.
    (29.4) is equation 5 of Keskar et al. 2019, which divides negative logits, too, and so
    makes their tokens likelier.  (29.6) is Holtzman et al. 2020, section 3.1.

Example: logits ln 5, ln 3 and ln 2, so p = (5, 3, 2) / 10 at τ = 1
    The first number of this generator is u = 0.637.  The cumulative sums are 0.5,
    0.8 and 1, and the first above u is that of token 1.  At τ = ½ the probabilities
    are (25, 9, 4) / 38, and 25/38 = 0.658 is above u: token 0.
    >>> import numpy as np
    >>> logits = np.log([[5.0, 3.0, 2.0]])
    >>> for temperature in (1.0, 0.5, 0.0):
    ...     print(sample(logits, Sampling(temperature), np.random.default_rng(0)))
    [1]
    [0]
    [0]

    Top-p with θ = 0.6 drops token 2, for c = (0, 0.5, 0.8).  A penalty of 2 for the
    tokens 0 and 1 halves a positive logit and doubles a negative one:
    >>> print(nucleus(np.array([[0.5, 0.3, 0.2]]), 0.6))
    [[0.5 0.3 0. ]]
    >>> print(penalised(np.array([[2.0, -1.0, 0.5]]), 2.0, [[0, 1]]))
    [[ 1.  -2.   0.5]]

Read it
    τ → 0 becomes greedy, τ = 1 is the model's own distribution, and a large τ
    comes close to uniform.  k = 1 is greedy at any temperature, ties aside; ρ = 1
    and θ = 1 change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigpt2.backend import Array, accumulation_dtype, array_module
from minigpt2.errors import UserError, require_above_zero, require_at_least
from minigpt2.ops.softmax import softmax

COLDEST, HOTTEST = 1e-30, 1e30  # τ: beyond, a draw is the likeliest token, or any
MOST_PENALTY = 1e6  # ρ, or 1 / ρ: logits of float32 stay finite


@dataclass(frozen=True)
class Sampling:
    """How each token is chosen.

    Raises UserError for values outside the ranges of the chapter.

    Args:
        temperature: 0 takes the likeliest token; 1 draws from the model's probabilities; lower
            values draw likely tokens more often
        top_k: draw from the k likeliest tokens only; 0 draws from all
        top_p: draw from the fewest likeliest tokens whose probabilities add up to this; 1 draws
            from all
        repetition_penalty: above 1, tokens that have occurred already become less likely
    """

    temperature: float = 0.0  # τ; 0 is greedy
    top_k: int = 0  # k; 0 keeps all
    top_p: float = 1.0  # θ
    repetition_penalty: float = 1.0  # ρ

    def __post_init__(self) -> None:
        require_at_least(0, self, "temperature", "top_k")
        require_above_zero(self, "top_p", "repetition_penalty")
        if self.top_p > 1:
            raise UserError(f"top_p must be at most 1, not {self.top_p:g}")
        if not 1 / MOST_PENALTY <= self.repetition_penalty <= MOST_PENALTY:
            text = f"must be from {1 / MOST_PENALTY:g} to {MOST_PENALTY:,.0f}"
            raise UserError(f"repetition_penalty {text}, not {self.repetition_penalty:g}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken: where τ is 0, or so near that no other is."""
        return self.temperature < COLDEST


GREEDY = Sampling()


def sample(
    logits: Array,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    sequences: Sequence[Sequence[int]] = (),
) -> Array:
    """Choose a token for each row of logits (N, V); return the tokens (N,).

    `sequences` holds the ids of each row's sequence so far, for the repetition penalty.  Raises
    ValueError for a temperature above 0 without rng.
    """
    xp = array_module(logits)
    logits = logits.astype(accumulation_dtype(logits.dtype), copy=False)  # (N, V)
    if sampling.repetition_penalty != 1:
        logits = penalised(logits, sampling.repetition_penalty, sequences)
    if sampling.is_greedy:
        return logits.argmax(-1)  # (N,)  (29.1)
    if rng is None:
        raise ValueError("a temperature draws random numbers: pass rng")
    k = sampling.top_k
    if 0 < k < logits.shape[-1]:
        smallest = xp.partition(logits, -k, axis=-1)[:, -k, None]  # (N, 1) the k-th largest
        logits = xp.where(logits < smallest, -xp.inf, logits)  # (N, V)  (29.5)
    relative = logits - logits.max(-1, keepdims=True)  # (N, V)
    p, _ = softmax(relative / min(sampling.temperature, HOTTEST))  # (N, V)  (29.2)
    if sampling.top_p < 1:
        p = nucleus(p, sampling.top_p)  # (N, V)
    u = xp.asarray(rng.random((len(p), 1)))  # (N, 1)
    cumulative = p.cumsum(-1, dtype=np.float64)  # (N, V)
    cumulative /= cumulative[:, -1:]
    return (cumulative <= u).sum(-1)  # (N,)  (29.3)


def penalised(logits: Array, penalty: float, sequences: Sequence[Sequence[int]]) -> Array:
    """Return the logits (N, V), made smaller for the tokens in each row's sequence."""
    xp = array_module(logits)
    logits = logits.copy()  # (N, V)
    for row, tokens in zip(logits, sequences, strict=True):
        v = xp.asarray(sorted(set(tokens)), np.int64)
        row[v] = xp.where(row[v] > 0, row[v] / penalty, row[v] * penalty)  # (29.4)
    return logits


def nucleus(p: Array, threshold: float) -> Array:
    """Return the probabilities (N, V), with 0 for the tokens that top-p drops."""
    xp = array_module(p)
    order = xp.argsort(-p, axis=-1, kind="stable")  # (N, V) likeliest first
    falling = xp.take_along_axis(p, order, -1)  # (N, V)
    before = falling.cumsum(-1, dtype=np.float64) - falling  # (N, V) c of the chapter
    falling = xp.where(before >= threshold, 0, falling).astype(p.dtype)  # (N, V)  (29.6)
    result = xp.empty_like(p)  # (N, V)
    xp.put_along_axis(result, order, falling, -1)
    return result
