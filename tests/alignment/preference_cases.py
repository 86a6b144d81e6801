"""The losses of pairs, and the mistakes that a person would make in their backward passes.

Each loss is tried twice: as a function of scores or of ln p, and as an objective of a whole model,
on two micro-batches of different numbers of pairs.
"""

from functools import partial

import numpy as np

from minigpt2.alignment.dpo import DPO, DPOObjective, lengths_in, log_ratios_of
from minigpt2.alignment.log_probs import batch_of_answers, log_probs, policy_gradients
from minigpt2.alignment.pair_batches import answers_of, by_pair, pairs_in, with_reference
from minigpt2.alignment.pairs import Pair
from minigpt2.alignment.reward_model import (
    BradleyTerry,
    batch_of_last_rows,
    bradley_terry,
    bradley_terry_gradient,
)
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import SCORE, head_values, with_heads
from minigpt2.training.objective import Options
from tests.alignment.cases import TRAINED, given, last_tokens
from tests.gradients import Case
from tests.model.cases import SHAPES, C, makers, or_none, remembered
from tests.model.cases import SIZES as SIZES

END, CENTRE = 22, 0.3
PAIRS = (
    Pair([1, 2, 3], [4, 5, 6, END], [4, 7, END], "long"),  # both begin with 4
    Pair([1, 2, 3], [8, END], [END], "empty"),
    Pair([9], [12, 3], [9, 9, 10, 11], "cut"),  # without an end
)
PARTS = (PAIRS[:2], PAIRS[2:])
REFERENCE = np.array([[-9.0, -7.0], [-4.0, -6.0], [-5.0, -9.0]])
REFERENCES = (REFERENCE[:2], REFERENCE[2:])
LAST_ROWS = tuple(batch_of_last_rows(answers_of(part)) for part in PARTS)
BATCHES = tuple(
    with_reference(batch_of_answers(answers_of(part)), reference)
    for part, reference in zip(PARTS, REFERENCES, strict=True)
)
Z = len(PAIRS)
LOSSES = {
    "sum": DPO(beta=0.6),
    "smoothed": DPO(beta=0.6, smoothing=0.2),
    "per token": DPO(beta=0.9, smoothing=0.1, per_token=True),
}


# Losses as functions of scores.


def pulls(scores):
    """σ(−d) and σ(d)."""
    d = scores[:, 0] - scores[:, 1]
    return 1 / (1 + np.exp(d)), 1 / (1 + np.exp(-d))


def scored_bug(gradient):
    """A backward pass with another gradient (B, 2), of scores, their σ(−d) and their sum."""
    return lambda dy, a: (dy[:, None] * np.stack(gradient(*pulls(a[0]), a[0].sum(1)), 1),)


BRADLEY_TERRY = Case(
    "reward model, loss",
    lambda scores: bradley_terry(scores, CENTRE),
    lambda dy, a: (dy[:, None] * bradley_terry_gradient(a[0], CENTRE),),
    {"scores": lambda rng: rng.standard_normal((7, 2))},
    {
        "sign of the rejected": scored_bug(lambda p, q, s: (0.6 * s - p, 0.6 * s - p)),
        "rejected forgotten": scored_bug(lambda p, q, s: (0.6 * s - p, 0.6 * s)),
        "chosen and rejected exchanged": scored_bug(lambda p, q, s: (0.6 * s + p, 0.6 * s - p)),
        "σ of the other sign": scored_bug(lambda p, q, s: (0.6 * s - q, 0.6 * s + q)),
        "σ' for σ": scored_bug(lambda p, q, s: (0.6 * s - p * q, 0.6 * s + p * q)),
        "not centred": scored_bug(lambda p, q, s: (-p, p)),
        "the factor of the square": scored_bug(lambda p, q, s: (0.3 * s - p, 0.3 * s + p)),
        "centred by the difference": scored_bug(lambda p, q, s: (0.6 * s - p, p - 0.6 * s)),
    },
)


# Losses as functions of ln p, of one batch of all pairs.

