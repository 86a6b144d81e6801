"""On policy: prompts and random numbers of phases, what is logged, and what stops a run."""

import numpy as np
import pytest

from minigpt2.alignment import on_policy
from minigpt2.alignment.completions import Completion
from minigpt2.alignment.log_probs import Answer, batch_of_answers, log_probs
from minigpt2.alignment.on_policy import log_ratios_to, require_first_pass, require_kl, summary_of
from minigpt2.alignment.rollout import rollout
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL
from minigpt2.model.initialisation import initialise
from tests.alignment.exact_world import MODEL, PROMPT, by_answer
from tests.alignment.loops import fresh_state, phases, start

ANSWERS = [
    Completion(PROMPT, [0, 2], True, [-0.5, -1.0]),
    Completion(PROMPT, [1, 1, 1], False, [-2.0, -0.25, -0.25]),
    Completion(PROMPT, [2], True, [-1.0]),
    Completion(PROMPT, [0, 1, 0], False, [-1.0, -0.5, -0.5]),
]


def test_a_summary_has_means_over_answers_and_the_entropy_one_over_tokens():
    log_ratios = [np.array(x) for x in ([0.5, 0.5], [-1.0, 0.0, 0.0], [2.0], [0.0, 0.0, 4.0])]
    numbers = summary_of(ANSWERS, [1.0, 2.0, 0.0, 5.0], log_ratios).numbers()
    assert numbers == {"reward": 2, "kl": 1.5, "entropy": 7 / 9, "length": 2.25, "ended": 0.5}
    assert "kl" not in summary_of(ANSWERS, [0.0] * 4, None).numbers()


@pytest.mark.parametrize("at_once", [2, 64])
@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_log_ratios_are_to_the_reference_at_the_temperature_of_the_policy(
    monkeypatch, temperature, at_once
):
    monkeypatch.setattr(on_policy, "AT_ONCE", at_once)
    drawn = phases(fresh_state(), temperature=temperature, samples=5).answers(0)
    for ratio in log_ratios_to(start(), drawn, temperature):  # the policy is the reference
        np.testing.assert_allclose(ratio, 0, atol=1e-12)
    by_reference = by_answer(log_probs(start(), MODEL.batch, temperature))
    for answer, ratio in zip(ANSWERS, log_ratios_to(start(), ANSWERS, temperature), strict=True):
        (exact,) = (
            x
            for x, ids in zip(by_reference, by_answer(MODEL.batch.targets), strict=True)
            if ids.tolist() == answer.ids
        )
        np.testing.assert_allclose(ratio, np.array(answer.log_probs) - exact, atol=1e-12)


def test_phases_take_every_prompt_of_an_epoch_before_the_next():
    prompts = [[1], [0, 1], [1, 1], [0], [1, 0]]
    made = phases(fresh_state(), prompts=prompts, per_phase=3)
    chosen = [i for number in range(5) for i in made.chosen(number)]
    epochs = [chosen[k : k + 5] for k in (0, 5, 10)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert epochs[0] != epochs[1]
    drawn = [answer.prompt for answer in made.answers(1)]
    assert drawn == [prompts[i] for i in made.chosen(1) for _ in range(16)]


def test_each_phase_draws_numbers_of_its_own_which_follow_from_the_seed():
    ids = [
        [answer.ids for answer in phases(fresh_state(seed=seed)).answers(number)]
        for seed, number in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert ids[0] == ids[1] and ids[0] != ids[2] and ids[0] != ids[3]


@pytest.mark.parametrize("off", [[2e-4, 2e-4], [0.0] * 199 + [1.5e-3], [-2e-4, -2e-4]])
def test_ratios_that_are_off_on_average_or_in_one_token_are_noticed(off):
    old = np.full(len(off), -1.0)
    for dtype in (np.float32, np.float64):
        with pytest.raises(UserError, match="must have the ratio 1, but it is off by up to"):
            require_first_pass(old + off, old, dtype)
    require_first_pass(old + off, old, np.float16)
    require_first_pass(old + np.array(off) / 3, old, np.float32)


@pytest.mark.long
def test_rounding_at_124m_stops_no_run():
    config, rng = OFFICIAL["gpt2"], np.random.default_rng(0)
    parameters = initialise(config, rng)
    parameters["ln_f.weight"][:] = 6  # an entropy of 2, as of a model that was trained
    shared = rng.standard_normal(config.n_embd)
    parameters["wte.weight"][:] += (
        3 * shared / np.linalg.norm(shared)
    )  # in the logits of all tokens
    prompts = [rng.integers(0, config.vocab_size, 24).tolist()]
    options = {"stop": config.vocab_size - 1, "max_new_tokens": 12}
    drawn = rollout(parameters, prompts, 4, **options, rng=np.random.default_rng(1))
    old = np.concatenate([answer.log_probs for answer in drawn])
    new = log_probs(parameters, batch_of_answers([Answer(a.prompt, a.ids) for a in drawn]))
    assert 4e-6 < abs(new - old).mean() < on_policy.MEAN_GAP / 4
    require_first_pass(new, old, np.float32)


def test_a_kl_at_its_bound_is_allowed_and_without_a_bound_any():
    summary = summary_of(ANSWERS, [0.0] * 4, [np.full(len(a.ids), 1.0) for a in ANSWERS])
    assert summary.kl == 2.25
    require_kl(summary, 2.25, 1)
    require_kl(summary, 0.0, 1)
    with pytest.raises(UserError, match=r"step 7: .* is 2.25, over the bound of 2 .*max_kl"):
        require_kl(summary, 2.0, 7)
