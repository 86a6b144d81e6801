"""GRPO: its gradient, groups without a difference, what stops a run, and the optimum."""

import numpy as np
import pytest

from minigpt2.alignment import grpo
from minigpt2.alignment.advantages import group_advantages
from minigpt2.alignment.grpo import (
    PATIENCE,
    GroupData,
    GroupObjective,
    GroupOptions,
    advantages_of_groups,
)
from minigpt2.alignment.log_probs import policy_gradients
from minigpt2.alignment.policy_gradient import NORMALISERS
from minigpt2.errors import NothingToLearn, OverBound, UserError
from minigpt2.model.gradients import gradients_of
from minigpt2.training.objective import Options
from tests.alignment.exact_world import ANSWERS, ENDED, LAST, LENGTHS, MODEL, TOKENS, sums
from tests.alignment.loops import (
    LOG_REFERENCE,
    fresh_state,
    judged,
    log_policy,
    phases,
    score,
    start,
    steps_of,
)

PROMPTS = [[1], [0, 1], [1, 1], [0], [1, 0]]


def data_of(state, *, score=score, options=None, reference=None, notes=None, **others):
    """The steps of GRPO in the exact world."""
    options = GroupOptions(**(options or {}))
    made = phases(state, **others)
    return GroupData(made, score, str, options, reference=reference, notes=notes)


def run(steps, *, dtype=np.float64, rate=0.01, seed=0, **options):
    """The state after so many steps, and their results."""
    state = fresh_state(dtype, seed)
    data = data_of(state, **options)
    return state, steps_of(state, data, GroupObjective(data), steps, learning_rate=rate)


def gradient_of(data, batches):
    """The gradient of a step."""
    objective, gradients = GroupObjective(data), gradients_of(start())
    gradients.clear()
    for batch in batches:
        options = Options(normaliser=objective.normaliser(batches))
        objective.add_gradients(start(), batch, gradients, options)
    gradients.complete()
    return gradients.flat


# Advantages.


