"""Rollouts: what is drawn, with which probability, and that each answer stands alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.alignment import completions
from minigpt2.alignment import rollout as module
from minigpt2.alignment.log_probs import Answer, batch_of_answers, by_answer, log_probs
from minigpt2.alignment.rollout import draw, require_whole_policy, rollout
from minigpt2.errors import UserError
from minigpt2.inference.sampling import Sampling, sample
from minigpt2.model.config import GPT2Config
from minigpt2.model.parameters import Parameters
from tests.alignment import exact_world
from tests.kernels.support import device, emulated_only, machine

CONTEXT, STOP = 14, 5
CONFIG = GPT2Config(vocab_size=23, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=1)
FLAT = np.random.default_rng(5).standard_normal(CONFIG.n_parameters) * 0.3
EXACT = Parameters(CONFIG, FLAT)
PARAMETERS = Parameters(CONFIG, FLAT.astype(np.float32))
PROMPTS = [[3, 1, 4], [7], [3, 1, 4], [3, 1, 6, 9, 2], list(range(12))]


def answers_of(
    parameters=PARAMETERS, prompts=PROMPTS, samples=6, seed=0, most=6, stop=STOP, **options
):
    """A rollout with the numbers of the tests."""
    rng = np.random.default_rng(seed)
    return rollout(parameters, prompts, samples, stop=stop, max_new_tokens=most, rng=rng, **options)


def recomputed(parameters, answers, temperature=1.0):
    """The log-probabilities of each answer's tokens, by a forward pass."""
    batch = batch_of_answers([Answer(answer.prompt, answer.ids) for answer in answers])
    return by_answer(log_probs(parameters, batch, temperature), batch)


def uniform(draws, rows, seed=0):
    """Random logits (draws, rows) and numbers u (draws,)."""
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((draws, rows)), rng.random(draws)


# Drawing.


@given(st.integers(1, 300), st.integers(0, 2**32), st.sampled_from([0.3, 0.7, 1.0, 2.0]))
def test_tokens_are_those_of_the_cumulative_sum(width, seed, temperature):
    logits, u = uniform(5, width, seed)
    tokens, log_p = draw(logits.copy(), u, temperature)
    scaled = logits / temperature
    p = np.exp(scaled - np.logaddexp.reduce(scaled, -1, keepdims=True))
    expected = (p.cumsum(-1) <= u[:, None] * p.sum(-1, keepdims=True)).sum(-1)
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_allclose(log_p, np.log(p[np.arange(5), tokens]), atol=1e-12)


def test_tokens_are_those_of_sampling_with_the_same_numbers():
    logits, u = uniform(4000, 150)

    class Numbers:
        """A generator of the numbers u."""

        def random(self, shape):
            return u.reshape(shape)

    np.testing.assert_array_equal(
        draw(logits.copy(), u, 0.7)[0], sample(logits, Sampling(0.7), Numbers())
    )


@pytest.mark.parametrize("u", [0.0, np.nextafter(1, 0)])
@pytest.mark.parametrize("width", [3, 64, 130])
def test_the_ends_of_the_range_draw_tokens_that_have_a_probability(u, width):
    logits = np.full((1, width), -np.inf, np.float32)
    logits[0, 1:-1] = np.linspace(0, 5, width - 2)
    tokens, log_p = draw(logits, np.array([u]), 1.0)
    assert tokens[0] == (1 if u == 0 else width - 2) and np.isfinite(log_p[0])


def test_shares_of_the_tokens_are_their_probabilities():
    logits, _ = uniform(1, 100)
    n = 20_000
    u = np.random.default_rng(3).random(n)
    tokens, log_p = draw(np.repeat(logits, n, 0), u, 1.0)
    p = np.exp(logits[0] - np.logaddexp.reduce(logits[0]))
    z = (np.bincount(tokens, minlength=100) - n * p) / np.sqrt(n * p * (1 - p))
    assert abs(z).max() < 4.5 and 0.8 < z.std() < 1.2
    assert np.exp(-log_p).mean() == pytest.approx(np.count_nonzero(n * p > 0.01), rel=0.1)


# Rollouts.


def test_whole_answers_come_as_often_as_the_product_of_their_tokens_says():
    parameters, n = Parameters(exact_world.CONFIG, exact_world.MODEL.start), 4000
    rng, prompt = np.random.default_rng(2), exact_world.PROMPT
    options = {"stop": exact_world.END, "max_new_tokens": exact_world.LONGEST, "rng": rng}
    drawn = [tuple(answer.ids) for answer in rollout(parameters, [prompt], n, **options)]
    p = exact_world.probabilities(exact_world.MODEL)
    counts = np.array([drawn.count(answer) for answer in exact_world.ANSWERS])
    assert counts.sum() == n
    assert ((counts - n * p) ** 2 / (n * p)).sum() < 40  # chi-squared with 14 degrees of freedom


def test_answers_come_in_the_order_of_the_prompts():
    answers = answers_of()
    assert [answer.prompt for answer in answers] == [p for p in PROMPTS for _ in range(6)]


