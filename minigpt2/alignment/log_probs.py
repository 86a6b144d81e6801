"""Log-probabilities: any loss of them becomes signed weights of triples.

Why
    Every loss of this part is a function of the log-probabilities of answers' tokens.  The
    cross-entropy of instruction tuning is one, too: the sum, with a minus.  So the triples
    (row, target, weight) of ops/cross_entropy do for all of them; only the weights differ, and
    they depend on the log-probabilities themselves.  The blocks run forward once.  The
    projection runs forward first, then, with the weights, forward and backward.

Definition
    An answer y to a prompt x has tokens y₁ … y_T, and its end-of-text is one of them: to stop is
    an action, with a probability.  Each token's log-probability is minus its nll (9.3), so
    ln π(y|x) = Σₜ ln π(yₜ | x, y₁ … yₜ₋₁) = −Σₙ nllₙ,  n in y     (35.1)
    With a temperature τ the policy is the softmax of the logits over τ, which is the
    projection of the hidden rows over τ:
    xₙ = hₙ / τ,  ℓₙᵥ = xₙ · wte[v]                                (35.2)

Derivation, for any loss ℒ = f(ln p₁ … ln p_M) of a batch's M triples
    Let
    wₙ = −∂f/∂ ln pₙ                                               (35.3)
    Of the logits, only those of triple n change ln pₙ = −nllₙ.  The chain rule with (9.6):
    dℓₙᵥ = (∂f/∂ ln pₙ)(∂ ln pₙ/∂ℓₙᵥ) = −wₙ · −(pₙᵥ − δᵥₜ) = wₙ (pₙᵥ − δᵥₜ)
    That is (9.7) with these weights, so (9.8) and (9.9) hold as they are.  A weight may be
    negative: then the token is made less likely.  (9.9) is the gradient of x, and by (35.2)
    dh = dx / τ                                                    (35.4)
    while dwte (9.8) has x in it already.

    What does not reduce to triples is a loss of other entries of the vocabulary: the entropy
    of a token's distribution, whose dℓᵥ is −pᵥ (ln pᵥ + entropy), or a divergence between two
    whole distributions.  Their estimates by the sampled tokens, such as −ln pₙ, do; but what
    such an estimate does in a loss is another question (37.7).

Read it
    A triple of weight 0 (a clipped token, a group without a difference) takes no backward pass
    over the vocabulary.  Samples that are equal are computed once; the gradients of their triples
    add.

Example: two answers to a prompt, 3 and 6; the first is to be likelier, the second less likely
    f = −ln p₁ + ln p₂, so w = (1, −1).  Untrained, with all logits 0, p = 1/8 for V = 8 tokens.
    One row of h, (8, 0), predicts both answers: row 3 of dwte gets
    (1/8 − 1) · 8 − 1/8 · 8 = −8, row 6 its opposite, and in all others both parts cancel:
    >>> from minigpt2.model.config import GPT2Config
    >>> from minigpt2.model.gradients import gradients_of
    >>> config = GPT2Config(vocab_size=8, n_positions=4, n_embd=2, n_layer=1, n_head=1)
    >>> parameters = Parameters(config, np.zeros(config.n_parameters))
    >>> parameters["ln_f.bias"][:] = 8, 0
    >>> batch = batch_of_answers([Answer([5], [3]), Answer([5], [6])])
    >>> gradients, w = gradients_of(parameters), np.array([1.0, -1.0])
    >>> log_p = policy_gradients(parameters, batch, gradients, lambda log_p: w, Options())
    >>> print(log_p.round(4), -np.log(8).round(4))
    [-2.0794 -2.0794] -2.0794
    >>> print(gradients["wte.weight"][:, 0].round(6) + 0)
    [ 0.  0.  0. -8.  0.  0.  8.  0.]

Cost
    2·M·V·C operations more than a step of instruction tuning with as many triples.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minigpt2.backend import Array, accumulation_dtype
from minigpt2.data.forest import Branch, Segment, build_prefix_trees, lay_out
from minigpt2.model.batch import Batch
from minigpt2.model.gpt2 import forward, gpt2_backward
from minigpt2.model.gradients import Gradients
from minigpt2.model.heads import wide_on_host
from minigpt2.model.parameters import Parameters
from minigpt2.ops.cross_entropy import cross_entropy, cross_entropy_gradient
from minigpt2.training.objective import Options

Weigh = Callable[[Array], Array]  # from ln p (M,) to the weights (35.3), (M,)
# Takes h (R, C), each triple's place in it (M,), and the gradients.  Puts the gradients of its own
# tensors there, and returns what it adds to dL/dh (R, C); both times the loss scale.
Head = Callable[[Array, Array, Gradients], Array]


class Answer(NamedTuple):
    """A prompt's tokens, and those of an answer, with end-of-text if it ended."""

    prompt: Sequence[int]
    ids: Sequence[int]


