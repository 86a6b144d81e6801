"""Log-probabilities: their reduction to signed weights of triples, in whatever forest they are."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.alignment.log_probs import (
    Answer,
    batch_of_answers,
    by_answer,
    log_probs,
    policy_gradients,
    sums_by_answer,
    with_columns,
)
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import gpt2, loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options
from minigpt2.training.state import new_state
from tests.alignment.cases import (
    BATCHES,
    CASES,
    END,
    FIRST,
    GROUPS,
    SECOND,
    TAU,
    smooth,
    smooth_weights,
)
from tests.gradients import (
    CAUGHT,
    assert_exact,
    assert_in_order,
    bugs_of,
    complex_step,
    complex_step_error,
    each_gradient,
    zeros,
)
from tests.kernels.support import SHORT, device, error_of, machine, needs_device
from tests.model.cases import CONFIG, V, random_parameters

EXACT = 1e-10  # for a chain of some thirty ops; one alone agrees to 1e-11
every_gradient = each_gradient(CASES)
ANSWERS = FIRST + SECOND
answers_of = st.lists(
    st.builds(
        Answer,
        st.sampled_from([[1, 2, 3], [1, 2], [9], [9, 1, 4, 4]]),
        st.lists(st.sampled_from([4, 5, END]), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=7,
)


@every_gradient
def test_gradients_agree_with_the_complex_step(case, argument):
    assert_exact(case, argument, EXACT)


@every_gradient
def test_gradients_agree_with_central_differences_to_second_order(case, argument):
    assert_in_order(case, argument)


@every_gradient
def test_every_planted_bug_and_a_gradient_of_zeros_are_caught(case, argument):
    bugs = bugs_of(case, argument)
    assert len(bugs) == len(case.bugs)
    for name, bug in {**bugs, "zeros": zeros}.items():
        found = complex_step_error(case, argument, backward=bug, directions=2)
        assert found.error > CAUGHT, f"{name}: {found}"


def run(parameters, groups, *, recompute=False, temperature=TAU):
    """ln p of all answers, and the gradients of a smooth loss of each answer by itself."""
    gradients, found = gradients_of(parameters), []
    options = Options(recompute=recompute)
    for group in groups:
        batch = batch_of_answers(group)
        into = parameters, batch, gradients, partial(weights_of, batch), options
        log_p = policy_gradients(*into, temperature=temperature)
        found += [part.tolist() for part in by_answer(log_p, batch)]
    gradients.complete()
    return found, gradients.flat


def weights_of(batch, log_p):
    """Weights that depend on an answer's log-probability, its end-of-text, and nothing else."""
    return np.sin(sums_by_answer(log_p, batch))[batch.answers] + (batch.targets == END)


def assert_same(found, expected):
    """Fail unless ln p and gradients are the same but for rounding."""
    for one, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    scale = abs(expected[1]).max()
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-12 * scale)


@given(answers_of)
@settings(max_examples=15)
def test_answers_in_one_forest_are_those_one_by_one(answers):
    parameters = random_parameters()
    assert_same(run(parameters, [answers]), run(parameters, [[answer] for answer in answers]))