WHOLE = with_reference(batch_of_answers(answers_of(PAIRS)), REFERENCE)
LENGTHS = lengths_in(WHOLE)


def dpo_loss(dpo, log_p):
    """The loss of each pair."""
    return dpo.losses(dpo.rewards(log_ratios_of(log_p, WHOLE), LENGTHS))


def dpo_gradient(dpo, dy, a, change=lambda w: w, log_ratios=log_ratios_of):
    """dL/dln p (M,), by weights (B, 2) that `change` may spoil."""
    rewards = dpo.rewards(log_ratios(a[0], WHOLE), LENGTHS)
    weights = change(dpo.weights(rewards, LENGTHS))
    return (-(dy[:, None] * weights).ravel()[WHOLE.answers],)


def dpo_bug(dpo, **spoilt):
    """A backward pass that is spoilt."""
    return partial(dpo_gradient, dpo, **spoilt)


def without(dpo, mask):
    """A backward pass in which some triples have no weight."""
    return lambda dy, a: (np.where(mask, 0, dpo_gradient(dpo, dy, a)[0]),)


def added(log_p, batch):
    """Log-ratios to the reference with its sign exchanged."""
    return log_ratios_of(log_p + 2 * batch.columns["reference"], batch)


def dpo_case(name):
    """The case of a variant of the loss."""
    dpo = LOSSES[name]
    bugs = {
        "sign of the rejected": dpo_bug(dpo, change=abs),
        "sign of both": dpo_bug(dpo, change=lambda w: -w),
        "rejected forgotten": dpo_bug(dpo, change=lambda w: w * [1, 0]),
        "β left out": dpo_bug(dpo, change=lambda w: w / dpo.beta),
        "β twice": dpo_bug(dpo, change=lambda w: w * dpo.beta),
        "the wrong one of sum and mean": dpo_bug(dpo._replace(per_token=not dpo.per_token)),
        "mean over the whole batch": dpo_bug(dpo, change=lambda w: w / len(WHOLE.rows)),
        "end token left out": without(dpo, last_tokens(WHOLE)),
        "first token left out": without(dpo, np.roll(last_tokens(WHOLE), 1)),
        "σ of the other sign": dpo_bug(dpo, log_ratios=lambda *a: -log_ratios_of(*a)),
        "the reference added": dpo_bug(dpo, log_ratios=added),
        "the reference forgotten": dpo_bug(
            dpo, log_ratios=lambda p, b: log_ratios_of(p + b.columns["reference"], b)
        ),
        "another pair's weights": dpo_bug(dpo, change=lambda w: w[::-1]),
    }
    if dpo.smoothing:
        bugs["smoothing forgotten"] = dpo_bug(dpo._replace(smoothing=0.0))
        bugs["smoothing of both sides"] = dpo_bug(dpo._replace(smoothing=2 * dpo.smoothing))
    return Case(
        f"DPO, loss, {name}",
        partial(dpo_loss, dpo),
        partial(dpo_gradient, dpo),
        {"ln p": lambda rng: -1.5 - rng.random(len(WHOLE.rows))},
        bugs,
    )


# Objectives of a whole model.

SCORED = (*TRAINED, f"{SCORE}.weight")


def reward_model_of(tensors):
    """The reward model in which these tensors are given."""
    return with_heads(given(tensors[:-1]), {f"{SCORE}.weight": tensors[-1]})


def reward_loss(*tensors):
    """The loss of both micro-batches."""
    model = reward_model_of(tensors)
    scores = [by_pair(head_values(model, batch, SCORE)) for batch in LAST_ROWS]
    return np.sum([bradley_terry(one, CENTRE).sum() for one in scores]) / Z


def objective_gradients(objective, batches, model, names, dy, z=None, written=False):
    """Its gradients of both micro-batches; `z` is the normaliser of one, else it is the step's."""
    total = gradients_of(model)
    for batch in batches:
        if written:
            total.clear()
        options = Options(z(batch) if z else objective.normaliser(batches), float(dy))
        objective.add_gradients(model, batch, total, options)
    return tuple(total[name] for name in names)


