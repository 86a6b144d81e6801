"""DPO: signed weights, the stored reference, and exact preferences that give their rewards back."""

from math import log

import numpy as np
import pytest

from minigpt2.alignment.dpo import DPO, DPOObjective, lengths_in, log_ratios_of, pair_log_probs
from minigpt2.alignment.log_probs import batch_of_answers, by_answer, log_probs, sums_by_answer
from minigpt2.alignment.pair_batches import PairBatches, answers_of, by_pair, with_reference
from minigpt2.alignment.pairs import Pair
from minigpt2.model.gradients import gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import Options
from minigpt2.training.run import take_steps
from minigpt2.training.state import new_state
from tests.alignment.exact_world import (
    ANSWERS,
    CONFIG,
    LENGTHS,
    OF,
    PROMPT,
    REWARDS,
    Model,
    Table,
    sums,
)
from tests.alignment.preference_cases import (
    BATCHES,
    CASES,
    LOSSES,
    PAIRS,
    PARTS,
    REFERENCE,
    WHOLE,
)
from tests.alignment.preferences import assert_gradients, assert_same, every_pair
from tests.kernels.support import SHORT, device, error_of, machine, needs_device
from tests.model.cases import random_parameters

OWN = [case for case in CASES if case.name.startswith("DPO")]

test_gradients_and_planted_bugs = assert_gradients(OWN)


def run(parts, references, dpo, dtype=np.float64, **passes):
    """The metrics and the gradients of pairs that come in these parts."""
    parameters, objective = random_parameters(dtype=dtype), DPOObjective(dpo)
    batches = [
        with_reference(batch_of_answers(answers_of(part)), reference)
        for part, reference in zip(parts, references, strict=True)
    ]
    options = Options(objective.normaliser(batches), **passes)
    gradients = gradients_of(parameters)
    results = [objective.add_gradients(parameters, b, gradients, options) for b in batches]
    gradients.complete()
    return objective.metrics(batches, results), gradients.flat


@pytest.mark.parametrize("name", LOSSES)
def test_pairs_in_a_forest_and_in_micro_batches_are_those_one_by_one(name):
    whole = run([PAIRS], [REFERENCE], LOSSES[name])
    assert_same(run(PARTS, (REFERENCE[:2], REFERENCE[2:]), LOSSES[name]), whole)
    alone = [[pair] for pair in PAIRS], [REFERENCE[[k]] for k in range(len(PAIRS))]
    assert_same(run(*alone, LOSSES[name]), whole)


def test_recomputation_and_a_loss_scale_change_nothing():
    metrics, flat = run([PAIRS], [REFERENCE], DPO())
    again, same = run([PAIRS], [REFERENCE], DPO(), recompute=True)
    assert metrics == again
    np.testing.assert_array_equal(flat, same)
    scaled = run([PAIRS], [REFERENCE], DPO(), loss_scale=64.0)[1]
    np.testing.assert_allclose(scaled, 64 * flat, rtol=1e-12)


def test_the_stored_reference_is_a_second_model_that_runs_beside():
    """The loss of logits of both models, pair by pair, without anything of the chapter."""
    policy, reference = random_parameters(0), random_parameters(1)
    stored = pair_log_probs(reference, PAIRS, micro_batch=2)
    found, _ = run([PAIRS], [stored], DPO(0.3))
    losses, margins = [], []
    for pair in PAIRS:
        beside = []
        for answer in answers_of([pair]):
            batch = batch_of_answers([answer])
            both = [log_probs(model, batch).sum() for model in (policy, reference)]
            beside.append(both[0] - both[1])
        h = 0.3 * (beside[0] - beside[1])
        margins.append(h)
        losses.append(np.log1p(np.exp(-h)))
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-12)
    assert found["margin"] == pytest.approx(np.mean(margins), abs=1e-12)


def test_with_its_own_weights_as_the_reference_the_loss_is_ln_2_and_no_pair_is_right():
    parameters = random_parameters()
    for name, dpo in LOSSES.items():
        found, flat = run([PAIRS], [pair_log_probs(parameters, PAIRS, 1)], dpo)
        assert found["loss"] == pytest.approx(log(2), abs=1e-12), name
        assert abs(found["margin"]) < 1e-12 and flat.any()