def test_groups_without_a_difference_have_no_advantage():
    rewards = np.array([[0.1] * 3, [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    for baseline in ("mean", "leave-one-out"):
        for divide in (False, True):
            advantages = advantages_of_groups(rewards, baseline, divide)
            assert not advantages[[0, 2]].any() and advantages[1].all()
            np.testing.assert_allclose(advantages.sum(1), 0, atol=1e-12)


# The gradient of a step.


@pytest.mark.parametrize("shares", NORMALISERS)
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_gradient_is_that_of_the_drawn_answers(shares, beta):
    state = fresh_state(seed=3)
    reference = fresh_state().parameters.like(0.9 * start().flat)
    data = data_of(state, options={"shares": shares, "beta": beta}, reference=reference)
    batches = data.at(0, 0).batches
    answers = [ANSWERS.index(tuple(a.ids)) for a in data.phases.answers(0)]
    ratio = LOG_REFERENCE - sums(MODEL.log_p(reference.flat))
    rewards = np.array([score_of(a) - beta * ratio[a] for a in answers])
    advantages = rewards - rewards.mean()
    lengths = LENGTHS[answers]
    w = np.zeros(len(TOKENS))
    for a, advantage in zip(answers, advantages, strict=True):
        share = {
            "tokens": 1 / lengths.sum(),
            "constant": 1 / (3 * len(answers)),
            "answer": 1 / (LENGTHS[a] * len(answers)),
            "sample": 1 / len(answers),
        }[shares]
        w[LAST[a] + 1 - LENGTHS[a] : LAST[a] + 1] += advantage * share
    np.testing.assert_allclose(gradient_of(data, batches), MODEL.gradient(w), atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"baseline": "leave-one-out"}, {"divide_by_sigma": True}, {"penalty": 0.7}],
    ids=lambda options: next(iter(options)),
)
def test_options_and_the_temperature_reach_the_gradient_and_the_loss(options):
    data = data_of(fresh_state(seed=4), options=options, temperature=0.6)
    batches = data.at(0, 0).batches
    answers = [ANSWERS.index(tuple(a.ids)) for a in data.phases.answers(0)]
    scores = np.array([score_of(a) - options.get("penalty", 0) * (not ENDED[a]) for a in answers])
    compared = {name: value for name, value in options.items() if name != "penalty"}
    (advantages,) = group_advantages(scores[None], **compared)
    w = np.zeros(len(TOKENS))
    for a, advantage in zip(answers, advantages, strict=True):
        w[LAST[a] + 1 - LENGTHS[a] : LAST[a] + 1] += advantage / LENGTHS[answers].sum()
    expected = gradients_of(start())
    policy_gradients(
        start(),
        MODEL.batch,
        expected,
        lambda log_p: w,
        Options(),
        temperature=data.phases.temperature,
    )
    np.testing.assert_allclose(gradient_of(data, batches), expected.flat, atol=1e-12)
    old = [batch.columns["old"] for batch in batches]
    loss = GroupObjective(data).metrics(batches, old)["loss"]
    assert loss == pytest.approx(-w.sum(), abs=1e-12) and abs(loss) > 1e-3


def score_of(answer):
    """The reward of an answer by its number."""
    return score([type("Drawn", (), {"ids": ANSWERS[answer]})], [0])[0]


@pytest.mark.parametrize("micro_batch", [1, 2, 100])
def test_micro_batches_are_one_batch(micro_batch):
    many = {"prompts": PROMPTS[:4], "per_phase": 4, "samples": 4}
    whole = data_of(fresh_state(), options={"micro_batch": 4}, **many)
    expected = gradient_of(whole, whole.at(0, 0).batches)
    parts = data_of(fresh_state(), options={"micro_batch": micro_batch}, **many)
    batches = parts.at(0, 0).batches
    differing = round(4 * (1 - parts.numbers["alike"]))
    assert len(batches) == -(-differing // micro_batch) and differing > 1
    np.testing.assert_allclose(gradient_of(parts, batches), expected, atol=1e-12)


def test_alike_groups_are_left_out_but_their_tokens_count():
    many = {"prompts": PROMPTS[:4], "per_phase": 4, "samples": 4}
    state = fresh_state()
    first = phases(state, **many).chosen(0).index(2)
    data = data_of(
        state,
        score=lambda a, p: [float(k == 4 * first) if n == 2 else 1.0 for k, n in enumerate(p)],
        **many,
    )
    (batch,) = data.at(0, 0).batches
    assert set(batch.answers) == {0, 1, 2, 3}
    assert data.numbers["alike"] == 0.75
    assert data.normaliser == sum(len(answer.ids) for answer in data.phases.answers(0))


def test_equal_scores_are_alike_although_their_price_teaches():
    reference = start()
    reference.flat[:] *= 1.5
    data = data_of(
        fresh_state(),
        score=lambda answers, prompts: [1.0] * len(answers),
        reference=reference,
        options={"beta": 0.5},
    )
    (batch,) = data.at(0, 0).batches
    assert data.numbers["alike"] == 1.0 and np.abs(batch.columns["advantage"]).max() > 1e-3


def test_a_run_of_equal_rewards_does_not_change_one_bit():
    state, results = run(5, score=lambda answers, prompts: [0.1] * len(answers), dtype=np.float32)
    assert state.parameters.flat.tobytes() == start(np.float32).flat.tobytes()
    assert [r.metrics["alike"] for r in results] == [1.0] * 5
    assert [r.rows for r in results] == [0] * 5 and state.step == 5


# What stops a run.


def test_a_run_without_any_difference_stops_in_words():
    with pytest.raises(OverBound, match=rf"step {PATIENCE}: no group .* for 20 steps .* was 0\)"):
        run(50, score=lambda answers, prompts: [0.0] * len(answers))
    with pytest.raises(NothingToLearn, match=r"no group .* for 20 steps .* mean was 0.25\)$"):
        run(50, score=lambda answers, prompts: [0.25] * len(answers))


def test_one_difference_is_enough_to_go_on():
    calls = []

    def sometimes(answers, prompts):
        calls.append(len(answers))
        return [float(k == 0 and len(calls) % 19 == 0) for k in range(len(answers))]

    state, _ = run(60, score=sometimes, samples=2)
    assert state.step == 60


def test_steps_without_a_difference_are_counted_on_after_a_resume():
    notes = {}
    equal = {"score": lambda answers, prompts: [1.0] * len(answers), "notes": notes, "samples": 2}
    run(PATIENCE - 1, **equal)
    assert notes == {"alike_since": 0}
    data = data_of(fresh_state(), **equal)
    data.at(0, PATIENCE - 2)  # a step that is made again does not count twice
    with pytest.raises(NothingToLearn):
        data.at(0, PATIENCE - 1)


def test_a_kl_over_its_bound_stops_in_words():
    with pytest.raises(
        UserError, match=r"step \d+: .* KL of an answer is .* over the bound of 0.2"
    ):
        run(60, rate=0.2, reference=start(), options={"max_kl": 0.2})
    run(3, reference=start(), options={"max_kl": 2.0})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_not_a_number_names_the_answer(value):
    with pytest.raises(UserError, match=rf"reward of an answer is {value}, .*: '\[.*2\]'"):
        run(1, score=lambda answers, prompts: [value if a.ended else 0.0 for a in answers])


def test_one_sample_is_refused():
    with pytest.raises(UserError, match="answers must be at least 2, not 1"):
        data_of(fresh_state(), samples=1)
    with pytest.raises(ValueError, match="reference"):
        data_of(fresh_state(), options={"beta": 0.1})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_answers_of_another_policy_are_noticed(monkeypatch, dtype):
    draws = grpo.Phases.answers

    def warmer(self, number):
        return [
            answer._replace(log_probs=[0.9 * value for value in answer.log_probs])
            for answer in draws(self, number)
        ]

    monkeypatch.setattr(grpo.Phases, "answers", warmer)
    with pytest.raises(UserError, match="must have the ratio 1, but it is off by up to"):
        run(1, dtype=dtype)


# Whole runs.


def test_the_metrics_of_a_step():
    _, (result,) = run(1, reference=start(), dtype=np.float32)
    metrics = result.metrics
    assert next(iter(metrics)) == "loss"
    assert metrics.keys() == {
        *("loss", "reward", "kl", "entropy", "length", "ended", "alike", "ratio_error")
    }
    assert abs(metrics["kl"]) < 1e-6 and metrics["ratio_error"] < 1e-5
    assert 0 < metrics["ended"] <= 1 <= metrics["length"] <= 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_first_pass_has_the_ratio_1(dtype):
    _, results = run(30, dtype=dtype)
    assert max(r.metrics["ratio_error"] for r in results) < (1e-5 if dtype is np.float32 else 1e-12)


def test_the_same_place_draws_the_same_step():
    one, other = (data_of(fresh_state(), prompts=PROMPTS, per_phase=2) for _ in range(2))
    one.at(0, 0)
    first, again = one.at(0, 5), other.at(0, 5)
    assert first[1:] == again[1:] == (0, 6)
    for a, b in zip(first.batches, again.batches, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.columns["old"], b.columns["old"])


@pytest.mark.parametrize("per_phase", [1, 2, 7])
def test_phases_take_every_prompt_once_an_epoch(per_phase):
    made = phases(fresh_state(), prompts=PROMPTS, per_phase=per_phase)
    chosen = [i for number in range(10) for i in made.chosen(number)]
    assert len(chosen) == 10 * per_phase
    epochs = [chosen[k : k + 5] for k in range(0, len(chosen), 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_the_reward_rises():
    state, _ = run(25, samples=32, rate=0.02)
    before, after = (np.exp(x) @ [score_of(a) for a in range(15)] for x in both(state))
    assert after > before + 0.3


def both(state):
    """ln π of all answers before and after a run."""
    return LOG_REFERENCE, log_policy(state.parameters.flat)


@pytest.mark.long
def test_a_run_reaches_the_optimum():
    options = {"beta": 0.3, "shares": "constant"}
    state, _ = run(300, samples=128, rate=0.03, options=options, reference=start())
    share, variation = judged(state, 0.3)
    assert share > 0.99 and variation < 0.02


@pytest.mark.long
def test_with_a_large_beta_the_policy_stays_where_it_is():
    state, _ = run(100, samples=32, options={"beta": 1e6}, reference=start())
    before, after = (np.exp(x) for x in both(state))
    assert abs(after - before).sum() / 2 < 0.01
