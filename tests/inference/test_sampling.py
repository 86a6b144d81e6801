"""Sampling: what its chapter claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.errors import UserError
from minigpt2.inference.sampling import Sampling, penalised, sample

LOGITS = np.array([0.3, -1.0, 2.0, 1.1, 0.0, 1.9, -0.4])
P = np.exp(LOGITS) / np.exp(LOGITS).sum()
DRAWS = 20_000
BOUND = 22.46  # a chi-square variable with 6 degrees of freedom is below it 999 times in 1000


def chi_square(drawn, p):
    """Pearson's statistic of the tokens drawn."""
    expected = p * len(drawn)
    return ((np.bincount(drawn, minlength=len(p)) - expected) ** 2 / expected).sum()


def draws(temperature, seed=0, logits=LOGITS, count=DRAWS):
    """Tokens drawn from many equal rows."""
    return sample(np.tile(logits, (count, 1)), Sampling(temperature), np.random.default_rng(seed))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_temperature_1_is_the_models_own_distribution(dtype):
    drawn = draws(1.0, logits=LOGITS.astype(dtype))
    assert chi_square(drawn, P) < BOUND
    assert chi_square(drawn, P[::-1]) > 10 * BOUND  # what another distribution would look like


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_logits_are_divided_by_the_temperature(temperature):
    p = np.exp(LOGITS / temperature)
    assert chi_square(draws(temperature), p / p.sum()) < BOUND
    assert chi_square(draws(temperature), P) > 10 * BOUND


def test_a_large_temperature_comes_close_to_uniform():
    assert chi_square(draws(1e6), np.full(7, 1 / 7)) < BOUND


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300, 5e-324])
def test_a_temperature_close_to_0_is_greedy(temperature, dtype):
    assert (draws(temperature, logits=LOGITS.astype(dtype), count=500) == 2).all()


def test_temperature_0_takes_the_likeliest_and_draws_nothing():
    logits = np.random.default_rng(0).standard_normal((50, 9))
    np.testing.assert_array_equal(sample(logits), logits.argmax(1))
    assert sample(np.array([[1.0, 3.0, 3.0]])).tolist() == [1]


def test_rows_are_drawn_apart():
    logits = np.eye(9) * 100
    np.testing.assert_array_equal(
        sample(logits, Sampling(1.0), np.random.default_rng(0)), np.arange(9)
    )
    drawn = draws(1.0).reshape(2, -1)
    together = (drawn[0] == drawn[1]).mean()  # of independent rows, Σ p²
    assert abs(together - (P**2).sum()) < 5 * 0.5 / np.sqrt(drawn.shape[1])


def test_the_seed_fixes_the_draws():
    first, same, other = (draws(1.0, seed, count=50).tolist() for seed in (0, 0, 1))
    assert first == same != other


class Fixed:
    """Stands for a generator whose uniform numbers are known."""

    def __init__(self, u):
        self.u = u

    def random(self, shape):
        return np.full(shape, self.u)


@pytest.mark.parametrize(
    ("u", "token"), [(0.0, 1), (0.1999, 1), (0.2001, 3), (0.6999, 3), (0.7001, 4), (1 - 2**-53, 4)]
)
def test_the_cumulative_sum_is_inverted(u, token):
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[0.0, 0.2, 0.0, 0.5, 0.3]]))
    assert sample(logits, Sampling(1.0), Fixed(u)).tolist() == [token]


@given(st.integers(0, 999), st.floats(0.01, 100))
def test_a_token_is_always_one_of_the_vocabulary(seed, temperature):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((20, 50)).astype(np.float32) * 30
    drawn = sample(logits, Sampling(temperature), rng)
    assert drawn.shape == (20,) and (drawn >= 0).all() and (drawn < 50).all()
    for u in (0.0, 1 - 2**-53):
        assert (sample(logits, Sampling(temperature), Fixed(u)) < 50).all()


def test_drawing_without_random_numbers_is_refused():
    with pytest.raises(ValueError, match="rng"):
        sample(LOGITS[None], Sampling(1.0))


def drawn_tokens(sampling):
    """The tokens that are ever drawn."""
    rows, rng = np.tile(LOGITS, (3000, 1)), np.random.default_rng(0)
    return set(sample(rows, sampling, rng).tolist())


def test_top_k_keeps_the_k_likeliest():
    assert drawn_tokens(Sampling(1.0, top_k=3)) == {2, 5, 3}
    assert drawn_tokens(Sampling(50.0, top_k=1)) == {2}
    everything = set(range(7))
    assert drawn_tokens(Sampling(50.0)) == drawn_tokens(Sampling(50.0, top_k=7)) == everything
    assert drawn_tokens(Sampling(50.0, top_k=99)) == everything


