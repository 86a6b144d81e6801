"""PPO: its gradient with values and tuning, phases that survive a stop, and the optimum."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.alignment import on_policy, ppo, value_function
from minigpt2.alignment.advantages import gae, token_rewards, whitened
from minigpt2.alignment.kl_objective import adapted
from minigpt2.alignment.log_probs import Answer, batch_of_answers, log_probs
from minigpt2.alignment.ppo import (
    Coefficients,
    PPOObjective,
    Returns,
    is_drawn,
    learn_from,
    losses_of,
    minibatches,
)
from minigpt2.alignment.ppo_phases import Phase, PhaseOptions, PPOData
from minigpt2.alignment.value_function import (
    is_apart,
    values_of,
    with_value_head,
    with_value_model,
)
from minigpt2.data.batches import EpochBatches
from minigpt2.data.examples import Example
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import loss_of
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import head_values, with_heads
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.training.objective import Options
from minigpt2.training.state import new_state
from tests.alignment.exact_world import ANSWERS, PROMPT
from tests.alignment.loops import fresh_state, judged, phases, score, start, steps_of
from tests.kernels.support import device, machine

EXAMPLES = [Example([1, *answer], [False] + [True] * len(answer)) for answer in ANSWERS]
PROMPTS = [[1], [0, 1], [1, 1]]
PLACES = pytest.mark.parametrize("apart", [False, True], ids=["on the policy", "apart"])


def parameters_of(apart, seed=2, dtype=np.float64):
    """The policy of the exact world with a value function that is not 0."""
    policy = start(dtype)
    made = with_value_model(policy, policy) if apart else with_value_head(policy)
    rng = np.random.default_rng(seed)
    for name in ("value.head.weight", "value.head.bias"):
        made[name][...] = rng.standard_normal(made[name].shape)
    return made


def data_of(state, *, options=None, epochs=2, score=score, tuning=None, notes=None, **others):
    """The steps of PPO in the exact world."""
    options = PhaseOptions(**{"minibatches": 2, "micro_batch": 3, **(options or {})})
    made = phases(state, steps_per_phase=epochs * options.minibatches, **others)
    return PPOData(made, score, str, options, reference=start(), tuning=tuning, notes=notes)


DEFAULT = Coefficients()


def run(steps, *, state=None, dtype=np.float64, rate=0.01, coefficients=DEFAULT, **options):
    """The state after so many steps, the results, and the data."""
    state = state or new_state(parameters_of(False, dtype=dtype))
    data = data_of(state, **options)
    objective = PPOObjective(coefficients, data.phases.temperature, data)
    return state, steps_of(state, data, objective, steps, learning_rate=rate), data


def moved(parameters, seed=5, by=0.05):
    """Parameters near by, as after some steps."""
    flat = parameters.flat + by * np.random.default_rng(seed).standard_normal(len(parameters.flat))
    return parameters.like(flat)


# The gradient.


def loss_at(flat, parameters, batches, coefficients, temperature):
    """The loss of a step at any parameters; complex ones, too."""
    parameters = parameters.like(flat)
    z = sum(len(batch.rows) for batch in batches if is_drawn(batch))
    total = 0
    for batch in batches:
        if is_drawn(batch):
            log_p = log_probs(parameters, batch, temperature)
            shares = np.full(len(log_p), 1 / z)
            v = values_of(parameters, batch)
            total = total + losses_of(log_p, v, batch.columns, shares, coefficients)[0]
        else:
            total = total + loss_of(parameters, batch)[0] / z
    return total


LATE = type("Late", (), {"first": False, "numbers": {}})  # a step that is not a phase's first


def gradient_of(parameters, batches, coefficients, temperature, **passes):
    """The gradient of a step."""
    objective, gradients = PPOObjective(coefficients, temperature, LATE), gradients_of(parameters)
    gradients.clear()
    options = Options(normaliser=objective.normaliser(batches), **passes)
    for batch in batches:
        objective.add_gradients(parameters, batch, gradients, options)
    gradients.complete()
    return gradients.flat


def drawn_case(apart, temperature=0.7):
    """Parameters away from those that drew a step's answers, and the batches of that step."""
    parameters = parameters_of(apart)
    tuning = EpochBatches(EXAMPLES, batch_size=6, micro_batch=4)
    data = data_of(
        new_state(parameters),
        options={"tuning": 0.5},
        tuning=tuning,
        temperature=temperature,
        prompts=PROMPTS,
        per_phase=3,
        samples=4,
    )
    return moved(parameters), data.at(0, 0).batches


