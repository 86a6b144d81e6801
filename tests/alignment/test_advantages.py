"""Advantages: what its chapter claims, by sums over every answer, and every group of three."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.alignment.advantages import (
    BASELINES,
    discounted,
    final_score,
    gae,
    group_advantages,
    returns,
    token_rewards,
    whitened,
)
from minigpt2.alignment.policy_gradient import normaliser, token_shares
from tests.alignment.exact_world import (
    ANSWERS,
    LENGTHS,
    OF,
    REFERENCE,
    REWARDS,
    TABLE,
    WORLDS,
    by_answer,
    compared,
    probabilities,
)

EXACT, BETA = 1e-12, 0.3
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
quick = settings(deadline=None, max_examples=60)
answers_of_numbers = st.lists(st.floats(-5, 5), min_size=1, max_size=8)
rates = st.sampled_from([0.0, 0.3, 0.95, 1.0])


# The rewards of tokens.


def test_the_rewards_of_an_answer_add_up_to_its_score_less_the_price_of_its_log_ratio():
    log_ratios = TABLE.log_p() - REFERENCE
    for score, part in zip(REWARDS, by_answer(log_ratios), strict=True):
        before = part.copy()
        rewards = token_rewards(score, part, BETA)
        np.testing.assert_allclose(rewards.sum(), score - BETA * part.sum(), rtol=EXACT)
        np.testing.assert_allclose(rewards[:-1], -BETA * part[:-1])
        np.testing.assert_array_equal(part, before)


def test_the_score_of_a_cut_answer_has_the_penalty():
    assert [final_score(2.0, ended) for ended in (True, False)] == [2.0, 1.0]
    assert final_score(2.0, False, penalty=0.5) == 1.5


@given(answers_of_numbers, rates)
@quick
def test_rewards_to_go_are_discounted_sums(numbers, gamma):
    x = np.array(numbers)
    expected = [sum(gamma**i * r for i, r in enumerate(x[t:])) for t in range(len(x))]
    np.testing.assert_allclose(discounted(x, gamma), expected, atol=1e-12)


def test_whole_numbers_are_discounted_as_fractions():
    np.testing.assert_allclose(discounted(np.array([1, 1, 1]), 0.5), [1.75, 1.5, 1])


# Generalised advantage estimation.


def k_steps(rewards, values, gamma, after, t, k):
    """The advantage of token t as it is judged k steps later; the answer's end is the last step."""
    steps = min(k, len(rewards) - t)
    earned = sum(gamma**i * rewards[t + i] for i in range(steps))
    following = values[t + steps] if t + steps < len(values) else after
    return earned + gamma**steps * following - values[t]


def mixture(rewards, values, gamma, lam, after):
    """The mean over all k of k_steps, with weights (1 − λ) λᵏ⁻¹; the rest of them is at the end."""
    advantages = []
    for t in range(len(rewards)):
        left = len(rewards) - t
        parts = [
            (1 - lam) * lam ** (k - 1) * k_steps(rewards, values, gamma, after, t, k)
            for k in range(1, left)
        ]
        last = lam ** (left - 1) * k_steps(rewards, values, gamma, after, t, left)
        advantages.append(sum(parts) + last)
    return np.array(advantages)


tokens = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=8)


@given(tokens, rates, rates, st.sampled_from([0.0, 1.7]))
@quick
def test_it_is_the_mixture_of_k_step_advantages(numbers, gamma, lam, after):
    rewards, values = np.array(numbers).T
    expected = mixture(rewards, values, gamma, lam, after)
    np.testing.assert_allclose(gae(rewards, values, gamma, lam, after), expected, atol=EXACT)


