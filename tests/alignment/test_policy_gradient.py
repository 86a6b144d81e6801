"""Policy gradient: what its chapter claims, by sums over every answer there is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.alignment.advantages import discounted, token_rewards
from minigpt2.alignment.kl_objective import objective
from minigpt2.alignment.policy_gradient import (
    NORMALISERS,
    clipped,
    clipped_loss,
    clipped_weights,
    normaliser,
    ratios,
    token_shares,
)
from tests.alignment.exact_world import (
    LENGTHS,
    OF,
    REFERENCE,
    REWARDS,
    TABLE,
    WORLDS,
    Table,
    by_answer,
    error,
    probabilities,
    sums,
)
from tests.alignment.policy_cases import ADVANTAGES, OLD, POLICY_LOSS
from tests.gradients import (
    CAUGHT,
    assert_exact,
    assert_in_order,
    bugs_of,
    complex_step_error,
    each_gradient,
    zeros,
)

EXACT, BETA, CLIP = 1e-12, 0.3, 0.2
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
quick = settings(deadline=None, max_examples=60)


def expected_reward(log_p):
    """J without a price, by the ln p of all tokens."""
    return (np.exp(sums(log_p)) * REWARDS).sum()


def regularised(log_p):
    """J of the KL-regularised objective."""
    return objective(sums(log_p), sums(REFERENCE), REWARDS, BETA)


# The score function.


@worlds
def test_the_score_function_gives_the_gradient_of_the_expected_reward(world):
    log_p = world.log_p()
    shares = probabilities(world)[OF]  # what a token counts: how often its answer is drawn
    weights = clipped_weights(log_p, log_p, REWARDS[OF], shares)
    assert error(world, weights, expected_reward) <= EXACT


@worlds
def test_a_baseline_adds_no_bias(world):
    log_p, shares = world.log_p(), probabilities(world)[OF]
    baseline = np.random.default_rng(0).standard_normal((4, 3, 3))  # by what came before the token
    place = np.concatenate([np.arange(n) for n in LENGTHS])
    before = np.concatenate([np.append(0, part[:-1]) for part in by_answer(place * 7 % 3)])
    weights = clipped_weights(log_p, log_p, REWARDS[OF] - baseline[place, before, 0], shares)
    assert error(world, weights, expected_reward) <= EXACT


@worlds
def test_a_baseline_that_knows_the_token_has_a_bias(world):
    log_p, shares = world.log_p(), probabilities(world)[OF]
    weights = clipped_weights(log_p, log_p, REWARDS[OF] - log_p, shares)
    assert error(world, weights, expected_reward) > CAUGHT


@worlds
def test_a_reward_to_go_with_the_kl_inside_gives_the_gradient_of_the_objective(world):
    log_p = world.log_p()
    parts = zip(REWARDS, by_answer(log_p - REFERENCE), strict=True)
    to_go = np.concatenate([discounted(token_rewards(s, x, BETA)) for s, x in parts])
    weights = clipped_weights(log_p, log_p, to_go, probabilities(world)[OF])
    assert error(world, weights, regularised) <= EXACT


@worlds
def test_the_mean_of_20_000_samples_is_within_three_standard_errors(world):
    n, p, log_p = 20_000, probabilities(world), world.log_p()
    ones = np.eye(len(p))
    of_answers = [
        world.gradient(-clipped_weights(log_p, log_p, REWARDS[OF], one[OF])) for one in ones
    ]
    each = np.array(of_answers)  # (15, P) the gradient of an answer that was drawn
    drawn = np.random.default_rng(0).multinomial(n, p / p.sum()) / n
    mean = drawn @ each
    deviation = np.sqrt(drawn @ (each - mean) ** 2 / n)
    exact = p @ each
    moves = deviation > 1e-9 * deviation.max()
    within = abs(mean - exact) <= 3 * deviation + 1e-12
    assert moves.mean() > 0.9 and within.mean() >= 0.99
    z = (mean - exact)[moves] / deviation[moves]
    assert 0.3 < np.sqrt(np.mean(z**2)) < 2  # and it is not the exact gradient by chance


# The ratio.


def test_ratios_make_answers_of_another_policy_count_as_this_ones():
    old, new = Table(3).log_p(), TABLE.log_p()
    whole = np.exp(sums(old)) * np.exp(sums(np.log(ratios(new, old))))
    np.testing.assert_allclose(whole, probabilities(TABLE), rtol=1e-12)


@worlds
def test_the_first_pass_is_the_score_function_at_any_clip(world):
    log_p, shares = world.log_p(), probabilities(world)[OF]
    for clip in (0.0, 0.2, 100.0):
        weights = clipped_weights(log_p, log_p, REWARDS[OF], shares, clip)
        np.testing.assert_array_equal(weights, shares * REWARDS[OF])


def test_weights_are_minus_the_derivative_by_ln_p_as_autograd_would_have_it():
    rng = np.random.default_rng(0)
    old, advantages, shares = rng.standard_normal((3, 200))
    log_p = old + rng.normal(0, 0.4, 200)
    h = 1e-30
    total = np.array(
        [
            clipped_loss(log_p + 1j * h * one, old, advantages, shares, CLIP).imag / h
            for one in np.eye(200)
        ]
    )
    np.testing.assert_allclose(clipped_weights(log_p, old, advantages, shares, CLIP), -total)


# The clip.


def minimum(rho, advantages, clip=CLIP):
    """m by (40.6) to the letter."""
    return np.minimum(rho * advantages, np.clip(rho, 1 - clip, 1 + clip) * advantages)


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-3, 3)), min_size=1, max_size=20),
    st.floats(0, 0.9),
)
@quick
def test_the_loss_is_the_minimum_to_the_letter(tokens, clip):
    log_ratios, advantages = np.array(tokens).T
    shares = np.linspace(1, 2, len(tokens))
    loss = clipped_loss(log_ratios, np.zeros(len(tokens)), advantages, shares, clip)
    expected = -(shares * minimum(np.exp(log_ratios), advantages, clip)).sum()
    np.testing.assert_allclose(loss, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("advantage", "rho", "slope"),
    [(2, 0.5, 2), (2, 1, 2), (2, 1.5, 0), (-2, 0.5, 0), (-2, 1, -2), (-2, 1.5, -2)],
)
def test_the_six_regions_four_pass_and_two_are_exactly_zero(advantage, rho, slope):
    old, log_p = np.zeros(1), np.log([rho])
    arguments = old, np.array([float(advantage)]), np.ones(1), CLIP
    (weight,) = clipped_weights(log_p, *arguments)
    assert weight == pytest.approx(slope * rho, rel=1e-14) and (weight == 0) == (slope == 0)
    h = 1e-6
    change = clipped_loss(log_p + h, *arguments) - clipped_loss(log_p - h, *arguments)
    assert -change / (2 * h) == pytest.approx(slope * rho, abs=1e-8)


@pytest.mark.parametrize(("advantage", "kink"), [(2.0, 1 + CLIP), (-2.0, 1 - CLIP)])
def test_at_the_kink_the_slopes_of_both_sides_differ_and_the_token_counts_as_not_clipped(
    advantage, kink
):
    a, h = np.array([advantage]), 1e-7
    below, at, above = (minimum(np.array([kink + side]), a) for side in (-h, 0, h))
    slopes = np.sort(abs(np.concatenate([at - below, above - at]))) / h
    np.testing.assert_allclose(slopes, [0, 2], atol=1e-5)
    assert not clipped(np.array([kink]), a, CLIP).any()
    assert clipped(np.array([kink + h * np.sign(advantage)]), a, CLIP).all()


def test_a_token_without_an_advantage_is_not_clipped_and_has_no_weight():
    rho, zero = np.array([0.1, 1.0, 9.0]), np.zeros(3)
    assert not clipped(rho, zero, CLIP).any()
    assert not clipped_weights(np.log(rho), zero, zero, np.ones(3), CLIP).any()


# The shares.


def test_each_share_divides_by_what_its_name_says():
    answers = np.array([7, 7, 7, 2, 2, 9])  # whatever their numbers
    expected = {
        "tokens": [1 / 6] * 6,
        "constant": [1 / 15] * 6,
        "answer": [1 / 9] * 3 + [1 / 6] * 2 + [1 / 3],
        "sample": [1 / 3] * 6,
    }
    assert expected.keys() == set(NORMALISERS)
    for kind, shares in expected.items():
        z = normaliser(kind, answers, constant=5)
        np.testing.assert_allclose(token_shares(kind, answers) / z, shares)


@pytest.mark.parametrize("kind", NORMALISERS)
def test_micro_batches_are_one_batch(kind):
    answers = np.repeat(np.arange(6), [3, 1, 4, 1, 5, 9])
    whole = token_shares(kind, answers) / normaliser(kind, answers, 8)
    parts = [answers[:4], answers[4:]]  # two answers, and four
    z = sum(normaliser(kind, part, 8) for part in parts)
    np.testing.assert_array_equal(
        np.concatenate([token_shares(kind, part) / z for part in parts]), whole
    )
    own = [token_shares(kind, part) / normaliser(kind, part, 8) / 2 for part in parts]
    assert abs(np.concatenate(own) / whole - 1).max() > CAUGHT  # a mean of means is not


def test_a_batch_without_tokens_has_no_shares():
    none = np.empty(0, np.int64)
    assert all(len(token_shares(kind, none)) == 0 for kind in NORMALISERS)
    assert all(normaliser(kind, none) == 0 for kind in NORMALISERS)


# The derivatives.

every_gradient = each_gradient((POLICY_LOSS,))


@every_gradient
def test_weights_agree_with_the_complex_step_away_from_the_kinks(case, argument):
    assert_exact(case, argument)


@every_gradient
def test_weights_agree_with_central_differences_to_second_order(case, argument):
    assert_in_order(case, argument)


@every_gradient
def test_every_planted_bug_and_weights_of_zero_are_caught(case, argument):
    assert len(bugs_of(case, argument)) >= 3
    for name, bug in {**bugs_of(case, argument), "zeros": zeros}.items():
        assert complex_step_error(case, argument, backward=bug).error > CAUGHT, name


def test_all_six_regions_are_among_the_numbers_of_the_check():
    (log_p,) = (make(np.random.default_rng(0)) for make in POLICY_LOSS.arguments.values())
    rho = ratios(log_p, OLD)
    regions = np.digitize(rho, [1 - CLIP, 1 + CLIP]) + 3 * (ADVANTAGES > 0)
    assert set(regions) == set(range(6))


@pytest.mark.parametrize("function", [token_shares, normaliser])
def test_an_unknown_normaliser_is_refused(function):
    known = "tokens, constant, answer, sample"
    with pytest.raises(ValueError, match=f"^normaliser 'token' is none of {known}$"):
        function("token", np.arange(3))