def reward_gradients(dy, tensors, objective=None, rows=0, **options):
    """The gradients of a reward model; `rows` are added to the place of the last row."""
    batches = [batch._replace(rows=(batch.rows + rows) % len(batch.ids)) for batch in LAST_ROWS]
    where = objective or BradleyTerry(CENTRE), batches, reward_model_of(tensors), SCORED
    return objective_gradients(*where, dy, **options)


def reward_bug(**options):
    """The backward pass with these options."""
    return remembered(
        lambda dy, a: or_none(reward_gradients(dy, a), reward_gradients(dy, a, **options))
    )


REWARD_MODEL = Case(
    "reward model",
    reward_loss,
    reward_gradients,
    makers({**{name: SHAPES[name] for name in TRAINED}, SCORED[-1]: (1, C)}),
    {
        "reward one row late": reward_bug(rows=1),
        "reward one row early": reward_bug(rows=-1),
        "normaliser of the micro-batch": reward_bug(z=pairs_in),
        "normaliser counts answers": reward_bug(z=lambda batch: 2 * Z),
        "not centred": reward_bug(objective=BradleyTerry()),
        "written instead of added": reward_bug(written=True),
    },
    linear_in=("ln_f.bias",),  # it cancels in d, and (36.4) is quadratic
)


def policy_loss(dpo, *tensors):
    """DPO's loss of both micro-batches."""
    model = given(tensors)
    losses = []
    for batch in BATCHES:
        log_ratios = log_ratios_of(log_probs(model, batch), batch)
        losses.append(dpo.losses(dpo.rewards(log_ratios, lengths_in(batch))).sum())
    return np.sum(losses) / Z


class Spoilt(DPOObjective):
    """DPO whose weights (M,) are spoilt."""

    def __init__(self, dpo, change):
        super().__init__(dpo)
        self.change = change

    def add_gradients(self, parameters, batch, gradients, options):
        def weigh(log_p):
            lengths = lengths_in(batch)
            rewards = self.dpo.rewards(log_ratios_of(log_p, batch), lengths)
            w = self.dpo.weights(rewards, lengths).ravel()[batch.answers] / options.normaliser
            return self.change(w, batch)

        return policy_gradients(parameters, batch, gradients, weigh, options)


def dpo_gradients(dpo, dy, tensors, objective=None, **options):
    """The gradients of a policy."""
    where = objective or DPOObjective(dpo), BATCHES, given(tensors), TRAINED
    return objective_gradients(*where, dy, **options)


def objective_bug(dpo, change=None, **options):
    """The backward pass with spoilt weights, or with other options."""
    options |= {"objective": Spoilt(dpo, change)} if change else {}
    right = partial(dpo_gradients, dpo)
    return remembered(lambda dy, a: or_none(right(dy, a), right(dy, a, **options)))


def objective_case(name):
    """The case of a variant of DPO in a whole model."""
    dpo = LOSSES[name]
    return Case(
        f"DPO, {name}",
        partial(policy_loss, dpo),
        partial(dpo_gradients, dpo),
        makers({name: SHAPES[name] for name in TRAINED}),
        {
            "the end token dropped": objective_bug(
                dpo, lambda w, batch: np.where(last_tokens(batch), 0, w)
            ),
            "sign of the rejected": objective_bug(dpo, lambda w, batch: abs(w)),
            "weights one token late": objective_bug(dpo, lambda w, batch: np.roll(w, 1)),
            "normaliser of the micro-batch": objective_bug(dpo, z=pairs_in),
            "normaliser counts tokens": objective_bug(dpo, z=lambda batch: len(WHOLE.rows)),
            "written instead of added": objective_bug(dpo, written=True),
        },
    )


CASES = (
    BRADLEY_TERRY,
    *map(dpo_case, LOSSES),
    REWARD_MODEL,
    *map(objective_case, ("sum", "per token")),
)