@given(tokens, rates, st.sampled_from([0.0, 1.7]))
@quick
def test_its_two_limits_are_one_step_and_all_of_them(numbers, gamma, after):
    rewards, values = np.array(numbers).T
    one_step = rewards + gamma * np.append(values[1:], after) - values
    np.testing.assert_allclose(gae(rewards, values, gamma, 0.0, after), one_step, atol=EXACT)
    to_go = discounted(rewards, gamma, after)
    advantages = gae(rewards, values, gamma, 1.0, after)
    np.testing.assert_allclose(advantages, to_go - values, atol=EXACT)
    np.testing.assert_allclose(returns(advantages, values), to_go, atol=EXACT)


def test_exact_values_leave_no_advantage_on_the_mean():
    p = probabilities(TABLE)
    before = {a[:t] for a in ANSWERS for t in range(len(a) + 1)}
    worth = {
        state: np.average(REWARDS[below], weights=p[below])
        for state in before
        for below in [np.array([a[: len(state)] == state for a in ANSWERS])]
    }
    for lam in (0.0, 0.5, 1.0):
        total = {}
        for answer, reward, probability in zip(ANSWERS, REWARDS, p, strict=True):
            values = np.array([worth[answer[:t]] for t in range(len(answer))])
            rewards = token_rewards(reward, np.zeros(len(answer)), BETA)
            for t, advantage in enumerate(gae(rewards, values, lam=lam)):
                total[answer[:t]] = total.get(answer[:t], 0) + probability * advantage
        np.testing.assert_allclose(list(total.values()), 0, atol=EXACT)


def test_the_state_behind_a_cut_answer_counts_by_its_value_if_it_is_given():
    rewards, values = np.array([0.0, 1.0]), np.array([0.5, 0.5])
    assert gae(rewards, values, after=0.0)[-1] == 0.5
    assert gae(rewards, values, after=2.0)[-1] == 2.5
    assert gae(rewards, values, gamma=0.5, after=2.0)[-1] == 1.5


# Whitening.


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30).filter(lambda x: np.var(x) > 1e-3))
@quick
def test_whitened_numbers_have_mean_0_and_variance_1(numbers):
    x = np.array(numbers)
    y = whitened(x)
    assert abs(y.mean()) < 1e-9 and y.var() == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(whitened(x, shift_mean=False), y + x.mean(), atol=1e-9)


def test_what_is_added_to_the_variance_keeps_small_differences_small():
    root = np.sqrt(0.5)  # 1e-4 over the root of 1e-8 + 1e-8
    np.testing.assert_allclose(whitened(np.array([0.0, 2e-4])), [-root, root], rtol=1e-9)


@pytest.mark.parametrize("numbers", [[3.0], [2.0, 2.0, 2.0]])
def test_equal_numbers_are_whitened_to_zero(numbers):
    np.testing.assert_array_equal(whitened(np.array(numbers)), 0)
    np.testing.assert_array_equal(whitened(np.array(numbers), shift_mean=False), numbers)


# Groups: all 3,375 of three answers, each as likely as its three answers together.

GROUPS = np.array(list(product(range(len(ANSWERS)), repeat=3)))  # (3375, 3)


@cache
def shares_in_groups(kind):
    """What a token of each answer counts in each group, (3375, 3)."""
    shares = []
    for group in GROUPS:
        names = np.repeat(np.arange(3), LENGTHS[group])
        each = token_shares(kind, names) / normaliser(kind, names, constant=3)
        shares.append(each[np.cumsum(LENGTHS[group]) - 1])  # those of an answer are the same
    return np.array(shares)


def group_gradient(world, advantages, kind="sample"):
    """The mean over all groups of the gradient of −ℒ."""
    p = probabilities(world)
    of_answers = np.zeros(len(p))
    chance = p[GROUPS].prod(1, keepdims=True)
    np.add.at(of_answers, GROUPS, chance * advantages * shares_in_groups(kind))
    return world.gradient(-of_answers[OF])


def exact_gradient(world):
    """The gradient of the expected reward."""
    return world.gradient(-(probabilities(world) * REWARDS)[OF])


