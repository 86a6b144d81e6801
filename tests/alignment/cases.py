"""A loss of log-probabilities, and the mistakes that a person would make in its backward pass."""

import numpy as np

from minigpt2.alignment.log_probs import (
    Answer,
    batch_of_answers,
    log_probs,
    over,
    policy_gradients,
    sums_by_answer,
)
from minigpt2.model.gpt2 import forward, gpt2_backward
from minigpt2.model.gradients import gradients_of
from minigpt2.ops.cross_entropy import cross_entropy_gradient
from minigpt2.training.objective import Options
from tests.gradients import Case
from tests.model.cases import FIXED, SHAPES, makers, or_none, parameters_of, remembered
from tests.model.cases import SIZES as SIZES

END, TAU = 22, 0.7
FIRST = [
    Answer([1, 2, 3], [4, 5, END]),
    Answer([1, 2, 3], [6, END]),
    Answer([1, 2, 3], [4, 5, END]),  # an equal sample
    Answer([1, 2, 3, 7], [8, 2, 2]),  # it was cut
]
SECOND = [Answer([9], [END]), Answer([9, 1], [12, 3, 18, END])]
GROUPS = (FIRST, SECOND)
BATCHES = tuple(map(batch_of_answers, GROUPS))
TRAINED = (
    "wte.weight",
    "wpe.weight",
    "h.0.attn.c_attn.weight",
    "h.1.mlp.c_fc.weight",
    "ln_f.weight",
    "ln_f.bias",
)


def factors(batch):
    """Random numbers for each answer and each triple of a batch."""
    rng = np.random.default_rng(len(batch.rows))
    return rng.standard_normal(1 + batch.answers.max()), rng.standard_normal(len(batch.rows))


def smooth(log_p, batch):
    """A smooth loss in which each triple has a part, alone and with its answer."""
    c, d = factors(batch)
    sums = sums_by_answer(log_p, batch)
    return (c * np.exp(sums / 10)).sum() + (d * np.sin(log_p)).sum()


def smooth_weights(log_p, batch):
    """Minus its derivative."""
    c, d = factors(batch)
    of_answer = c * np.exp(sums_by_answer(log_p, batch) / 10) / 10
    return -(of_answer[batch.answers] + d * np.cos(log_p))


def given(tensors):
    """The parameters of which a few are given."""
    named = dict(zip(TRAINED, tensors, strict=True))
    return parameters_of([named.get(name, FIXED[name]) for name in SHAPES])


def loss(*tensors):
    """The smooth loss of both micro-batches."""
    parameters = given(tensors)
    return np.sum([smooth(log_probs(parameters, batch, TAU), batch) for batch in BATCHES])


def gradients(dy, tensors):
    """Its gradients, scaled by the loss scale."""
    parameters = given(tensors)
    total = gradients_of(parameters)
    for batch in BATCHES:
        options = Options(loss_scale=float(dy))
        policy_gradients(
            parameters,
            batch,
            total,
            lambda log_p, batch=batch: smooth_weights(log_p, batch),
            options,
            temperature=TAU,
        )
    return tuple(total[name] for name in TRAINED)


def last_tokens(batch):
    """Whether a triple is the last of its answer."""
    return np.append(batch.answers[1:] != batch.answers[:-1], True)


def broken(tau=TAU, back=TAU, weights=smooth_weights, change=lambda w, batch: w, written=False):
    """The backward pass with switches."""

    def backward(dy, tensors):
        parameters = given(tensors)
        total = gradients_of(parameters)
        for batch in BATCHES:
            h, places, saved = forward(parameters, batch)
            w = dy * change(weights(log_probs(parameters, batch, tau), batch), batch)
            if written:
                total.clear()
            dwte, accumulate = total.claim("wte.weight")
            triples = places, batch.targets, w
            wte, x = parameters["wte.weight"], over(h, tau)
            _, _, dx = cross_entropy_gradient(x, wte, *triples, dwte, accumulate=accumulate)
            gpt2_backward(over(dx, back), saved, total)
        return or_none(gradients(dy, tensors), [total[name] for name in TRAINED])

    return remembered(backward)


def merged_once(w, batch):
    """The weights without those of the equal sample."""
    return np.where(batch.answers == 2, 0, w) if len(batch.rows) == len(BATCHES[0].rows) else w


LOG_PROBS = Case(
    "log_probs, a smooth loss",
    loss,
    gradients,
    makers({name: SHAPES[name] for name in TRAINED}),
    {
        "the sign": broken(change=lambda w, batch: -w),
        "τ forgotten": broken(tau=1, back=1),
        "τ forgotten on the way back": broken(back=1),
        "τ twice on the way back": broken(back=TAU * TAU),
        "the end token dropped": broken(change=lambda w, b: np.where(last_tokens(b), 0, w)),
        "the first token dropped": broken(
            change=lambda w, b: np.where(np.roll(last_tokens(b), 1), 0, w)
        ),
        "weights of the nll, not of ln p": broken(
            weights=lambda log_p, batch: smooth_weights(-log_p, batch)
        ),
        "weights one token late": broken(change=lambda w, batch: np.roll(w, 1)),
        "the mean over an answer": broken(
            change=lambda w, b: w / np.bincount(b.answers)[b.answers]
        ),
        "equal samples counted once": broken(change=merged_once),
        "written instead of added": broken(written=True),
    },
)

CASES = (LOG_PROBS,)