def batch_of_answers(answers: Sequence[Answer]) -> Batch:
    """Lay answers out as a forest: each prompt once, and each of its distinct answers once.

    Every token of an answer is a triple of weight 1, marked with the number of the answer; the
    triples are in the order of the answers and of their tokens.  Raises ValueError for a prompt or
    an answer without a token.
    """
    first: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}  # of equal samples
    same = [first.setdefault((tuple(a.prompt), tuple(a.ids)), k) for k, a in enumerate(answers)]
    below: dict[tuple[int, ...], list[Segment]] = {}
    for (prompt, ids), number in first.items():
        if not prompt or not ids:
            raise ValueError(f"answer {number}, or its prompt, has no token")
        n = len(ids)
        below.setdefault(prompt, []).append(Segment([*ids], [1.0] * n, [], [number] * n))
    branches = [Branch([*prompt], Segment([], [], own)) for prompt, own in below.items()]
    batch = lay_out(build_prefix_trees(branches))
    triples_of = by_answer(np.arange(len(batch.rows)), batch)
    triples = np.concatenate([triples_of[k] for k in same]) if same else np.empty(0, np.int64)
    return batch._replace(
        rows=batch.rows[triples],
        targets=batch.targets[triples],
        weights=batch.weights[triples],
        answers=np.repeat(np.arange(len(answers)), [len(answer.ids) for answer in answers]),
    )


def by_answer(values: Array, batch: Batch) -> list[Array]:
    """Return the numbers of each answer's triples, of values (M,)."""
    order, lengths = np.argsort(batch.answers, kind="stable"), np.bincount(batch.answers)
    return np.split(values[order], np.cumsum(lengths)[:-1])


def sums_by_answer(values: Array, batch: Batch) -> Array:
    """Return for each answer the sum of values (M,) over its triples: of ln p, ln π(y|x)."""
    sums = np.zeros(batch.answers.max(initial=-1) + 1, values.dtype)
    np.add.at(sums, batch.answers, values)  # (35.1)
    return sums


def with_columns(batch: Batch, **columns: Sequence[Sequence[float]]) -> Batch:
    """Return a batch with more columns, each given as the numbers of each answer's tokens.

    Raises ValueError if an answer has not as many numbers as tokens.
    """
    lengths = np.bincount(batch.answers).tolist()
    order = np.argsort(batch.answers, kind="stable")
    made = dict(batch.columns)
    for name, answers in columns.items():
        if [len(numbers) for numbers in answers] != lengths:
            raise ValueError(f"the column {name} must have a number for each token of each answer")
        made[name] = np.empty(len(order))
        made[name][order] = np.concatenate(answers) if answers else np.empty(0)
    return batch._replace(columns=made)


def log_probs(parameters: Parameters, batch: Batch, temperature: float = 1.0) -> Array:
    """Return ln p (M,) of a batch's targets, in float64 on the host; nothing else is computed."""
    h, places, _ = forward(parameters, batch, backward=False)
    x = over(h, temperature)  # (R, C)  (35.2)
    wte = parameters["wte.weight"]
    _, nll = cross_entropy(x, wte, places, batch.targets, batch.weights)
    return -wide_on_host(nll)  # (M,)  (35.1)


def policy_gradients(
    parameters: Parameters,
    batch: Batch,
    gradients: Gradients,
    weigh: Weigh,
    options: Options,
    *,
    temperature: float = 1.0,
    head: Head | None = None,
) -> Array:
    """Write or add the gradients of a loss of ln p to `gradients`; return ln p (M,), on the host.

    `weigh` is called once, with ln p (M,) in float64, and returns the weights of (35.3), (M,): the
    normaliser is in them, and the loss scale is not.  The loss of a `head` on the same rows is
    added.  Where all weights are 0, and there is no head, nothing is written.
    """
    h, places, saved = forward(
        parameters, batch, drop=options.drop, rng=options.rng, recompute=options.recompute
    )
    x, wte = over(h, temperature), parameters["wte.weight"]  # (35.2)
    triples = places, batch.targets
    _, nll = cross_entropy(x, wte, *triples, batch.weights)
    log_p = -wide_on_host(nll)  # (M,)  (35.1)
    w = options.loss_scale * weigh(log_p)  # (M,)  (35.3)
    if head is None and not w.any():
        return log_p
    dwte, accumulate = gradients.claim("wte.weight")
    _, _, dx = cross_entropy_gradient(x, wte, *triples, w, dwte, accumulate=accumulate)
    dh = over(dx, temperature)  # (R, C)  (35.4)
    if head is not None:
        dh += head(h, places, gradients)
    gpt2_backward(dh, saved, gradients)
    return log_p


def over(rows: Array, temperature: float) -> Array:
    """Return rows (R, C) over a temperature; at 1 the rows themselves.

    Raises ValueError for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError("the temperature must be above 0")
    if temperature == 1:
        return rows
    scaled = rows.astype(accumulation_dtype(rows.dtype), copy=False) * (1 / temperature)  # (R, C)
    return scaled.astype(rows.dtype, copy=False)  # (R, C)