def test_answers_end_or_are_cut_in_every_way():
    answers = answers_of()
    for prompt, ids, ended, values in answers:
        assert ended == (ids[-1] == STOP) and STOP not in ids[:-1]
        assert len(values) == len(ids) and max(values) <= 0
        if not ended:
            assert len(ids) == min(6, CONTEXT + 1 - len(prompt))
    lengths = {(answer.ended, len(answer.ids)) for answer in answers}
    assert (False, 6) in lengths and (False, 3) in lengths and any(ended for ended, _ in lengths)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_recorded_log_probabilities_are_those_of_a_forward_pass(temperature):
    for parameters, bound in ((PARAMETERS, 1e-5), (EXACT, 1e-12)):
        answers = answers_of(parameters, samples=20, temperature=temperature)
        again = recomputed(parameters, answers, temperature)
        for answer, expected in zip(answers, again, strict=True):
            np.testing.assert_allclose(answer.log_probs, expected, rtol=0, atol=bound)


def test_another_temperature_is_noticed():
    answers = answers_of(temperature=0.7)
    again = recomputed(PARAMETERS, answers)
    gaps = [abs(np.subtract(a.log_probs, b)).max() for a, b in zip(answers, again, strict=True)]
    assert max(gaps) > 0.1


def test_a_temperature_is_the_same_as_logits_over_it():
    other = Parameters(CONFIG, FLAT.copy())
    for name in ("ln_f.weight", "ln_f.bias"):
        other[name][:] /= 0.7
    ours, theirs = answers_of(EXACT, temperature=0.7), answers_of(other)
    assert [a.ids for a in ours] == [b.ids for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.log_probs, b.log_probs, atol=1e-12)


@pytest.mark.parametrize("least_alive", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_an_answer_does_not_depend_on_those_beside_it(monkeypatch, at_once, least_alive):
    monkeypatch.setattr(completions, "LEAST_ALIVE", least_alive)
    monkeypatch.setattr(module, "answers_at_once", lambda config, rows, itemsize: at_once)
    apart, together = answers_of(EXACT), answers_of_default()
    assert [a[:3] for a in apart] == [b[:3] for b in together]
    for a, b in zip(apart, together, strict=True):
        np.testing.assert_allclose(a.log_probs, b.log_probs, atol=1e-12)


DEFAULT = []


def test_a_long_prompt_whose_answer_ends_first_leaves_room_for_the_others():
    prompts = [[1] * (CONFIG.n_positions - 2), [2], [3], [4], [1, 2], [2, 2], [3, 2], [4, 4]]
    options = {"prompts": prompts, "samples": 1, "most": CONFIG.n_positions - 1}
    ended_first = 0
    for seed in range(20):
        stop = answers_of(seed=seed, stop=-1, **options)[0].ids[0]
        first, *others = answers_of(seed=seed, stop=stop, **options)
        assert first.ids == [stop]
        ended_first += all(len(answer.ids) > 3 for answer in others)
    assert ended_first > 2  # then the idle row is as long as the cache before another answer ends


def answers_of_default():
    """The answers without any change to the module, drawn once."""
    if not DEFAULT:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(completions, "LEAST_ALIVE", 0.75)
            patch.setattr(module, "answers_at_once", lambda config, rows, itemsize: 1000)
            DEFAULT.extend(answers_of(EXACT))
    return DEFAULT


def test_the_same_numbers_draw_the_same_answers():
    assert answers_of() == answers_of()
    assert answers_of() != answers_of(seed=1)
    assert len({tuple(answer.ids) for answer in answers_of(samples=20)}) > 20


def test_each_distinct_prompt_is_computed_once(monkeypatch):
    rows, prefill = [], completions.Cache.prefill

    def noted(cache, prompts):
        rows.append(list(prompts))
        return prefill(cache, prompts)

    monkeypatch.setattr(completions.Cache, "prefill", noted)
    answers_of(samples=8)
    assert rows == [sorted(PROMPTS[1:])]


def test_groups_have_as_many_answers_as_memory_allows(monkeypatch):
    size = 4  # bytes of a number
    row = 2 * 2 * 32 * size
    monkeypatch.setattr(module, "CACHE_BYTES", 10 * 3 * row)
    assert module.answers_at_once(PARAMETERS.config, 3, size) == 10
    assert module.answers_at_once(PARAMETERS.config, 1000, size) == 30 // CONTEXT
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    assert module.answers_at_once(PARAMETERS.config, 3, size) == 1


def test_progress_counts_all_answers():
    finished = []
    answers_of(progress=finished.append)
    assert sum(finished) == 6 * len(PROMPTS) and len(finished) > 1


@emulated_only
def test_a_device_draws_and_computes_the_log_probabilities_again(monkeypatch):
    monkeypatch.setattr(completions, "AT_ONCE", 3)
    options = {"samples": 2, "most": 4, "temperature": 0.7}
    with device(machine()) as xp:
        answers = answers_of(PARAMETERS.on(xp), **options)
    expected = answers_of(**options)
    assert [a[:3] for a in answers] == [b[:3] for b in expected]
    for a, b in zip(answers, expected, strict=True):
        np.testing.assert_allclose(a.log_probs, b.log_probs, rtol=0, atol=1e-5)


# What is refused.


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(0.0), "temperature must be above 0"),
        (Sampling(1.0, top_k=50), "top_k 50 is refused"),
        (Sampling(1.0, top_p=0.9), "top_p 0.9 is refused"),
        (Sampling(1.0, repetition_penalty=1.2), "repetition_penalty 1.2 is refused"),
    ],
)
def test_ways_of_drawing_with_a_wrong_ratio_are_refused(sampling, words):
    with pytest.raises(UserError, match=words):
        require_whole_policy(sampling)


def test_temperatures_above_0_are_policies():
    require_whole_policy(Sampling(0.7))
    with pytest.raises(UserError, match="temperature"):
        answers_of(temperature=0.0)