def test_metrics_spelled_out():
    log_ratios, lengths = np.array([[2.0, -1.0], [-4.0, 2.0]]), np.array([[2, 1], [4, 2]])
    numbers = DPO(beta=0.5).numbers(log_ratios, lengths)
    assert list(numbers) == [
        *("loss", "accuracy", "margin", "chosen_reward", "rejected_reward"),
        *("chosen_log_ratio", "rejected_log_ratio"),
    ]
    assert numbers["loss"] == pytest.approx((np.log1p(np.exp(-1.5)) + np.log1p(np.exp(3))) / 2)
    assert (numbers["accuracy"], numbers["margin"]) == (0.5, -0.75)
    assert (numbers["chosen_reward"], numbers["rejected_reward"]) == (-0.5, 0.25)
    assert (numbers["chosen_log_ratio"], numbers["rejected_log_ratio"]) == (-1.0, 0.5)
    per_token = DPO(beta=0.5, per_token=True).numbers(log_ratios, lengths)
    assert (per_token["chosen_reward"], per_token["rejected_reward"]) == (0.0, 0.0)
    assert per_token["chosen_log_ratio"] == -1.0  # of whole answers
    assert DPO().numbers(np.zeros((1, 2)), np.ones((1, 2)))["accuracy"] == 0


def test_what_both_answers_begin_with_has_weights_that_add_up_to_nothing():
    pair = Pair([1, 2], [3, 4, 5, 9], [3, 4, 9])
    batch = with_reference(batch_of_answers(answers_of([pair])), np.array([[-3.0, -2.0]]))
    log_p = np.linspace(-1, -2, len(batch.rows))
    for dpo in (DPO(0.7), DPO(0.7, per_token=True)):
        lengths = lengths_in(batch)
        rewards = dpo.rewards(log_ratios_of(log_p, batch), lengths)
        w = dpo.weights(rewards, lengths).ravel()[batch.answers]
        chosen, rejected = by_answer(w, batch)
        shared = chosen[:2] + rejected[:2]
        g = -(1 / (1 + np.exp(rewards[0, 0] - rewards[0, 1])))
        expected = 0 if not dpo.per_token else 0.7 * -g * (1 / 4 - 1 / 3)
        np.testing.assert_allclose(shared, expected, atol=0 if not dpo.per_token else 1e-15)


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_a_smoothed_loss_is_least_where_its_share_of_wrong_pairs_is(smoothing):
    dpo, h = DPO(beta=1.0, smoothing=smoothing), log((1 - smoothing) / smoothing)
    lengths = np.ones((1, 2), int)
    least = dpo.losses(np.array([[h, 0.0]]))
    assert abs(dpo.weights(np.array([[h, 0.0]]), lengths)).max() < 1e-15
    for other in (h - 0.1, h + 0.1):
        assert dpo.losses(np.array([[other, 0.0]])) > least


# The exact world: preferences by Bradley and Terry between all 15 answers.

BETA = 0.4
FIRST, SECOND, BETTER = every_pair()


def recover(world, reference, better, steps=40):
    """The implicit rewards (15,) of the policy that DPO's loss of all pairs is least for.

    `better` are the shares of pairs in which the first answer wins.  Each step is Newton's in
    ln π, taken along the gradients of ln π of the world's policy.
    """
    dpo, n = DPO(BETA, smoothing=1 - better), len(ANSWERS)
    lengths = np.stack([LENGTHS[FIRST], LENGTHS[SECOND]], 1)
    for _ in range(steps):
        log_pi = sums(world.log_p())
        log_ratios = log_pi - reference
        rewards = dpo.rewards(np.stack([log_ratios[FIRST], log_ratios[SECOND]], 1), lengths)
        weights = dpo.weights(rewards, lengths)
        slope, curve = np.zeros(n), np.zeros((n, n))
        p = 1 / (1 + np.exp(rewards[:, 1] - rewards[:, 0]))
        for a, b, w in ((FIRST, SECOND, weights[:, 0]), (SECOND, FIRST, weights[:, 1])):
            np.add.at(slope, a, -w)
            np.add.at(curve, (a, a), BETA**2 * p * (1 - p))
            np.add.at(curve, (a, b), -(BETA**2) * p * (1 - p))
        move = -np.linalg.pinv(curve) @ slope
        move -= np.exp(log_pi) @ move  # probabilities still add up to 1
        move *= min(1, 1 / abs(move).max())
        jacobian = np.stack([-world.gradient((a == OF).astype(float)) for a in range(n)])
        world.start = world.start + np.linalg.lstsq(jacobian, move, rcond=1e-10)[0]
        if abs(move).max() < 1e-10:
            break
    return BETA * (sums(world.log_p()) - reference)


