"""What people got wrong, planted: each variant is caught by a witness that passes the right one.

A witness takes an implementation and returns its error.  Bugs of the derivatives themselves are in
policy_cases: clip ignored, clip reversed for A < 0, and others.
"""

import numpy as np
import pytest

from minigpt2.alignment.advantages import discounted, gae, group_advantages, token_rewards, whitened
from minigpt2.alignment.kl_objective import estimates, objective, slopes
from minigpt2.alignment.policy_gradient import clipped_weights, normaliser, ratios, token_shares
from tests.alignment.exact_world import (
    ENDED,
    LAST,
    LENGTHS,
    MODEL,
    OF,
    REFERENCE,
    REWARDS,
    TABLE,
    Table,
    by_answer,
    error,
    probabilities,
    sums,
)
from tests.alignment.test_advantages import GROUPS, exact_gradient, group_gradient, mixture
from tests.gradients import CAUGHT

EXACT, BETA, GAMMA, LAM = 1e-12, 0.3, 0.9, 0.7
WARM = Table()
WARM.start = TABLE.start / 1.5  # the table's policy at the temperature 1.5


# Rewards, KL and weights: the gradient of the objective, for both policies.


def to_go(world, rewards):
    """The sums (M,) of rewards (M,) from each token on."""
    return np.concatenate([discounted(part) for part in by_answer(rewards)])


def paid(world, price=None, scores=None):
    """Rewards (M,): minus a price at each token, ln π − ln π_ref if it is not given, and scores."""
    price = world.log_p() - REFERENCE if price is None else price
    if scores is None:
        scores = np.zeros(len(OF))
        scores[LAST] = REWARDS
    return scores - BETA * price


def right(world):
    """The weights of the book."""
    log_p = world.log_p()
    parts = zip(REWARDS, by_answer(log_p - REFERENCE), strict=True)
    rewards = np.concatenate([token_rewards(score, part, BETA) for score, part in parts])
    return weigh(world, to_go(world, rewards))


def weigh(world, advantages, shares=None):
    """The weights of some advantages (M,); answers count by how often they are drawn."""
    shares = probabilities(world)[OF] if shares is None else shares
    return clipped_weights(world.log_p(), world.log_p(), advantages, shares)


def score_at(offset):
    """Weights with the score at another row than the last token's; past the answer it is lost."""

    def broken(world):
        scores = np.zeros(len(OF))
        for answer, (last, length) in enumerate(zip(LAST, LENGTHS, strict=True)):
            if -length < offset <= 0:
                scores[last + offset] = REWARDS[answer]
        return weigh(world, to_go(world, paid(world, scores=scores)))

    return broken


def score_in_the_next_answer(world):
    """The score one row late, in a flat array of all tokens."""
    scores = np.zeros(len(OF))
    scores[(LAST + 1) % len(OF)] = REWARDS
    return weigh(world, to_go(world, paid(world, scores=scores)))


def without_the_end_token(world):
    """The last token of an answer that ended has no gradient."""
    weights = right(world)
    weights[LAST[ENDED]] = 0
    return weights


def mean_for_sum(world):
    """ln π of an answer as the mean over its tokens."""
    return right(world) / LENGTHS[OF]


def at_another_temperature(world):
    """Answers of a colder policy than the one whose ln p is trained."""
    p = probabilities(world) ** 1.5
    return weigh(world, to_go(world, paid(world)), (p / p.sum())[OF])


def advantage_not_detached(world):
    """The derivative of −Σ π A ln p where A depends on ln p, too: ∂A/∂ln p · ln p is added."""
    log_p, shares, h = world.log_p(), probabilities(world)[OF], 1e-30

    def loss(moved):
        advantages = to_go(world, paid(world, moved - REFERENCE))
        return -(shares * advantages * moved).sum()

    return np.array([-loss(log_p + 1j * h * one).imag / h for one in np.eye(len(log_p))])


def other_direction(world):
    """The KL of the reference from the policy, by π_ref/π (ln π_ref − ln π) of each token."""
    log_ratios = world.log_p() - REFERENCE
    return weigh(world, to_go(world, paid(world, -np.exp(-log_ratios) * log_ratios)))


def k3_in_the_loss(world):
    """The score in the reward, and k3 of each token in the loss."""
    score = weigh(world, to_go(world, paid(world, price=np.zeros(len(OF)))))
    return score - BETA * probabilities(world)[OF] * slopes(world.log_p() - REFERENCE)[2]