def errors_of(apart, coefficients=None, temperature=0.7):
    """By how much the gradient is off both witnesses, relative to its length."""
    parameters, batches = drawn_case(apart)
    c = Coefficients(clip=0.2, value_clip=1.0, value=0.4, tuning=0.5)
    arguments = parameters, batches, c, 0.7
    gradient = gradient_of(parameters, batches, coefficients or c, temperature)
    vs = np.random.default_rng(0).standard_normal((6, len(gradient)))
    h, step = 1e-30, 1e-6
    flat = parameters.flat
    exact = np.array([loss_at(flat + 1j * h * v, *arguments).imag / h for v in vs])
    ends = [[loss_at(flat + sign * step * v, *arguments) for v in vs] for sign in (1, -1)]
    central = np.subtract(*ends) / (2 * step)
    size = np.sqrt(np.mean(exact**2))
    return abs(vs @ gradient - exact).max() / size, abs(vs @ gradient - central).max() / size


@PLACES
def test_the_gradient_is_that_of_both_witnesses(apart):
    by_complex_step, by_differences = errors_of(apart)
    assert by_complex_step < 1e-10 and by_differences < 1e-5


def off_by(module, name, change):
    """A bug: what a function returns is changed."""

    def plant(patch):
        right = getattr(module, name)
        patch.setattr(module, name, lambda *args, **options: change(right(*args, **options)))

    return plant


BUGS = {
    "the values' gradient stops at the head": off_by(
        value_function, "read_head_backward", lambda dh: 0 * dh
    ),
    "the sign of the values": off_by(ppo, "value_gradient", lambda dv: -dv),
    "twice the values": off_by(ppo, "value_gradient", lambda dv: 2 * dv),
    "no clip": lambda patch: patch.setattr(
        ppo, "clipped_weights", lambda p, old, a, s, clip: s * a * np.exp(p - old)
    ),
    "the mean of a micro-batch": lambda patch: patch.setattr(
        PPOObjective, "normaliser", lambda self, batches: float(len(batches[0].rows))
    ),
    "examples of tuning count as drawn": lambda patch: patch.setattr(
        PPOObjective, "normaliser", lambda self, batches: float(sum(len(b.rows) for b in batches))
    ),
}


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        (name, apart)
        for name in BUGS
        for apart in (False, True)
        if not (apart and "stops at the head" in name)  # apart, the rows are its own
    ],
)
def test_planted_bugs_are_caught(name, apart, monkeypatch):
    BUGS[name](monkeypatch)
    assert errors_of(apart)[0] > 1e-3


@PLACES
def test_other_constants_and_temperatures_are_caught(apart):
    right = Coefficients(clip=0.2, value_clip=1.0, value=0.4, tuning=0.5)
    for change in ({"clip": 0.05}, {"value_clip": 0.01}, {"value": 1.0}):
        assert errors_of(apart, right._replace(**change))[0] > 1e-3
    assert errors_of(apart, temperature=1.0)[0] > 1e-3


@PLACES
def test_micro_batches_are_one_batch(apart):
    results = []
    for micro_batch in (1, 5, 1000):
        state = new_state(parameters_of(apart))
        data = data_of(state, options={"micro_batch": micro_batch})
        batches = data.at(0, 0).batches
        results.append(gradient_of(moved(state.parameters), batches, Coefficients(), 1.0))
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, atol=1e-13)


@PLACES
def test_recomputation_changes_nothing_and_a_loss_scale_multiplies(apart):
    arguments = *drawn_case(apart), Coefficients(tuning=0.5), 0.7
    flat = gradient_of(*arguments)
    np.testing.assert_array_equal(gradient_of(*arguments, recompute=True), flat)
    np.testing.assert_array_equal(gradient_of(*arguments, loss_scale=64.0), 64 * flat)


def test_the_metrics_of_micro_batches_are_those_of_all_drawn_tokens():
    parameters, batches = drawn_case(False)
    c = Coefficients(clip=0.02, tuning=0.5)
    objective = PPOObjective(c, 0.7, LATE)
    options = Options(normaliser=objective.normaliser(batches))
    into = gradients_of(parameters)
    results = [objective.add_gradients(parameters, batch, into, options) for batch in batches]
    metrics = objective.metrics(batches, results)
    pairs = [(b, *np.split(r, 2)) for b, r in zip(batches, results, strict=True) if is_drawn(b)]
    log_p, v = (np.concatenate(x) for x in list(zip(*pairs, strict=True))[1:])
    columns = {k: np.concatenate([b.columns[k] for b, *_ in pairs]) for k in pairs[0][0].columns}
    rho, a = np.exp(log_p - columns["old"]), columns["advantage"]
    held = ((rho > 1.02) & (a > 0)) | ((rho < 0.98) & (a < 0))
    assert metrics["clipped"] == held.mean() > 0
    m = np.minimum(rho * a, np.clip(rho, 0.98, 1.02) * a)
    assert metrics["policy_loss"] == pytest.approx(-m.mean(), abs=1e-12)
    old, target = columns["value"], columns["return"]
    bounded = old + np.clip(v - old, -0.2, 0.2)
    squares = np.maximum((v - target) ** 2, (bounded - target) ** 2)
    assert metrics["value_loss"] == pytest.approx(squares.mean() / 2, abs=1e-12)


