"""Rollouts: the policy answers prompts, and how likely each token was is recorded.

Why
    A policy learns from what it writes itself.  So each step begins with answers: K to a
    prompt, drawn token by token through the key/value cache (chapter 30).  What is
    learnt later needs the probability with which each token was drawn.  Here it is
    known, so it is recorded.

The policy
    At a temperature τ > 0, token t follows the logits ℓ with
    ln π(t) = ℓₜ / τ − ln Σᵥ exp(ℓᵥ / τ)                           (39.1)
    as in (29.2).  τ is part of the policy: where log-probabilities are computed again, the
    logits are divided by the same τ (35.2).  At τ = 0 one token has all the probability,
    and there is nothing to learn from a sample.

    An answer ends with end-of-text, which is drawn like any other token and has a
    probability of its own.  One that is cut, since max_new_tokens or the context is
    reached, has no end-of-text, and ln π(y|x) (35.1) is the sum over what it has.

Why nothing is left out
    Top-k and top-p draw from fewer tokens, which together have the probability q < 1.
    Then a token is drawn with π(t) / q, but its gradient is that of ln π(t).  The ratio
    of the two is wrong by a factor for each token,
    π(t) / ( π(t) / q ) = q                                        (39.2)
    also before the first step, and a token outside can never be drawn, whatever it is
    worth.  A repetition penalty makes the logits depend on the sequence in a way that the
    model's gradient does not know.  So all three are refused.

Search
    (29.3) needs the sum of the probabilities up to each token.  That is one long chain of
    additions, in float64, for V numbers.  Here V is cut into blocks of W entries.  With
    eᵥ = exp((ℓᵥ − max ℓ) / τ) and one uniform number u, first the block is found, then
    the token in it:
    s_b = Σ eᵥ over block b                                        (39.3)
    b   = min { b : s₀ + … + s_b > u Σ s }                         (39.4)
    t   = min { v in b : s₀ + … + s_b₋₁ + Σ e up to v > u Σ s }    (39.5)
    which is the t of (29.3).  Only V / W + W numbers are added one after the other.

Example: logits ln 5, ln 3 and ln 2, so p = (5, 3, 2) / 10 at τ = 1
    u = 0.637 falls behind 0.5 and before 0.8: token 1, with the log-probability ln 0.3.
    At τ = ½ the probabilities are (25, 9, 4) / 38, and u falls before 0.658: token 0.
    >>> logits, u = np.log([[5.0, 3.0, 2.0]]), np.array([0.637])
    >>> for temperature in (1.0, 0.5):
    ...     token, log_prob = draw(logits.copy(), u, temperature)
    ...     print(token, np.exp(log_prob).round(3))
    [1] [0.3]
    [0] [0.658]

    Top-2 would draw token 1 with 3/8.  The ratio (39.2) is 0.3 / 0.375 = 0.8, which is
    the probability of the two tokens together.

Cost
    The prompts once, each distinct one, then a row for each token; a row's cost is that of
    chapter 30, and 4 passes over its V logits.  Keeps 2·L·C numbers a row while a group of
    answers is written, and as many answers are in a group as CACHE_BYTES allow.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minigpt2.alignment.completions import Completion, write_answers
from minigpt2.backend import Array
from minigpt2.errors import UserError
from minigpt2.inference.sampling import Sampling
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from minigpt2.parallel import map_rows

CACHE_BYTES = 1 << 30  # of the keys and values of one group of answers
BLOCK = 64  # W


def draw(logits: Array, u: Array, temperature: float) -> tuple[Array, Array]:
    """Draw a token for each row of logits (A, V) with the numbers u (A,) in [0, 1).

    Returns the tokens (A,) and their log-probabilities (A,) in float64.  The logits are used up.
    """

    def formula(logits: Array, u: Array) -> tuple[Array, Array]:
        rows, width = np.arange(len(logits)), logits.shape[1]
        e = logits  # the same memory
        e -= logits.max(-1, keepdims=True)
        if temperature != 1:
            e *= 1 / temperature
        np.exp(e, out=e)  # (A, V)
        whole = width - width % BLOCK
        s = e[:, :whole].reshape(len(e), -1, BLOCK).sum(-1)  # (A, V/W)  (39.3)
        if whole < width:
            s = np.column_stack([s, e[:, whole:].sum(-1)])  # (39.3)
        sums = s.cumsum(-1, dtype=np.float64)
        target = u * sums[:, -1]  # (A,)
        b = first_above(sums, target)  # (A,)  (39.4)
        v = b[:, None] * BLOCK + np.arange(BLOCK)  # (A, W)
        within = np.where(v < width, e[rows[:, None], np.minimum(v, width - 1)], 0)  # (A, W)
        before = np.where(b > 0, sums[rows, b - 1], 0)  # (A,)
        up_to = before[:, None] + within.cumsum(-1, dtype=np.float64)  # (A, W)
        t = b * BLOCK + first_above(up_to, target)  # (A,)  (39.5)
        return t, np.log(e[rows, t], dtype=np.float64) - np.log(sums[:, -1])  # (A,), (A,)  (39.1)

    return map_rows(formula, logits, u)


def first_above(sums: Array, target: Array) -> Array:
    """Return for each row of rising sums (A, K) the place (A,) of the first one above its target.

    Where rounding leaves none above, it is the place at which the last sum is reached.
    """
    below = np.minimum(target, np.nextafter(sums[:, -1], 0))  # (A,)
    return (sums <= below[:, None]).sum(-1)  # (A,)


def require_whole_policy(sampling: Sampling) -> None:
    """Raise UserError, in words, for a way of drawing whose ratio (39.2) would be wrong."""
    if sampling.is_greedy:
        raise UserError(
            f"temperature must be above 0, not {sampling.temperature:g}: nothing can be learnt "
            "from answers that are always the same"
        )
    changed = {
        "top_k": sampling.top_k,
        "top_p": sampling.top_p if sampling.top_p < 1 else 0,
        "repetition_penalty": sampling.repetition_penalty * (sampling.repetition_penalty != 1),
    }
    for name, value in changed.items():
        if value:
            raise UserError(
                f"{name} {value:g} is refused: answers would be drawn with other probabilities "
                "than those that are trained, so every ratio of the two would be wrong (39.2)"
            )


def rollout(
    parameters: Parameters,
    prompts: Sequence[list[int]],
    samples: int,
    *,
    stop: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    rng: np.random.Generator,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[Completion]:
    """Return `samples` answers to each prompt, those to one prompt after each other.

    A prompt is a list of ids, at least one and at most as many as the context; an answer ends
    with `stop`, or is cut.  Each answer has random numbers of its own, so it does not depend on
    the others.  `progress` is called with the number of answers that have just
    finished.  On a device the log-probabilities are computed again, by forward passes.  Raises
    UserError for a temperature of 0.
    """
    require_whole_policy(Sampling(temperature))
    wanted = [prompt for prompt in prompts for _ in range(samples)]
    u = rng.random((len(wanted), max_new_tokens))  # (A, max_new_tokens)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])  # alike prompts share more
    rows = max(map(len, wanted)) + max_new_tokens
    size = answers_at_once(parameters.config, rows, parameters.flat.dtype.itemsize)
    written: dict[int, Completion] = {}
    for start in range(0, len(order), size):
        group = order[start : start + size]
        answers = write_answers(
            parameters,
            [wanted[i] for i in group],
            u[group],
            stop=stop,
            temperature=temperature,
            draw=draw,
            progress=progress,
        )
        written.update(zip(group, answers, strict=True))
    return [written[i] for i in range(len(wanted))]


def answers_at_once(config: GPT2Config, rows: int, itemsize: int) -> int:
    """Return how many answers of so many rows are in a group, in numbers of `itemsize` bytes."""
    row_bytes = 2 * config.n_layer * config.n_embd * itemsize
    return max(1, CACHE_BYTES // (min(rows, config.n_positions) * row_bytes))