@worlds
@pytest.mark.parametrize(("kind", "length"), [("sample", 1), ("constant", 1 / 3)])
def test_leave_one_out_has_no_bias_and_the_mean_is_two_thirds_of_it(world, kind, length):
    exact = exact_gradient(world)
    scale = abs(exact).max()
    for baseline, factor in zip(BASELINES, (2 / 3, 1), strict=True):
        gradient = group_gradient(world, group_advantages(REWARDS[GROUPS], baseline), kind)
        np.testing.assert_allclose(gradient, factor * length * exact, atol=EXACT * scale)


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match=r"^baseline 'median' is none of mean, leave-one-out$"):
        group_advantages(np.eye(2), "median")


@worlds
def test_whatever_the_others_of_a_group_give_is_a_baseline(world):
    others = np.stack([np.roll(REWARDS[GROUPS], k, 1) for k in (1, 2)])
    for baseline in others.max(0), others.prod(0), others.sum(0) > 0:
        gradient = group_gradient(world, REWARDS[GROUPS] - baseline)
        np.testing.assert_allclose(gradient, exact_gradient(world), atol=EXACT)


# Cosine with the exact gradient and length relative to it, on the table of logits; c = 3.
TABLE_OF_ESTIMATORS = {
    (False, "sample"): (1, 0.667),
    (False, "constant"): (1, 0.222),
    (False, "tokens"): (0.999, 0.327),
    (False, "answer"): (0.984, 0.286),
    (True, "sample"): (0.862, 1.271),
    (True, "constant"): (0.862, 0.424),
    (True, "tokens"): (0.820, 0.687),
    (True, "answer"): (0.847, 0.524),
}


@pytest.mark.parametrize(("options", "expected"), TABLE_OF_ESTIMATORS.items())
def test_the_table_of_estimators(options, expected):
    sigma, kind = options
    advantages = group_advantages(REWARDS[GROUPS], divide_by_sigma=sigma)
    numbers = compared(group_gradient(TABLE, advantages, kind), exact_gradient(TABLE))
    assert numbers == pytest.approx(expected, abs=5e-4)


def bias(kind, size):
    """1 − the cosine of leave-one-out in all groups of a size, by the plain formula."""
    groups = np.array(list(product(range(len(ANSWERS)), repeat=size)))
    p, lengths = probabilities(TABLE), LENGTHS[groups]
    share = 1 / lengths if kind == "answer" else 1 / lengths.sum(1, keepdims=True)
    of_answers = np.zeros(len(p))
    chance = p[groups].prod(1, keepdims=True)
    np.add.at(of_answers, groups, chance * share * group_advantages(REWARDS[groups]))
    return 1 - compared(TABLE.gradient(-of_answers[OF]), exact_gradient(TABLE))[0]


def test_the_bias_of_tokens_falls_with_the_size_of_a_group_and_that_of_answer_stays():
    tokens, answer = ([bias(kind, size) for size in (2, 3, 4)] for kind in ("tokens", "answer"))
    assert tokens[0] > 1.5 * tokens[1] > 2 * tokens[2] > 0
    np.testing.assert_allclose(answer, answer[0], rtol=1e-6)


def test_sigma_is_that_of_the_sample_of_each_group():
    rewards = np.random.default_rng(0).standard_normal((5, 4))
    for baseline in BASELINES:
        plain = group_advantages(rewards, baseline)
        sigma = rewards.std(1, ddof=1, keepdims=True)
        divided = group_advantages(rewards, baseline, divide_by_sigma=True)
        np.testing.assert_allclose(divided, plain / (sigma + 1e-4), rtol=EXACT)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("sigma", [False, True])
def test_a_group_whose_rewards_are_all_alike_has_no_advantage(baseline, sigma):
    rewards = np.array([[0.1] * 3, [0.0] * 3, [1.0, 0.0, 0.0]])
    advantages = group_advantages(rewards, baseline, sigma)
    np.testing.assert_allclose(advantages[:2], 0, atol=1e-12)
    assert advantages[2].all() and abs(advantages.sum()) < 1e-12