# What a phase learns.


def test_a_phase_learns_from_its_own_answers_values_and_reference():
    parameters = moved(parameters_of(False))
    options = {"beta": 0.3, "returns": Returns(lam=0.8, penalty=0.5)}
    data = data_of(new_state(parameters), options=options, temperature=0.6, samples=6)
    phase = data.new_phase(0, 0)
    ratios, values = [], []
    for answer in phase.answers:  # one by one
        batch = batch_of_answers([Answer(answer.prompt, answer.ids)])
        ratios.append(np.array(answer.log_probs) - log_probs(start(), batch, 0.6))
        values.append(values_of(parameters, batch))
    scores = score(phase.answers, None)
    expected = learn_from(phase.answers, scores, ratios, values, 0.3, options["returns"])
    for ours, alone in zip(phase.learnt, expected, strict=True):
        for a, b in zip(ours, alone, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    assert phase.numbers["kl"] == pytest.approx(np.mean([r.sum() for r in ratios]), abs=1e-12)
    assert phase.numbers["reward"] == pytest.approx(np.mean(scores))


def test_rewards_values_and_advantages_are_those_of_the_chapters():
    answers = [fake([0, 2], True), fake([1, 1, 0], False)]
    ratios = [np.array([0.1, -0.2]), np.array([0.3, 0.0, 0.2])]
    values = [np.array([0.5, 0.4]), np.array([0.1, 0.2, 0.3])]
    learnt = learn_from(answers, [2.0, 3.0], ratios, values, 0.5, Returns(lam=0.9))
    rewards = [token_rewards(2.0, ratios[0], 0.5), token_rewards(2.0, ratios[1], 0.5)]  # 3 − 1
    expected = [gae(r, v, lam=0.9) for r, v in zip(rewards, values, strict=True)]
    white = whitened(np.concatenate(expected))
    np.testing.assert_allclose(np.concatenate([x.advantages for x in learnt]), white)
    for each, advantages, v in zip(learnt, expected, values, strict=True):
        np.testing.assert_allclose(each.returns, advantages + v)
        np.testing.assert_array_equal(each.values, v)


def test_whitened_rewards_keep_their_mean():
    answers = [fake([0, 2], True)]
    (learnt,) = learn_from(
        answers, [4.0], [np.zeros(2)], [np.zeros(2)], 0.5, Returns(lam=1.0, whiten_rewards=True)
    )
    np.testing.assert_allclose(learnt.returns, [4.0 + 0, 3.0], atol=1e-6)  # r = (1, 3)


def fake(ids, ended):
    """An answer with the log-probability −1 for each token."""
    return ppo.Completion(PROMPT, ids, ended, [-1.0] * len(ids))


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000))
def test_minibatches_have_each_answer_once(answers, count, seed):
    parts = minibatches(answers, count, np.random.default_rng(seed))
    assert len(parts) == count
    assert sorted(np.concatenate(parts).tolist()) == list(range(answers))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_epoch_of_a_phase_has_each_answer_in_another_order():
    data = data_of(fresh_with_head(), epochs=3)
    orders = []
    for epoch in range(3):
        steps = [data.at(0, 2 * epoch + b).batches for b in range(2)]
        old = [x for step in steps for batch in step for x in batch.columns["old"]]
        orders.append(old)
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def fresh_with_head():
    """A state of the exact world's policy with a value head on its rows."""
    return new_state(parameters_of(False))


# Phases that are stored.