def k1_in_the_loss(world):
    """The score in the reward, and k1 of each token in the loss."""
    score = weigh(world, to_go(world, paid(world, price=np.zeros(len(OF)))))
    return score - BETA * probabilities(world)[OF] * slopes(world.log_p() - REFERENCE)[0]


def at_its_own_token(world):
    """A token answers for its own log-ratio alone."""
    scores = REWARDS[OF]
    return weigh(world, paid(world, scores=scores))


def priced(price):
    """Weights with another price of the log-ratios of tokens."""
    return lambda world: weigh(world, to_go(world, paid(world, price(world.log_p() - REFERENCE))))


OBJECTIVE_BUGS = {
    "reward one row late": score_at(1),
    "reward one row late, in the next answer": score_in_the_next_answer,
    "reward one row early": score_at(-1),
    "end token dropped": without_the_end_token,
    "mean for sum": mean_for_sum,
    "temperature mismatch": at_another_temperature,
    "advantage not detached": advantage_not_detached,
    "KL with the wrong sign": priced(lambda log_ratios: -log_ratios),
    "KL of the other direction": other_direction,
    "k2 for k1": priced(lambda log_ratios: estimates(log_ratios)[1]),
    "k3 for k1": priced(lambda log_ratios: estimates(log_ratios)[2]),
    "k1 in the loss": k1_in_the_loss,
    "k3 in the loss": k3_in_the_loss,
    "KL at its own token alone": at_its_own_token,
    "β forgotten": priced(lambda log_ratios: log_ratios / BETA),
    "reference forgotten": priced(lambda log_ratios: log_ratios + REFERENCE),
}


def off_the_objective(implementation):
    """The relative errors against J of the KL-regularised objective, by the complex step."""

    def regularised(log_p):
        return objective(sums(log_p), sums(REFERENCE), REWARDS, BETA)

    return [error(world, implementation(world), regularised) for world in (TABLE, MODEL)]


def test_the_right_weights_pass():
    for world in (TABLE, MODEL):
        np.testing.assert_allclose(
            right(world), weigh(world, to_go(world, paid(world))), rtol=EXACT
        )
    assert max(off_the_objective(right)) <= EXACT


@pytest.mark.parametrize("name", OBJECTIVE_BUGS)
def test_a_bug_of_rewards_kl_and_weights_is_caught(name):
    assert min(off_the_objective(OBJECTIVE_BUGS[name])) > CAUGHT


# The smaller witnesses: (what is right, its error, bugs).


def off_the_mixture(implementation):
    """The error of GAE against the mixture of k-step advantages, of answers of 1 to 6 tokens."""
    rng, worst = np.random.default_rng(0), 0.0
    for n in range(1, 7):
        rewards, values = rng.standard_normal((2, n))
        exact = mixture(rewards, values, GAMMA, LAM, 0.0)
        worst = max(worst, abs(implementation(rewards, values) - exact).max())
    return worst


def one_late(rewards, values):
    """The last reward on the first pad, where the value is 0."""
    rewards = np.append(rewards, rewards[-1])
    rewards[-2] = 0
    return gae(rewards, np.append(values, 0), GAMMA, LAM)[:-1]


def not_shifted(rewards, values):
    """The value of the state behind a token taken for that before it."""
    return gae(rewards, np.append(values[1:], 0), GAMMA, LAM)


def its_own_value_next(rewards, values):
    """δ with vₜ in the place of vₜ₊₁."""
    return discounted(rewards + GAMMA * values - values, GAMMA * LAM)


def pads_in_gae(rewards, values):
    """Two pads behind the answer, whose values are not 0."""
    padded = np.append(rewards, [0, 0]), np.append(values, [0.4, 0.4])
    return gae(*padded, GAMMA, LAM)[: len(rewards)]


PLAIN = np.random.default_rng(3).standard_normal(9) + 2


def off_whitening(implementation):
    """The error of whitened numbers: their mean is 0 and their mean square 1, here to 1e-8."""
    y = implementation(PLAIN)
    assert len(y) == len(PLAIN)
    return max(abs(y.mean()), abs((y**2).mean() - 1))


def pads_counted(x):
    """Pads of 0 among the numbers."""
    return whitened(np.append(x, np.zeros(5)))[: len(x)]


def off_the_policy_gradient(implementation):
    """The error of a group's advantages against the gradient of the expected reward."""
    exact = exact_gradient(TABLE)
    return abs(group_gradient(TABLE, implementation(REWARDS[GROUPS])) - exact).max()


TWO = np.array([[0.0, 1.0, 5.0], [2.0, 2.5, 2.25]])