@pytest.mark.parametrize("threshold", [0.05, 0.35, 0.5, 0.69, 0.9, 0.97, 1.0])
def test_top_p_keeps_the_fewest_likeliest_that_have_so_much_together(threshold):
    order = np.argsort(-P)
    fewest = next(k for k in range(1, 8) if threshold == 1.0 or P[order[:k]].sum() >= threshold)
    fewest = 7 if threshold == 1.0 else fewest
    sampling = Sampling(1.0, top_p=threshold)
    assert drawn_tokens(sampling) == set(order[:fewest].tolist())
    p = np.where(np.isin(np.arange(7), order[:fewest]), P, 0)
    drawn = sample(np.tile(LOGITS, (DRAWS, 1)), sampling, np.random.default_rng(1))
    shares = np.bincount(drawn, minlength=7) / DRAWS
    np.testing.assert_allclose(shares, p / p.sum(), atol=5 * 0.5 / np.sqrt(DRAWS))


def test_top_p_is_measured_after_the_temperature():
    cold = np.exp(LOGITS / 0.2)
    assert (cold / cold.sum())[[2, 5]].sum() > 0.98
    assert drawn_tokens(Sampling(0.2, top_p=0.95)) == {2, 5}


def test_a_repetition_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    row = np.array([[2.0, 1.5, -1.0, -1.1]])
    assert sample(row, Sampling(repetition_penalty=1.5), None, [[0, 0]]).tolist() == [1]
    negative = row[:, 2:]
    assert sample(negative, Sampling(repetition_penalty=1.5), None, [[0]]).tolist() == [1]
    assert row.tolist() == [[2.0, 1.5, -1.0, -1.1]]
    assert sample(row, Sampling(repetition_penalty=1.5), None, [[]]).tolist() == [0]


def test_a_penalty_divides_what_is_positive_and_multiplies_what_is_not():
    rng = np.random.default_rng(0)
    drawn = sample(
        np.tile(LOGITS, (DRAWS, 1)), Sampling(1.0, repetition_penalty=2.0), rng, [[1, 2]] * DRAWS
    )
    changed = LOGITS.copy()
    changed[1], changed[2] = LOGITS[1] * 2, LOGITS[2] / 2
    p = np.exp(changed) / np.exp(changed).sum()
    assert chi_square(drawn, p) < BOUND
    assert chi_square(drawn, P) > 10 * BOUND


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(**values)


EXTREMES = [1e-320, 1e-300, 1e-45, 1e-30, 1e-3, 1.0, 1e3, 1e30, 1e45, 1e300, 1.7e308]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("temperature", EXTREMES)
@pytest.mark.parametrize("more", [{}, {"top_k": 2}, {"top_p": 1e-300}, {"repetition_penalty": 1e6}])
def test_every_temperature_has_its_limit(temperature, dtype, more):
    logits = np.tile(np.array([-6e4, 3.0, 0.0, 6e4, 5.9e4]).astype(dtype), (64, 1))
    sampling, rng = Sampling(temperature, **more), np.random.default_rng(0)
    with np.errstate(over="ignore"):
        drawn = set(sample(logits, sampling, rng, [[0, 1]] * 64).tolist())
    if "top_p" in more and temperature >= 1e30:  # all are alike, and one is enough
        assert len(drawn) == 1
    elif temperature <= 1e-3 or "top_p" in more:
        assert drawn == {3}
    elif temperature >= 1e30:
        assert drawn == ({3, 4} if "top_k" in more else {0, 1, 2, 3, 4})
    else:
        assert drawn <= {3, 4}


@pytest.mark.parametrize("penalty", [1e-6, 1e6])
@pytest.mark.parametrize("logit", [0.0, 100.0, -100.0])
def test_the_largest_penalties_leave_the_others_as_they_are(penalty, logit):
    logits = np.array([[logit, 1.0, 2.0]], np.float32)
    result = penalised(logits, penalty, [[0]])
    assert np.isfinite(result).all() and result[0, 1:].tolist() == [1.0, 2.0]
    larger = logit > 0 if penalty < 1 else logit < 0  # than it was, away from 0
    drawn = sample(
        logits, Sampling(1e-3, repetition_penalty=penalty), np.random.default_rng(0), [[0]]
    )
    assert drawn[0] == (0 if larger and logit > 0 else 2)


@pytest.mark.parametrize("penalty", [1e-300, 9e-7, 1.1e6, 1e300])
def test_a_penalty_out_of_this_world_is_refused(penalty):
    with pytest.raises(UserError, match="repetition_penalty must be from 1e-06 to 1,000,000, not"):
        Sampling(repetition_penalty=penalty)