def test_a_phase_is_the_same_after_json():
    data = data_of(fresh_with_head())
    made = data.new_phase(0, 0)
    prompts = [answer.prompt for answer in made.answers]
    again = Phase.of_json(json.loads(json.dumps(made.as_json())), prompts)
    assert again.answers == made.answers and again.numbers == made.numbers
    for a, b in zip(again.learnt, made.learnt, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_continues_bit_for_bit_in_the_middle_of_a_phase(stop, dtype):
    options = {"options": {"target_kl": 1.0, "horizon": 20.0}, "dtype": dtype}
    whole, results, _ = run(8, **options)
    state = new_state(parameters_of(False, dtype=dtype))
    notes = {}
    for first, last in ((0, stop), (stop, 8)):
        notes = json.loads(json.dumps(notes))
        data = data_of(state, notes=notes, options=options["options"])
        objective = PPOObjective(Coefficients(), 1.0, data)
        for result in ours(state, data, objective, last - first):
            assert result.metrics == results[result.step - 1].metrics
    assert state.parameters.flat.tobytes() == whole.parameters.flat.tobytes()
    assert notes["beta"] != 0.05


def ours(state, data, objective, count):
    """So many steps of a run of 8."""
    from tests.alignment.loops import config, take_steps

    steps = take_steps(state, data, objective, config(8))
    return [next(steps) for _ in range(count)]


def test_the_answers_are_drawn_once_a_phase_by_the_policy_of_its_start():
    seen = []
    state = fresh_with_head()
    data = data_of(state)
    data.observe = lambda number, answers, scores: seen.append((number, len(answers), len(scores)))
    steps_of(state, data, PPOObjective(Coefficients(), 1.0, data), 8)
    assert seen == [(0, 16, 16), (1, 16, 16)]


def test_beta_follows_the_kl():
    _, results, data = run(12, options={"target_kl": 0.5, "horizon": 50.0}, rate=0.05)
    betas = [r.metrics["beta"] for r in results[::4]]
    kls = [r.metrics["kl"] for r in results[::4]]
    after = [adapted(beta, kl, 16, 0.5, 50.0) for beta, kl in zip(betas, kls, strict=True)]
    assert [0.05, *after] == [*betas, data.notes["beta"]]


# What stops a run, and what does not change it.


@PLACES
def test_a_run_without_any_reward_does_not_change_one_bit(apart):
    policy = start(np.float32)
    made = with_value_model(policy, policy) if apart else with_value_head(policy)
    state = new_state(made)
    before = state.parameters.flat.tobytes()
    nothing = {"beta": 0.0, "returns": Returns(penalty=0.0)}
    data = data_of(state, options=nothing, score=lambda answers, prompts: [0.0] * len(answers))
    steps_of(state, data, PPOObjective(Coefficients(), 1.0, data), 6)
    assert state.parameters.flat.tobytes() == before


def test_the_ratio_is_1_in_the_first_step_of_each_phase_alone():
    _, results, _ = run(12, dtype=np.float32, rate=0.05)
    errors = [r.metrics.get("ratio_error") for r in results]
    assert [error is not None for error in errors] == [True, False, False, False] * 3
    assert max(errors[::4]) < 1e-5
    assert max(r.metrics["clipped"] for r in results) > 0 == results[0].metrics["clipped"]


def test_answers_of_another_policy_are_noticed(monkeypatch):
    draws = on_policy.rollout

    def warmer(*arguments, **options):
        return draws(*arguments, **options | {"temperature": 1.3})

    monkeypatch.setattr(on_policy, "rollout", warmer)
    with pytest.raises(UserError, match="must have the ratio 1, but it is off by up to"):
        run(1)


def test_a_kl_over_its_bound_stops_in_words():
    with pytest.raises(UserError, match=r"step \d+: the policy has left .* over the bound of 0.3"):
        run(80, rate=0.2, options={"max_kl": 0.3, "beta": 0.0})


def test_a_reward_that_is_not_a_number_names_the_answer():
    with pytest.raises(UserError, match=r"the reward of an answer is nan, not a number: '\["):
        run(1, score=lambda answers, prompts: [np.nan] * len(answers))


def test_the_metrics_of_a_step():
    tuning = EpochBatches(EXAMPLES, batch_size=4, micro_batch=2)
    coefficients = Coefficients(tuning=0.5)
    options = {"options": {"tuning": 0.5}, "tuning": tuning, "coefficients": coefficients}
    _, results, _ = run(2, **options)
    common = {"loss", "reward", "kl", "entropy", "length", "ended", "beta"}
    common |= {"policy_loss", "value_loss", "clipped", "tuning_loss"}
    assert results[0].metrics.keys() == common | {"ratio_error"}
    assert results[1].metrics.keys() == common
    m = results[1].metrics
    total = m["policy_loss"] + 0.1 * m["value_loss"] + 0.5 * m["tuning_loss"]
    assert m["loss"] == pytest.approx(total)
    assert 0 < m["tuning_loss"] < 3


def test_a_phase_has_whole_epochs():
    with pytest.raises(ValueError, match="whole number of epochs"):
        PPOData(
            phases(fresh_state(), steps_per_phase=3),
            score,
            str,
            PhaseOptions(minibatches=2),
            reference=start(),
        )


# Value functions.


def test_a_value_function_begins_with_0_or_as_the_reward_model():
    policy = start()
    batch = data_of(fresh_with_head()).at(0, 0).batches[0]
    assert not values_of(with_value_head(policy), batch).any()
    assert not values_of(with_value_model(policy, policy), batch).any()
    w = np.random.default_rng(0).standard_normal((1, policy.config.n_embd))
    reward_model = with_heads(policy, {"score.weight": w})
    made = with_value_model(policy, reward_model, bias=0.25)
    assert is_apart(made) and not is_apart(with_value_head(policy))
    on_rows = with_value_head(policy)
    on_rows["value.head.weight"][...], on_rows["value.head.bias"][...] = w, 0.25
    np.testing.assert_array_equal(values_of(made, batch), values_of(on_rows, batch))


@pytest.mark.parametrize(
    "shape",
    [
        {"n_layer": 1},
        {"n_layer": 3, "n_embd": 12, "n_head": 3},
        {"n_head": 1, "layer_norm_epsilon": 0.1},
        {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    ],
    ids=str,
)
def test_a_value_model_may_have_another_shape_than_the_policy(shape):
    policy, rng = start(), np.random.default_rng(0)
    config = replace(policy.config, **{"n_head": 2, **shape})
    flat = 0.5 * rng.standard_normal(config.n_parameters)
    judge = with_heads(
        Parameters(config, flat), {"score.weight": rng.standard_normal((1, config.n_embd))}
    )
    made = with_value_model(policy, judge, bias=0.25)
    made = made.like(made.flat.copy())
    batch = data_of(fresh_with_head()).at(0, 0).batches[0]
    scores = head_values(judge, batch, "score")
    np.testing.assert_allclose(values_of(made, batch), scores + 0.25, atol=1e-12)
    gradients, dv = gradients_of(made), rng.standard_normal(len(batch.rows))
    value_function.policy_and_value_gradients(
        made, batch, gradients, lambda log_p: 0 * log_p, lambda v: dv, Options()
    )
    for name in ("value.wte.weight", "value.h.0.attn.c_attn.weight", "value.head.weight"):
        step = rng.standard_normal(made[name].shape)
        sides = []
        for h in (1e-5, -1e-5):
            made[name][...] += h * step
            sides.append(dv @ values_of(made, batch))
            made[name][...] -= h * step
        slope = (sides[0] - sides[1]) / 2e-5
        assert (gradients[name] * step).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8), name


def test_a_device_takes_value_models_whose_tensors_it_can_read():
    policy = initialise(GPT2Config(11, 4, 16, 1, 1), np.random.default_rng(0))
    with device(machine()) as xp:
        for width, fits in ((16, True), (24, True), (12, False)):
            begin = initialise(GPT2Config(11, 4, width, 1, 1), np.random.default_rng(0)).on(xp)
            if fits:
                assert is_apart(with_value_model(policy.on(xp), begin))
                continue
            with pytest.raises(UserError, match="must be multiples of 8, not 16 and 12"):
                with_value_model(policy.on(xp), begin)
        assert is_apart(with_value_model(policy, begin.on(np)))


# Whole runs.


@pytest.mark.long
@PLACES
def test_a_run_reaches_the_optimum(apart):
    policy = start()
    begin = with_value_model(policy, policy) if apart else with_value_head(policy)
    state, _, _ = run(
        400,
        state=new_state(begin),
        rate=0.02 if apart else 0.01,
        samples=128,
        coefficients=Coefficients(value_clip=10.0, value=1.0 if apart else 0.1),
        options={
            "beta": 0.3,
            "minibatches": 1 if apart else 2,
            "micro_batch": 1000,
            "returns": Returns(lam=1.0, penalty=0.0),
        },
    )
    share, variation = judged(policy_of(state), 0.3)
    assert share > 0.99 and variation < 0.02


def policy_of(state):
    """A state that has the policy alone."""
    policy = fresh_state()
    for name, view in policy.parameters.views.items():
        view[...] = state.parameters[name]
    return policy


def test_cut_answers_become_rare_with_the_penalty_alone():
    _, results, _ = run(
        32,
        rate=0.04,
        samples=32,
        score=lambda answers, prompts: [0.0] * len(answers),
        options={"beta": 0.0, "returns": Returns(penalty=1.0)},
    )
    assert results[0].metrics["ended"] < 0.9 < 0.95 < results[-1].metrics["ended"]