def off_sigma(implementation):
    """The error of advantages over each group's own deviation: 1 is their sample's."""
    deviations = implementation(TWO).std(1, ddof=1)
    return abs(deviations - 1).max() - 5e-4  # what 1e-4 beside σ makes of the smaller σ, 0.25


def off_one_batch(implementation):
    """The error of shares in two micro-batches against those in one batch."""
    answers = np.repeat(np.arange(3), [1, 2, 6])
    parts = [answers[:3], answers[3:]]
    whole = token_shares("tokens", answers) / normaliser("tokens", answers)
    return abs(np.concatenate(implementation(parts)) - whole).max()


def whole_step(parts):
    """Shares over the normaliser of the step."""
    z = sum(normaliser("tokens", part) for part in parts)
    return [token_shares("tokens", part) / z for part in parts]


def each_micro_batch(parts):
    """Shares over the normaliser of each micro-batch, and a mean of them."""
    return [token_shares("tokens", p) / normaliser("tokens", p) / len(parts) for p in parts]


def off_one(log_probabilities):
    """By how much the ratio of a first pass is off 1; the policy at 1.5 drew the answers."""
    return abs(ratios(log_probabilities(), WARM.log_p()) - 1).max()


WITNESSES = {
    "GAE": (
        off_the_mixture,
        lambda r, v: gae(r, v, GAMMA, LAM),
        {
            "reward one row late": one_late,
            "value not shifted": not_shifted,
            "a token's own value as the next one": its_own_value_next,
            "γ and λ exchanged": lambda r, v: gae(r, v, LAM, GAMMA),
            "pads with values": pads_in_gae,
            "λ twice": lambda r, v: gae(r, v, GAMMA, LAM * LAM),
            "γ left out of the sum": lambda r, v: gae(r, v, GAMMA, LAM / GAMMA),
            "the last value as the state behind": lambda r, v: gae(r, v, GAMMA, LAM, v[-1]),
            "first to last": lambda r, v: gae(r[::-1], v[::-1], GAMMA, LAM)[::-1],
        },
    ),
    "whitening": (
        lambda f: off_whitening(f) - 1e-7,
        whitened,
        {
            "pads counted": pads_counted,
            "Bessel": lambda x: (x - x.mean()) / np.sqrt(x.var(ddof=1) + 1e-8),
            "the mean stays": lambda x: whitened(x, shift_mean=False),
            "divided by the variance": lambda x: (x - x.mean()) / (x.var() + 1e-8),
            "the mean alone": lambda x: x - x.mean(),
        },
    ),
    "leave-one-out": (
        off_the_policy_gradient,
        lambda r: group_advantages(r, "leave-one-out"),
        {
            "the mean": group_advantages,
            "divided by σ": lambda r: group_advantages(r, "leave-one-out", divide_by_sigma=True),
            "the best of the group": lambda r: r - r.max(1, keepdims=True),
            "the median of all": lambda r: r - np.median(r, 1, keepdims=True),
            "the others are never drawn alike": lambda r: r * (r != np.roll(r, 1, 1)),
        },
    ),
    "σ": (
        off_sigma,
        lambda r: group_advantages(r, divide_by_sigma=True),
        {
            "σ of the batch": lambda r: group_advantages(r) / (r.std(ddof=1) + 1e-4),
            "no Bessel": lambda r: group_advantages(r) / (r.std(1, keepdims=True) + 1e-4),
            "the variance": lambda r: group_advantages(r) / (r.var(1, ddof=1)[:, None] + 1e-4),
        },
    ),
    "micro-batches": (
        off_one_batch,
        whole_step,
        {
            "normaliser of the micro-batch": each_micro_batch,
            "normaliser of the last": lambda parts: [
                token_shares("tokens", part) / normaliser("tokens", parts[-1]) for part in parts
            ],
        },
    ),
    "the first pass": (
        off_one,
        WARM.log_p,
        {
            "ln p at another temperature": TABLE.log_p,
            "old ones a token late": lambda: np.roll(WARM.log_p(), 1),
            "old ones of another answer": lambda: np.concatenate(by_answer(WARM.log_p())[::-1]),
        },
    ),
}
ALL = [(name, bug) for name, (_, _, bugs) in WITNESSES.items() for bug in bugs]


@pytest.mark.parametrize("name", WITNESSES)
def test_what_is_right_passes(name):
    witness, implementation, _ = WITNESSES[name]
    assert witness(implementation) <= EXACT


@pytest.mark.parametrize(("name", "bug"), ALL)
def test_a_planted_bug_is_caught(name, bug):
    witness, _, bugs = WITNESSES[name]
    assert witness(bugs[bug]) > CAUGHT