def test_micro_batches_are_one_batch():
    parameters = random_parameters()
    assert_same(run(parameters, GROUPS), run(parameters, [ANSWERS]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recomputation_gives_the_same_bits(dtype):
    parameters = random_parameters(dtype=dtype)
    (kept, flat), (again, same) = (run(parameters, GROUPS, recompute=r) for r in (False, True))
    assert kept == again
    np.testing.assert_array_equal(flat, same)


def test_log_probabilities_are_those_of_a_softmax_of_the_logits_over_the_temperature():
    parameters = random_parameters()
    batch = batch_of_answers(ANSWERS)
    for temperature in (1.0, TAU):
        expected = []
        for prompt, ids in ANSWERS:
            plain = batch_of_answers([Answer(prompt, ids)])
            h, _ = gpt2(parameters, plain)
            logits = h[len(prompt) - 1 :] @ parameters["wte.weight"].T / temperature
            p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            expected += np.log(p[np.arange(len(ids)), ids]).tolist()
        found = log_probs(parameters, batch, temperature)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        sums = [sum(part) for part in by_answer(np.array(expected), batch)]
        np.testing.assert_allclose(sums_by_answer(found, batch), sums, atol=1e-12)


def test_the_log_probabilities_of_a_loss_are_those_without_gradients_to_the_bit():
    for dtype in (np.float32, np.float64):
        parameters, batch = random_parameters(dtype=dtype), BATCHES[0]
        into = gradients_of(parameters), partial(weights_of, batch), Options()
        with_gradients = policy_gradients(parameters, batch, *into, temperature=TAU)
        np.testing.assert_array_equal(with_gradients, log_probs(parameters, batch, TAU))
        assert with_gradients.dtype == np.float64


def test_dropout_is_that_of_the_options():
    parameters, batch = random_parameters(), BATCHES[0]
    drawn = []
    for drop, seed in ((0.0, 0), (0.5, 0), (0.5, 0), (0.5, 1)):
        options = Options(drop=drop, rng=np.random.default_rng(seed))
        into = parameters, batch, gradients_of(parameters), np.ones_like, options
        drawn.append(policy_gradients(*into).tolist())
    assert drawn[1] == drawn[2] and drawn[0] != drawn[1] != drawn[3]


def test_with_weights_of_one_it_is_instruction_tuning():
    parameters, batch = random_parameters(), BATCHES[0]
    tuned, aligned = gradients_of(parameters), gradients_of(parameters)
    _, nll = loss_and_gradients(parameters, batch, tuned)
    log_p = policy_gradients(parameters, batch, aligned, np.ones_like, Options())
    np.testing.assert_array_equal(log_p, -nll)
    np.testing.assert_array_equal(aligned.flat, tuned.flat)


def test_the_end_of_text_is_an_action_and_a_prompt_and_equal_answers_are_there_once():
    batch = batch_of_answers(FIRST)
    assert batch.targets[batch.answers == 0].tolist() == [4, 5, END]
    assert batch.targets[batch.answers == 3].tolist() == [8, 2, 2]
    assert batch.answers.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert batch.weights.tolist() == [1] * 11
    assert batch.rows[0] == batch.rows[3] == batch.rows[5] != batch.rows[8]
    assert sorted(batch.ids) == sorted([1, 2, 3, 4, 5, 6, 1, 2, 3, 7, 8, 2])


def test_prompts_that_begin_alike_share_what_they_begin_with():
    long = list(range(10))
    batch = batch_of_answers([Answer([*long, 10], [END]), Answer([*long, 11, 12], [END])])
    assert batch.ids.tolist() == [*long, 10, 11, 12]


@pytest.mark.parametrize("answer", [Answer([], [1]), Answer([1], [])])
def test_an_answer_or_a_prompt_without_a_token_is_refused(answer):
    with pytest.raises(ValueError, match="answer 1, or its prompt, has no token"):
        batch_of_answers([Answer([1], [2]), answer])


@given(answers_of, st.integers(0, 99))
@settings(max_examples=20)
def test_columns_come_back_answer_by_answer(answers, seed):
    rng = np.random.default_rng(seed)
    numbers = [rng.standard_normal(len(answer.ids)).tolist() for answer in answers]
    batch = with_columns(batch_of_answers(answers), old=numbers)
    batch = with_columns(batch, places=[range(len(answer.ids)) for answer in answers])
    assert [part.tolist() for part in by_answer(batch.columns["old"], batch)] == numbers
    assert batch.columns["places"].tolist() == [k for a in answers for k in range(len(a.ids))]
    with pytest.raises(ValueError, match="column old"):
        with_columns(batch, old=[[*numbers[0], 1.0], *numbers[1:]])


def test_without_weights_nothing_is_written():
    parameters = random_parameters()
    gradients = gradients_of(parameters)
    gradients.flat[:] = np.nan
    policy_gradients(parameters, BATCHES[0], gradients, np.zeros_like, Options())
    assert not gradients.holding
    gradients.complete()
    assert not gradients.flat.any()


def test_a_head_on_the_same_rows_adds_its_gradient():
    """The loss of the head is a sum of products of the rows that the triples read with numbers."""
    parameters, batch = random_parameters(), BATCHES[0]
    u = np.random.default_rng(1).standard_normal((len(batch.rows), CONFIG.n_embd))
    rows, _ = gpt2(parameters, batch)

    def head(h, places, gradients):
        np.testing.assert_allclose(h[places], rows[batch.rows], atol=1e-12)
        dh = np.zeros_like(h)
        np.add.at(dh, places, u)
        return dh

    found, alone = gradients_of(parameters), gradients_of(parameters)
    policy_gradients(
        parameters, batch, found, partial(weights_of, batch), Options(), temperature=TAU, head=head
    )
    policy_gradients(
        parameters, batch, alone, partial(weights_of, batch), Options(), temperature=TAU
    )
    direction = np.random.default_rng(2).standard_normal(parameters.flat.shape)

    def loss(flat):
        rows, _ = gpt2(parameters.like(flat), batch)
        return (rows[batch.rows] * u).sum()

    along = complex_step(loss, (parameters.flat,), 0, direction)
    assert (found.flat - alone.flat) @ direction == pytest.approx(along, rel=1e-10)
    only_head = gradients_of(parameters)
    policy_gradients(parameters, batch, only_head, np.zeros_like, Options(), head=head)
    np.testing.assert_allclose(only_head.flat, found.flat - alone.flat, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_a_temperature_must_be_above_zero(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        log_probs(random_parameters(), BATCHES[0], temperature)


def test_the_gradient_of_the_entropy_is_the_one_in_the_chapter_and_no_weight_gives_it():
    logits = np.random.default_rng(0).standard_normal(V)

    def entropy(logits):
        p = np.exp(logits) / np.exp(logits).sum()
        return -(p * np.log(p)).sum()

    p = np.exp(logits) / np.exp(logits).sum()
    dlogits = -p * (np.log(p) + entropy(logits))
    for v in np.eye(V):
        along = complex_step(entropy, (logits,), 0, v)
        assert dlogits @ v == pytest.approx(along, abs=1e-14)
    others = np.delete(dlogits / p, 3)  # w p of a triple with target 3: the same for all others
    assert np.ptp(others) > 0.1


ON_DEVICE = GPT2Config(vocab_size=211, n_positions=64, n_embd=32, n_layer=2, n_head=1)


@needs_device
@pytest.mark.parametrize("precision", ["float32", *SHORT])
@pytest.mark.parametrize("recompute", [False, True])
def test_on_a_device_they_are_those_of_the_cpu(precision, recompute):
    flat = 3 * initialise(ON_DEVICE, np.random.default_rng(1), np.float32).flat
    parameters = Parameters(ON_DEVICE, flat)
    exact = Parameters(ON_DEVICE, flat.astype(np.float64))
    expected, d_expected = run_smooth(exact, gradients_of(exact), 1, False)
    scale = 1024.0 if precision == "float16" else 1.0
    with device(machine()) as xp:
        state = new_state(parameters.on(xp), precision)
        found, d_found = run_smooth(state.compute, state.gradients, scale, recompute)
        again = [log_probs(state.compute, batch, TAU) for batch in BATCHES]
        d_found = xp.asnumpy(d_found)
    np.testing.assert_array_equal(found, np.concatenate(again))
    bounds = {"float32": (1e-5, 2e-5), "float16": (1e-2, 1e-2), "bfloat16": (6e-2, 6e-2)}
    assert abs(found - expected).max() <= bounds[precision][0]
    assert error_of(d_found / scale, d_expected) <= bounds[precision][1]


def run_smooth(parameters, gradients, scale, recompute):
    """ln p and the gradients of the smooth loss of both micro-batches."""
    options, found = Options(loss_scale=scale, recompute=recompute), []
    for batch in BATCHES:
        into = parameters, batch, gradients, partial(smooth_weights, batch=batch), options
        found.append(policy_gradients(*into, temperature=TAU))
    gradients.complete()
    assert np.isfinite(smooth(found[0], BATCHES[0]))
    return np.concatenate(found), gradients.flat
