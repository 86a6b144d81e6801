"""KL-regularised objective: what its chapter claims, by sums over every answer there is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.alignment.advantages import discounted
from minigpt2.alignment.kl_objective import adapted, estimates, kl, objective, optimum, slopes
from tests.alignment.exact_world import (
    OF,
    REFERENCE,
    REWARDS,
    STATE,
    TABLE,
    WORLDS,
    Table,
    by_answer,
    compared,
    error,
    probabilities,
    sums,
)

EXACT = 1e-12
SURE = sums(REFERENCE)  # (15,) ln π_ref of the answers
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
quick = settings(deadline=None, max_examples=60)
numbers = st.lists(st.floats(-5, 5), min_size=2, max_size=8)


def reverse_kl(log_p):
    """KL(π‖π_ref) by the ln p of all tokens."""
    return kl(sums(log_p), SURE)


def forward_kl(log_p):
    """KL(π_ref‖π)."""
    return kl(SURE, sums(log_p))


# The optimum.


@given(numbers, st.sampled_from([0.1, 0.3, 1.0, 7.0]))
@quick
def test_the_optimum_is_a_distribution_with_the_value_that_the_chapter_says(rewards, beta):
    rewards = np.array(rewards)
    reference = np.random.default_rng(len(rewards)).standard_normal(len(rewards))
    reference -= np.logaddexp.reduce(reference)
    log_p, value = optimum(reference, rewards, beta)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=EXACT)
    np.testing.assert_allclose(objective(log_p, reference, rewards, beta), value, atol=1e-10)


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
def test_any_policy_is_worse_than_the_optimum_by_beta_times_its_kl(beta):
    log_p, value = optimum(SURE, REWARDS, beta)
    for seed in range(5):
        other = sums(Table(seed).log_p())
        short = value - objective(other, SURE, REWARDS, beta)
        np.testing.assert_allclose(short, beta * kl(other, log_p), rtol=1e-10)
        assert short > 0


def test_the_optimum_solves_for_the_reward():
    log_p, value = optimum(SURE, REWARDS, 0.3)
    np.testing.assert_allclose(0.3 * (log_p - SURE) + value, REWARDS, atol=EXACT)


def test_a_constant_reward_changes_nothing_but_the_value():
    log_p, value = optimum(SURE, REWARDS, 0.3)
    same, higher = optimum(SURE, REWARDS + 5, 0.3)
    np.testing.assert_allclose(same, log_p, atol=EXACT)
    np.testing.assert_allclose(higher, value + 5, rtol=EXACT)


def test_several_prompts_at_once_are_one_by_one():
    references = np.stack([sums(Table(seed).log_p()) for seed in (2, 3)])
    rewards = np.stack([REWARDS, REWARDS**2])
    log_p, values = optimum(references, rewards, 0.3)
    for k in (0, 1):
        alone, value = optimum(references[k], rewards[k], 0.3)
        np.testing.assert_array_equal(log_p[k], alone)
        assert values[k] == value
    np.testing.assert_allclose(objective(log_p, references, rewards, 0.3), values, rtol=1e-10)


def test_a_large_beta_is_the_reference_and_a_small_one_the_best_answer():
    np.testing.assert_allclose(optimum(SURE, REWARDS, 1e9)[0], SURE, atol=1e-8)
    assert np.exp(optimum(SURE, REWARDS, 1e-3)[0])[REWARDS.argmax()] > 1 - 1e-9


def test_rewards_of_a_thousand_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        log_p, value = optimum(np.log([0.5, 0.5]), np.array([1000.0, -1000.0]), 0.1)
    assert np.isfinite(log_p).all() and value == pytest.approx(1000, abs=0.1)


# The three estimates: their values.


@worlds
def test_k1_and_k3_have_the_kl_as_mean_and_k2_is_near(world):
    p, log_p = probabilities(world), world.log_p()
    exact = reverse_kl(log_p)
    k1, k2, k3 = (p @ k for k in estimates(sums(log_p) - SURE))
    np.testing.assert_allclose([k1, k3], exact, rtol=EXACT)
    assert abs(k2 - exact) > 0.01 * exact


@given(st.floats(-30, 30))
@quick
def test_k2_and_k3_are_never_negative(log_ratio):
    _, k2, k3 = estimates(np.array([log_ratio]))
    assert k2 >= 0 and k3 >= 0


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6])
def test_k2_and_k3_agree_to_second_order(size):
    _, k2, k3 = estimates(np.array([-size, size]))
    np.testing.assert_allclose(k2, k3, rtol=size)


@given(numbers)
@quick
def test_the_slopes_are_the_derivatives_of_the_estimates(log_ratios):
    h, x = 1e-30, np.array(log_ratios)
    for k, slope in zip(estimates(x + 1j * h), slopes(x), strict=True):
        np.testing.assert_allclose(np.imag(k) / h, slope, rtol=1e-13, atol=1e-13)


# The three estimates: what each of them does in a loss.  A loss of the mean of k over answers that
# the policy drew, differentiated at these answers, gives the tokens the weights −π(y) ∂k/∂ln p.


def weights_of_answers(world, number):
    """The weights (M,) of estimate k1, k2 or k3 of whole answers in a loss."""
    slope = slopes(sums(world.log_p()) - SURE)[number - 1]
    return -(probabilities(world) * slope)[OF]


def weights_of_tokens(world, number):
    """The weights (M,) of estimate k1, k2 or k3 of each token in a loss."""
    return -probabilities(world)[OF] * slopes(world.log_p() - REFERENCE)[number - 1]


def weights_of_rewards(world):
    """The weights (M,) of −KL as a reward that is paid token by token, to go."""
    log_ratios = by_answer(world.log_p() - REFERENCE)
    return -probabilities(world)[OF] * np.concatenate([discounted(x) for x in log_ratios])


def minus(value):
    """The negative of a value: losses are lowered."""
    return lambda log_p: -value(log_p)


@worlds
def test_k1_in_the_loss_gives_nothing(world):
    for weights in weights_of_answers(world, 1), weights_of_tokens(world, 1):
        assert abs(world.gradient(weights)).max() <= EXACT


@worlds
def test_k2_of_answers_in_the_loss_gives_the_gradient_of_the_kl(world):
    assert error(world, weights_of_answers(world, 2), minus(reverse_kl)) <= EXACT


@worlds
def test_k3_of_answers_in_the_loss_gives_the_gradient_of_the_kl_of_the_other_direction(world):
    assert error(world, weights_of_answers(world, 3), minus(forward_kl)) <= EXACT
    assert error(world, weights_of_answers(world, 3), minus(reverse_kl)) > 0.1


@worlds
@pytest.mark.parametrize("number", [2, 3])
def test_k2_and_k3_of_tokens_in_the_loss_give_neither(world, number):
    weights = weights_of_tokens(world, number)
    assert error(world, weights, minus(reverse_kl)) > 0.1
    assert error(world, weights, minus(forward_kl)) > 0.1


@worlds
def test_the_kl_in_the_reward_gives_its_gradient(world):
    assert error(world, weights_of_rewards(world), minus(reverse_kl)) <= EXACT


def kl_of_every_state():
    """The gradient of the KL of each state's whole distribution, at states as they are drawn."""
    log_p = TABLE.all_log_p()  # (7, V)
    log_ratios = log_p - Table(seed=2).all_log_p()
    drawn = np.bincount(STATE, probabilities(TABLE)[OF])  # (7,) how likely each state is
    by_logit = np.exp(log_p) * (log_ratios - kl(log_p, log_p - log_ratios)[:, None])
    return (drawn[:, None] * by_logit).ravel()


