"""Reward model: the last row by its place, the loss of pairs, normalisation, an exact optimum."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.alignment.log_probs import Answer
from minigpt2.alignment.pair_batches import PairBatches, answers_of
from minigpt2.alignment.reward_model import (
    BradleyTerry,
    Preferences,
    accuracy_by_kind,
    batch_of_last_rows,
    bradley_terry,
    bradley_terry_gradient,
    log_sigmoid,
    normalise,
    score_answers,
    score_pairs,
    start_of_head,
)
from minigpt2.errors import UserError
from minigpt2.model.gpt2 import gpt2
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import SCORE, with_heads
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import Options
from minigpt2.training.run import take_steps
from minigpt2.training.state import new_state
from tests.alignment.exact_world import ANSWERS, REWARDS
from tests.alignment.preference_cases import CASES, CENTRE, END, LAST_ROWS, PAIRS, PARTS
from tests.alignment.preferences import assert_gradients, assert_same, every_pair
from tests.kernels.support import SHORT, device, error_of, machine, needs_device
from tests.model.cases import C, random_parameters

OWN = [case for case in CASES if case.name.startswith("reward model")]
WEIGHT = f"{SCORE}.weight"


def reward_model(dtype=np.float64, scale=1.0):
    """A reward model with random weights."""
    head = scale * np.random.default_rng(3).standard_normal((1, C)).astype(dtype)
    return with_heads(random_parameters(dtype=dtype), {WEIGHT: head})


MODEL = reward_model()


test_gradients_and_planted_bugs = assert_gradients(OWN)


def test_log_sigmoid_neither_overflows_nor_loses_small_numbers():
    d = np.array([-1000.0, -1.0, -1e-9, 0.0, 2.0, 40.0, 1000.0])
    expected = [-1000, -np.log(1 + np.e), -log(2), -log(2), -np.log1p(np.exp(-2)), -np.exp(-40), 0]
    np.testing.assert_allclose(log_sigmoid(d), expected, rtol=1e-9)
    np.testing.assert_allclose(np.exp(log_sigmoid(d)) + np.exp(log_sigmoid(-d)), 1, rtol=1e-15)


ids = st.lists(st.sampled_from([1, 2, 3, END]), min_size=1, max_size=5)


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=6))
@settings(max_examples=40)
def test_a_score_is_read_at_the_last_token_whatever_its_value_is(pairs):
    answers = [Answer(prompt, own) for prompt, own in pairs]
    batch = batch_of_last_rows(answers)
    assert batch.answers.tolist() == list(range(len(answers)))
    for row, (prompt, own) in zip(batch.rows, answers, strict=True):
        seen = [j for j in range(row + 1) if row < batch.end[j]]
        assert batch.ids[seen].tolist() == [*prompt, *own]


def test_a_score_is_the_heads_number_for_the_last_row_of_an_answer_by_itself():
    answers = [*answers_of(PAIRS), Answer([1, 2], [END, 5, END]), Answer([1, 2], [END, 5, END])]
    scores = score_answers(MODEL, answers, bias=0.5, micro_batch=3)
    assert scores.dtype == np.float64 and scores[-1] == pytest.approx(scores[-2], abs=1e-12)
    for score, (prompt, own) in zip(scores, answers, strict=True):
        h, _ = gpt2(MODEL, batch_of_last_rows([Answer(prompt, own)]))
        assert score == pytest.approx(h[-1] @ MODEL[WEIGHT][0] + 0.5, abs=1e-12)
    pairs = score_pairs(MODEL, PAIRS, 0.5, micro_batch=2)
    np.testing.assert_allclose(pairs.ravel(), scores[: 2 * len(PAIRS)], atol=1e-12)
    assert score_answers(MODEL, []).shape == (0,)


def run(parts, dtype=np.float64, centre=CENTRE, **passes):
    """The metrics and the gradients of pairs that come in these parts."""
    model, objective = reward_model(dtype), BradleyTerry(centre)
    batches = [batch_of_last_rows(answers_of(part)) for part in parts]
    options = Options(objective.normaliser(batches), **passes)
    gradients = gradients_of(model)
    results = [objective.add_gradients(model, batch, gradients, options) for batch in batches]
    gradients.complete()
    return objective.metrics(batches, results), gradients.flat


def test_pairs_in_a_forest_and_in_micro_batches_are_those_one_by_one():
    whole = run([PAIRS])
    for parts in (PARTS, [[pair] for pair in PAIRS]):
        assert_same(run(parts), whole)


def test_recomputation_and_a_loss_scale_change_nothing_and_dropout_does():
    metrics, flat = run(PARTS)
    again, same = run(PARTS, recompute=True)
    assert metrics == again
    np.testing.assert_array_equal(flat, same)
    np.testing.assert_allclose(run(PARTS, loss_scale=64.0)[1], 64 * flat, rtol=1e-12)
    dropped = run(PARTS, drop=0.5, rng=np.random.default_rng(0))
    assert dropped[0] != metrics


def test_metrics_spelled_out():
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0]])
    numbers = Preferences.of(scores)
    losses = [log(1 + np.exp(-1)), log(1 + np.exp(3)), log(2)]
    assert numbers.loss == pytest.approx(np.mean(losses))
    assert (numbers.accuracy, numbers.margin) == (pytest.approx(1 / 3), pytest.approx(-2 / 3))
    assert Preferences.of(scores, centre=0.1).loss == pytest.approx(np.mean(losses) + 2.2 / 3)


def test_accuracies_are_those_of_each_kind_and_pairs_without_one_are_left_out():
    scores = np.array([[1, 0], [0, 1], [1, 1], [3, 2.0], [1, 1], [0, 5]])
    kinds = ["cut", "cut", "", "wrong", "cut", ""]
    assert accuracy_by_kind(scores, kinds) == {"cut": pytest.approx(1 / 3), "wrong": 1.0}


def test_a_head_begins_at_zero_or_with_scores_of_size_one():
    zero = with_heads(random_parameters(), {WEIGHT: start_of_head(C)})
    scores = score_pairs(zero, PAIRS)
    assert not scores.any() and Preferences.of(scores).loss == pytest.approx(log(2))
    drawn = start_of_head(10_000, np.random.default_rng(0))
    assert drawn.shape == (1, 10_000) and drawn.dtype == start_of_head(C).dtype == np.float32
    assert drawn.std() == pytest.approx(1 / sqrt(10_001), rel=0.03)
    normal = np.random.default_rng(1).standard_normal((1, 3))
    few = start_of_head(3, np.random.default_rng(1))
    np.testing.assert_allclose(few, normal / 2, rtol=1e-6)  # √(3 + 1)


def test_normalised_scores_have_mean_zero_and_variance_one_and_keep_their_order():
    model, answers = reward_model(scale=3.0), answers_of(PAIRS)
    before = score_answers(model, answers, bias=2.0)
    bias = normalise(model[WEIGHT], 2.0, before)
    after = score_answers(model, answers, bias)
    assert abs(after.mean()) < 1e-12 and after.std() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(np.argsort(before), np.argsort(after))
    assert normalise(model[WEIGHT], bias, after) == pytest.approx(bias, abs=1e-12)


@pytest.mark.parametrize("score", [2.5, 0.1])  # the mean of three 0.1 is another number
def test_scores_that_are_all_equal_cannot_be_normalised(score):
    weight = np.ones((1, C))
    with pytest.raises(UserError, match="all answers one score"):
        normalise(weight, 0.0, np.full(3, score))
    assert (weight == 1).all()


def test_the_loss_of_exact_preferences_is_least_at_the_rewards_they_come_from():
    first, second, better = every_pair()
    scores = np.zeros(len(ANSWERS))
    for _ in range(30):
        gradient, hessian = np.zeros(len(scores)), np.zeros((len(scores), len(scores)))
        for i, j, share in ((first, second, better), (second, first, 1 - better)):
            pair = np.stack([scores[i], scores[j]], 1)
            ds = share[:, None] * bradley_terry_gradient(pair)
            np.add.at(gradient, i, ds[:, 0])
            np.add.at(gradient, j, ds[:, 1])
            p = -bradley_terry_gradient(pair)[:, 0]
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                np.add.at(hessian, (a, b), sign * share * p * (1 - p))
        scores -= np.linalg.pinv(hessian) @ gradient
    differences = scores[first] - scores[second] - (REWARDS[first] - REWARDS[second])
    assert abs(differences).max() < 1e-10


def test_centred_scores_of_a_pair_that_is_learnt_are_opposite():
    scores = np.array([[5.0, 4.0]])
    for _ in range(2000):
        scores -= bradley_terry_gradient(scores, centre=0.1)
    assert abs(scores.sum()) < 1e-9 and scores[0, 0] > 2
    assert bradley_terry(scores, 0.1)[0] < bradley_terry(scores + 1, 0.1)[0]


def test_a_reward_model_learns_its_pairs():
    model = with_heads(random_parameters(dtype=np.float32), {WEIGHT: start_of_head(C)})
    config = TrainingConfig(25, 1e-2, schedule="linear", adamw=AdamW(weight_decay=0.0))
    data = PairBatches(PAIRS, batch_size=3, micro_batch=2, lay_out=batch_of_last_rows)
    results = list(take_steps(new_state(model), data, BradleyTerry(), config))
    assert results[0].loss == pytest.approx(log(2), abs=1e-6) and results[0].supervised == 6
    assert list(results[0].metrics) == ["loss", "accuracy", "margin"]
    assert results[-1].loss < 0.1 and results[-1].metrics["accuracy"] == 1
    scores = score_pairs(model, PAIRS)
    assert Preferences.of(scores).accuracy == 1


@needs_device
@pytest.mark.parametrize("precision", ["float32", *SHORT])
def test_on_a_device_scores_and_gradients_are_those_of_the_cpu(precision):
    expected, flat = run([PAIRS])
    scale = 1024.0 if precision == "float16" else 1.0
    with device(machine()) as xp:
        state = new_state(reward_model(np.float32).on(xp), precision)
        options = Options(float(len(PAIRS)), loss_scale=scale)
        objective = BradleyTerry(CENTRE)
        batches = [batch_of_last_rows(answers_of(PAIRS))]
        results = [
            objective.add_gradients(state.compute, batch, state.gradients, options)
            for batch in batches
        ]
        state.gradients.complete()
        found = xp.asnumpy(state.gradients.flat) / scale
        scores = score_pairs(state.compute, PAIRS)
    bounds = {"float32": (1e-5, 2e-5), "float16": (2e-2, 2e-2), "bfloat16": (2e-1, 1e-1)}
    assert objective.metrics(batches, results)["loss"] == pytest.approx(
        expected["loss"], abs=bounds[precision][0]
    )
    np.testing.assert_allclose(scores.ravel(), results[0], atol=1e-6)
    assert error_of(found, flat) <= bounds[precision][1]


def test_the_last_rows_of_the_cases_are_those_of_their_pairs():
    assert [len(batch.rows) for batch in LAST_ROWS] == [4, 2]
    assert isinstance(MODEL, Parameters)
