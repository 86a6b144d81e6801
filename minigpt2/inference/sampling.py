"""Sampling: from logits to the next token.

Definition
    Greedy decoding takes the likeliest token,
    t = argmaxᵥ ℓᵥ                                                 (31.1)
    and with a temperature τ > 0 the token is drawn from
    p = softmax( ℓ / τ )                                           (31.2)
    by inverting the cumulative sum: with one uniform number u in [0, 1),
    t = min { v : p₀ + … + pᵥ > u }                                (31.3)
    Token v is chosen when u falls into an interval of length pᵥ, so with
    probability pᵥ.
    The largest ℓ of a row is taken off before the division, which changes no p: a
    small τ would make the scores infinite.

Read it
    τ → 0 becomes greedy, τ = 1 is the model's own distribution, and a large τ
    comes close to uniform.
"""

import numpy as np

from minigpt2.backend import Array, array_module
from minigpt2.ops.softmax import softmax


def sample(logits: Array, temperature: float, rng: np.random.Generator | None) -> Array:
    """Pick a token for each row of logits (N, V); greedy when the temperature is 0."""
    xp = array_module(logits)
    if temperature == 0:
        return logits.argmax(-1)  # (N,)  (31.1)
    if rng is None:
        raise ValueError("a temperature draws random numbers: pass rng")
    relative = logits - logits.max(-1, keepdims=True)  # (N, V)
    p, _ = softmax(relative / temperature)  # (N, V)  (31.2)
    u = xp.asarray(rng.random((len(p), 1)))  # (N, 1)
    cumulative = p.cumsum(-1, dtype=np.float64)  # (N, V)
    cumulative /= cumulative[:, -1:]
    return (cumulative <= u).sum(-1)  # (N,)  (31.3)