def test_the_whole_table_of_gradients():
    """What each gradient is, relative to that of the KL: how far off, and its cosine."""
    exact = TABLE.gradient(weights_of_rewards(TABLE))
    for number, off, cosine in ((2, 0, 1), (3, 1.205, 0.378)):
        gradient = TABLE.gradient(weights_of_answers(TABLE, number))
        assert np.linalg.norm(gradient - exact) / np.linalg.norm(exact) == near(off)
        assert compared(gradient, exact)[0] == near(cosine)
    for number, off, cosine in ((2, 0.979, 0.584), (3, 1.136, 0.312)):
        gradient = TABLE.gradient(weights_of_tokens(TABLE, number))
        assert np.linalg.norm(gradient - exact) / np.linalg.norm(exact) == near(off)
        assert compared(gradient, exact)[0] == near(cosine)


def near(number):
    """A number as the table rounds it."""
    return pytest.approx(number, abs=5e-4)


def test_the_kl_over_the_vocabulary_has_the_mean_of_k2_of_tokens():
    expected = TABLE.gradient(weights_of_tokens(TABLE, 2))
    np.testing.assert_allclose(kl_of_every_state(), expected, atol=EXACT)


def test_two_arms_come_to_rest_elsewhere_with_k3_in_the_loss():
    def rest(slope):
        """Where p of the first arm rests, by bisection of the mean gradient of its logit."""
        low, high = 0.5, 1.0
        for _ in range(60):
            p = (low + high) / 2
            arms = np.array([p, 1 - p])
            by_logit = np.array([1 - p, -p])  # ∂ln p/∂logit
            up = arms @ ((np.array([1.0, 0.0]) - slope(np.log(2 * arms))) * by_logit)
            low, high = (p, high) if up > 0 else (low, p)
        return low

    with np.errstate(divide="ignore", invalid="ignore"):
        assert rest(lambda x: x) == pytest.approx(np.e / (1 + np.e), abs=1e-12)  # k1 in the reward
        assert rest(lambda x: slopes(x)[1]) == pytest.approx(np.e / (1 + np.e), abs=1e-12)
        assert rest(lambda x: slopes(x)[2]) == pytest.approx(np.sqrt(0.5), abs=1e-12)


# Adaptive β.


def test_adaptive_beta_follows_a_trace_that_was_computed_by_hand():
    # (KL, answers): 12/6 − 1 = 1 is clipped to 0.2; 6.6/6 − 1 = 0.1; 6 changes nothing; 3/6 − 1 is
    # clipped to −0.2; 5.4/6 − 1 = −0.1; 0 is clipped, too.
    trace = [(12.0, 500), (6.6, 1000), (6.0, 500), (3.0, 2500), (5.4, 10_000), (0.0, 10_000)]
    expected = [0.1515, 0.153015, 0.153015, 0.14536425, 0.130827825, 0.10466226]
    beta, betas = 0.15, []
    for measured, answers in trace:
        beta = adapted(beta, measured, answers)
        betas.append(beta)
    np.testing.assert_allclose(betas, expected, rtol=1e-12)


@given(st.floats(0, 100), st.integers(1, 1000))
@quick
def test_beta_grows_exactly_while_the_kl_is_above_its_target(measured, answers):
    beta = adapted(0.15, measured, answers, target=6.0)
    if abs(measured - 6) > 1e-9:
        assert (beta > 0.15) == (measured > 6)
    assert abs(beta / 0.15 - 1) <= 0.2 * answers / 10_000 + 1e-12