@pytest.mark.parametrize("kind", [Table, Model])
def test_exact_preferences_give_the_differences_of_rewards_back(kind):
    """There the gradient of the objective vanishes, and elsewhere it does not."""
    world, reference = kind(seed=0), sums(Table(seed=2).log_p())
    before = gradient_of(world, reference) if kind is Model else None
    implied = recover(world, reference, BETTER)
    differences = implied[FIRST] - implied[SECOND] - (REWARDS[FIRST] - REWARDS[SECOND])
    assert abs(differences).max() < 1e-6
    if kind is Model:
        assert abs(gradient_of(world, reference)).max() < 1e-9 < 1e-4 < abs(before).max()


def gradient_of(world, reference):
    """The gradient of the objective on all 105 pairs, whose smoothing is how often they lose."""
    pairs = [Pair(PROMPT, ANSWERS[i], ANSWERS[j]) for i, j in zip(FIRST, SECOND, strict=True)]
    stored = np.stack([reference[FIRST], reference[SECOND]], 1)
    batch = with_reference(batch_of_answers(answers_of(pairs)), stored)
    parameters, objective = (
        Parameters(CONFIG, world.start),
        DPOObjective(DPO(BETA, smoothing=1 - BETTER)),
    )
    gradients = gradients_of(parameters)
    objective.add_gradients(parameters, batch, gradients, Options(float(len(pairs))))
    return gradients.flat


def test_drawn_preferences_give_them_back_within_three_standard_errors():
    draws = 10_000
    rng = np.random.default_rng(5)
    counts = rng.multinomial(draws, np.full(len(FIRST), 1 / len(FIRST)))
    wins = rng.binomial(counts, BETTER)
    information = np.zeros((len(ANSWERS), len(ANSWERS)))
    for i, j, p, n in zip(FIRST, SECOND, BETTER, counts, strict=True):
        information[np.ix_([i, j], [i, j])] += n * p * (1 - p) * np.array([[1, -1], [-1, 1]])
    covariance = np.linalg.pinv(information)
    reference = sums(Table(seed=2).log_p())
    implied = recover(Table(seed=0), reference, wins / counts)
    off = implied[FIRST] - implied[SECOND] - (REWARDS[FIRST] - REWARDS[SECOND])
    variances = np.diag(covariance)
    errors = np.sqrt(variances[FIRST] + variances[SECOND] - 2 * covariance[FIRST, SECOND])
    assert abs(off / errors).max() < 3 and 0.5 < np.sqrt(np.mean((off / errors) ** 2)) < 1.5


# A run.


def test_a_run_prefers_what_was_chosen_and_its_first_loss_is_ln_2():
    parameters = random_parameters(dtype=np.float32)
    reference = pair_log_probs(parameters, PAIRS)
    config = TrainingConfig(30, 3e-3, schedule="linear", adamw=AdamW(weight_decay=0.0))
    data = PairBatches(PAIRS, batch_size=3, micro_batch=2, reference=reference)
    results = list(take_steps(new_state(parameters), data, DPOObjective(DPO(0.3)), config))
    assert results[0].loss == pytest.approx(log(2), abs=1e-5)
    assert results[0].supervised == sum(len(answer.ids) for answer in answers_of(PAIRS))
    last = results[-1].metrics
    assert last["accuracy"] == 1 and last["margin"] > 1 and last["loss"] < 0.4
    assert last["margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"])
    after = pair_log_probs(parameters, PAIRS) - reference
    assert (after[:, 0] > after[:, 1]).all()


def test_a_batch_of_pairs_knows_the_lengths_and_the_sums_of_its_reference():
    assert lengths_in(WHOLE).tolist() == [[4, 3], [2, 1], [2, 4]]
    sums_of = [by_pair(sums_by_answer(batch.columns["reference"], batch)) for batch in BATCHES]
    np.testing.assert_array_equal(np.concatenate(sums_of), REFERENCE)


@needs_device
@pytest.mark.parametrize("precision", ["float32", *SHORT])
def test_on_a_device_loss_and_gradients_are_those_of_the_cpu(precision):
    expected, flat = run([PAIRS], [REFERENCE], DPO(0.3))
    scale = 1024.0 if precision == "float16" else 1.0
    with device(machine()) as xp:
        state = new_state(random_parameters(dtype=np.float32).on(xp), precision)
        objective = DPOObjective(DPO(0.3))
        options = Options(float(len(PAIRS)), loss_scale=scale)
        result = objective.add_gradients(state.compute, WHOLE, state.gradients, options)
        state.gradients.complete()
        found = xp.asnumpy(state.gradients.flat) / scale
    bounds = {"float32": (1e-5, 2e-5), "float16": (2e-2, 2e-2), "bfloat16": (2e-1, 1e-1)}
    loss = objective.metrics([WHOLE], [result])["loss"]
    assert loss == pytest.approx(expected["loss"], abs=bounds[precision][0])
    assert error_of(found, flat) <= bounds[precision][1]
