"""Step: what it changes, what it returns, and what ends a run."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import fields
from itertools import count, islice, repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.data.batches import EpochBatches, batch_of
from minigpt2.device import fake_cupy
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.ops.adamw import AdamW
from minigpt2.training import step as step_module
from minigpt2.training.config import TrainingConfig
from minigpt2.training.micro_batches import gather_gradients
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.schedule import learning_rate
from minigpt2.training.state import State, new_state
from minigpt2.training.step import NotFinite, require_finite, step
from minigpt2.training.world import World
from tests.data.small import example_of
from tests.model.cases import FIRST, RATE, SECOND, V, random_parameters
from tests.stepping import take
from tests.training.windows import EXAMPLES, UNWEIGHTED, cut, run


def test_a_step_without_a_weighted_triple_changes_nothing():
    parameters = random_parameters()
    before = parameters.flat.copy()
    steps = take(parameters, repeat([UNWEIGHTED]), TrainingConfig(2, 0.1, 0, "linear"))
    with pytest.raises(UserError):
        next(steps)
    np.testing.assert_array_equal(parameters.flat, before)


def test_a_step_tells_what_it_did():
    parameters = random_parameters()
    window = [FIRST, UNWEIGHTED, SECOND]
    plan = TrainingConfig(6, 0.01, 2, "cosine", AdamW(clip=0.5))
    expected = run(parameters, window)
    steps = list(take(parameters, repeat(window), plan))
    assert [result.step for result in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].loss == expected[0]
    assert steps[0].gradient_norm == pytest.approx(np.linalg.norm(expected[1].flat))
    for result in steps:
        assert result.learning_rate == learning_rate(result.step, 6, 0.01, 2, "cosine")
        assert result.supervised == len(FIRST.targets) + len(SECOND.targets)
        assert result.rows == len(FIRST.ids) + len(SECOND.ids) + len(UNWEIGHTED.ids)
        assert result.seconds > 0
    assert len({result.loss for result in steps}) == 6


def test_the_seconds_of_a_step_are_those_from_its_beginning_to_its_end(monkeypatch):
    monkeypatch.setattr(step_module, "perf_counter", iter([10.0, 12.5]).__next__)
    result = step(new_state(random_parameters()), [FIRST], WeightedNLL(), TrainingConfig(1, 0.1))
    assert result.seconds == 2.5


def test_a_run_of_which_only_steps_and_rate_are_said():
    """It has no warm-up, a cosine, no dropout and no recomputation."""
    plain = TrainingConfig(9, 0.1)
    assert plain == TrainingConfig(9, 0.1, 0, "cosine", AdamW(), 0.0, False)
    assert plain.recompute is False


def test_each_step_begins_with_gradients_of_0():
    alone, after = random_parameters(), random_parameters()
    list(take(after, repeat([FIRST]), TrainingConfig(1, 1e-3, 0, "linear")))
    norm = np.linalg.norm(run(after, [SECOND])[1].flat)
    second = list(take(alone, iter([[FIRST], [SECOND]]), TrainingConfig(2, 1.5e-3, 3, "linear")))
    # both took their first step with learning rate 0.0005
    assert second[0].learning_rate == learning_rate(1, 1, 1e-3, 0, "linear") == 0.0005
    assert second[1].gradient_norm == pytest.approx(norm, rel=1e-12)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_parameters():
    parameters = random_parameters()
    parameters["ln_f.bias"][0] = np.nan
    before = parameters.flat.copy()
    with pytest.raises(UserError) as error:
        next(take(parameters, repeat([FIRST]), TrainingConfig(2, 0.1, 0, "linear")))
    first = (
        "step 1: the gradient is not finite: the weights that the run begins with, or numbers of "
    )
    first += "its settings, are too large"
    assert str(error.value) == first
    np.testing.assert_array_equal(parameters.flat, before)


@pytest.mark.parametrize(
    ("rate", "decay", "remedy"),
    [
        (0.1, 0.01, "lower the learning rate"),
        (0.1, 100.0, "lower weight_decay"),
        (0.5, 2.0, "lower the learning rate"),  # a step takes whole weights away, and no more
        (1.0, 1.5, "lower weight_decay"),
        (1.5, 1.0, "lower the learning rate"),  # too much without a decay, too
    ],
)
def test_what_helps_where_numbers_grow_without_end(rate, decay, remedy):
    config = TrainingConfig(9, rate, adamw=AdamW(weight_decay=decay))
    state = new_state(random_parameters())
    state.step = 3  # so the weights are those that the run has made
    state.parameters.flat[0] = np.nan
    with pytest.raises(NotFinite) as error:
        step(state, [FIRST], WeightedNLL(), config)
    assert str(error.value) == f"step 4: the gradient is not finite: {remedy}"
    assert error.value.micro_batches == [0]
    with pytest.raises(NotFinite) as error:
        require_finite(state, config)
    assert str(error.value) == f"step 3: the weights are not finite: {remedy}"
    assert not error.value.micro_batches


def with_weights(flat):
    """What `require_finite` reads of a state."""
    return SimpleNamespace(parameters=SimpleNamespace(flat=flat), step=3)


def test_weights_on_a_cpu_are_looked_at_without_an_array_beside_them():
    flat, config = np.ones(2**20, np.float32), TrainingConfig(9, 0.1)
    tracemalloc.start()
    require_finite(with_weights(flat), config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(flat) / 4  # not a byte a weight
    flat[:2] = 1e30, -1e30  # whose squares are too large, and they are not
    require_finite(with_weights(flat), config)
    for wrong in (np.nan, np.inf, -np.inf):
        flat[7] = wrong
        with pytest.raises(NotFinite, match="step 3: the weights are not finite"):
            require_finite(with_weights(flat), config)


def test_weights_on_a_device_are_looked_at_there(monkeypatch):
    def norm_of(g):
        raise AssertionError("this is for a CPU")

    monkeypatch.setattr(backend, "LIBRARIES", [fake_cupy])
    monkeypatch.setattr(step_module, "norm_of", norm_of)
    flat, config = fake_cupy.asarray(np.ones(5, np.float32)), TrainingConfig(9, 0.1)
    require_finite(with_weights(flat), config)
    flat[2] = np.nan
    with pytest.raises(NotFinite, match="step 3: the weights are not finite"):
        require_finite(with_weights(flat), config)


def test_what_an_objective_measures_it_measures_on_the_host(monkeypatch):
    """And None stays where a micro-batch added nothing."""
    seen, send_to_host = [], step_module.send_to_host

    class Noted(WeightedNLL):
        def metrics(self, batches, results):
            seen.extend(results)
            return super().metrics(batches, results)

    copies = []

    def copied(*arrays):
        on_host = send_to_host(*arrays)()
        copies.extend(array if array is None else array.copy() for array in on_host)
        return lambda: copies

    monkeypatch.setattr(step_module, "send_to_host", copied)
    window = [FIRST, UNWEIGHTED, SECOND]
    step(new_state(random_parameters()), window, Noted(), TrainingConfig(1, 0.1))
    first, nothing, second = seen
    assert first is copies[0] and nothing is copies[1] is None and second is copies[2]


def test_a_loss_that_is_not_finite_names_the_micro_batches_at_fault():
    parameters = random_parameters()
    never = next(token for token in range(V) if all(token not in e.ids for e in EXAMPLES[:2]))
    window = [batch_of([e]) for e in EXAMPLES[:2]]
    config = TrainingConfig(2, 0.1)

    class Spoilt(WeightedNLL):
        """The second micro-batch has a result that is not finite, and a gradient that is."""

        def add_gradients(self, _, batch, *rest):
            result = super().add_gradients(_, batch, *rest)
            return result if batch is window[0] else result * np.inf

    with pytest.raises(NotFinite, match="step 1: the loss is not finite: ") as error:
        step(new_state(parameters), window, Spoilt(), config)
    assert error.value.micro_batches == [1]
    parameters["wte.weight"][never] = np.inf  # which only a softmax reads
    with np.errstate(all="ignore"), pytest.raises(NotFinite, match="the gradient is") as error:
        step(new_state(parameters), window, WeightedNLL(), config)
    assert error.value.micro_batches == [0, 1]


@pytest.mark.parametrize("recompute", [False, True])
def test_one_small_batch_is_learnt_by_heart(recompute):
    config = GPT2Config(vocab_size=V, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    parameters = initialise(config, np.random.default_rng(0))
    examples = [example_of([k, 5, 6], [2 * k, k + 3, 22]) for k in range(8)]
    window = [batch_of(examples[:5]), batch_of(examples[5:])]
    plan = TrainingConfig(120, 1e-2, 10, "cosine", AdamW(weight_decay=0.01), recompute=recompute)
    losses = [result.loss for result in take(parameters, repeat(window), plan)]
    assert abs(losses[0] - np.log(V)) < 0.2 and losses[-1] < 0.01


GOLDEN = (
    3.089280973759,
    3.901655055778,
    2.280718091193,
    2.969148715265,
    1.667610026866,
    2.167682280648,
    1.514584611692,
    1.628621373795,
    1.086861017497,
    1.584892116001,
)


def test_ten_losses_from_a_seed_are_what_they_were():
    config = GPT2Config(vocab_size=V, n_positions=16, n_embd=12, n_layer=2, n_head=3)
    rng = np.random.default_rng(2024)
    parameters = initialise(config, rng, np.float64)
    parameters.flat *= 5  # far enough from 0 that every op is curved
    plan = TrainingConfig(10, 0.02, 3, "cosine", AdamW(clip=0.5))
    order = np.random.default_rng(7)
    epochs = [order.permutation(len(EXAMPLES)) for _ in range(5)]
    parts = [(e[:3], e[3:4]) if first else (e[4:],) for e in epochs for first in (True, False)]
    batches = ([batch_of([EXAMPLES[i] for i in part]) for part in both] for both in parts)
    losses = [result.loss for result in take(parameters, batches, plan)]
    assert losses == pytest.approx(GOLDEN, rel=1e-9, abs=0)


def test_a_run_repeats_bit_for_bit():
    found = []
    for _ in range(2):
        parameters = random_parameters(dtype=np.float32)
        data = EpochBatches(EXAMPLES, batch_size=4, micro_batch=2, seed=1)
        plan = TrainingConfig(5, 1e-3, 1, "linear", dropout=0.1, recompute=True)
        state = new_state(parameters, seed=1)
        found.append([result.loss for result in take_steps(state, data, WeightedNLL(), plan)])
    assert found[0] == found[1]


def test_masks_follow_from_the_seed_the_step_and_the_micro_batch_alone():
    plan = TrainingConfig(3, 1e-12, 0, "linear", dropout=RATE)

    def losses(parts, seed):
        steps = take(random_parameters(), repeat(parts), plan, seed=seed)
        return [result.loss for result in steps]

    expected = losses([FIRST, SECOND], seed=3)
    assert len(set(expected)) == 3  # the parameters hardly move: each step has masks of its own
    assert losses([FIRST, SECOND, UNWEIGHTED], seed=3) == expected
    assert losses([FIRST, SECOND], seed=4)[0] != expected[0]
    halves = [FIRST._replace(weights=FIRST.weights / 2)] * 2
    assert losses(halves, seed=3)[0] != losses([FIRST], seed=3)[0]


def test_windows_are_taken_one_a_step():
    taken = count()
    batches = ([FIRST] for _ in taken)
    list(take(random_parameters(), batches, TrainingConfig(3, 1e-3, 1, "linear")))
    assert next(taken) == 3


def test_memory_does_not_grow_after_the_third_step():
    command = [sys.executable, "-m", "tests.training.memory_growth"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    held, peaks = json.loads(done.stdout)
    assert len(held) == len(peaks) == 60
    slack = 16_384  # bookkeeping; one array of a row a token kept each step would be 80,000
    assert max(held[3:]) <= held[2] + slack
    assert max(peaks[3:]) <= peaks[2] + slack


class Advantages(WeightedNLL):
    """Weights that may sum to 0, divided by the number of answers."""

    def normaliser(self, batches):
        return sum(len(set(batch.answers.tolist()) - {-1}) for batch in batches)

    def metrics(self, batches, results):
        pairs = zip(batches, results, strict=True)
        return {"loss": sum(b.weights @ nll for b, nll in pairs if nll is not None)}


def test_weights_that_sum_to_0_are_divided_by_what_the_objective_says():
    parameters = random_parameters()
    state, objective = new_state(parameters), Advantages()
    (batch,) = cut((7,))
    advantages = np.where(batch.answers % 2, -1.0, 1.0)
    signed = batch._replace(weights=advantages - advantages.mean())
    assert abs(signed.weights.sum()) < 1e-12
    expected = gradients_of(parameters)
    loss_and_gradients(parameters, signed, expected)
    gather_gradients(state, [signed], objective, TrainingConfig(1, 0.1))
    answers = objective.normaliser([signed])
    assert answers == 7
    np.testing.assert_allclose(state.gradients.flat, expected.flat / answers, atol=1e-15)
    assert np.isfinite(step(state, [signed], objective, TrainingConfig(1, 0.1)).loss)


class Pair(World):
    """One of two processes, which know what the other one brought."""

    def __init__(self, number, other):
        self.number, self.other = number, other

    def sum(self, number):
        return number + self.number

    def sum_in_place(self, array):
        array += self.other


def test_a_process_whose_micro_batches_have_no_weight_takes_the_step_with_the_others():
    state, other = new_state(random_parameters()), gradients_of(random_parameters())
    other.flat[:] = 1.0
    result = step(
        state, [UNWEIGHTED], WeightedNLL(), TrainingConfig(1, 0.01), Pair(3.0, other.flat)
    )
    assert result.updated and np.isnan(result.loss)
    assert not (state.parameters.flat == random_parameters().flat).any()


def test_two_processes_with_half_of_the_micro_batches_each_take_the_same_step():
    whole = new_state(random_parameters())
    config = TrainingConfig(1, 0.01)
    step(whole, [FIRST, SECOND], WeightedNLL(), config)
    total = FIRST.weights.sum() + SECOND.weights.sum()
    for own, others in ((FIRST, SECOND), (SECOND, FIRST)):
        state = new_state(random_parameters())
        their = gradients_of(state.parameters)
        shares = others._replace(weights=others.weights / total)
        loss_and_gradients(state.parameters, shares, their)
        step(state, [own], WeightedNLL(), config, Pair(others.weights.sum(), their.flat))
        np.testing.assert_allclose(state.parameters.flat, whole.parameters.flat, rtol=1e-12)


def test_a_run_continues_from_its_state_bit_for_bit():
    data = EpochBatches(EXAMPLES, batch_size=3, micro_batch=2, seed=5)
    config = TrainingConfig(9, 1e-2, 2, "cosine", dropout=RATE)
    whole = new_state(random_parameters(dtype=np.float32), seed=5)
    expected = [one.loss for one in take_steps(whole, data, WeightedNLL(), config)]
    state = new_state(random_parameters(dtype=np.float32), seed=5)
    losses = [one.loss for one in islice(take_steps(state, data, WeightedNLL(), config), 4)]
    stored = {f.name: getattr(state, f.name) for f in fields(State) if f.init}
    stored["parameters"] = state.parameters.like(state.parameters.flat.copy())
    stored |= {name: stored[name].copy() for name in ("m", "v")}
    again = State(**stored)  # all that a checkpoint would hold
    again_data = EpochBatches(EXAMPLES, batch_size=3, micro_batch=2, seed=5)
    losses += [one.loss for one in take_steps(again, again_data, WeightedNLL(), config)]
    assert losses == expected
    np.testing.assert_array_equal(again.parameters.flat, whole.parameters.flat)
    np.testing.assert_array_equal(again.v, whole.v)


def test_a_step_that_overflows_in_float16_is_not_counted():
    state = new_state(random_parameters(dtype=np.float32), "float16")
    before = state.parameters.flat.copy()
    state.scale.value = 2.0**100
    with np.errstate(all="ignore"):
        result = step(state, [FIRST], WeightedNLL(), TrainingConfig(9, 1e-2))
    assert not result.updated and (result.step, state.step) == (1, 0)
    assert state.scale.value == result.loss_scale == 2.0**99
    np.testing.assert_array_equal(state.parameters.flat, before)
    state.scale.value = 2.0**4
    again = step(state, [FIRST], WeightedNLL(), TrainingConfig(9, 1e-2))
    assert again.updated and (again.step, state.step) == (1, 1)
    assert again.learning_rate == result.learning_rate and again.loss_scale == 2.0**4


def test_a_step_in_float16_has_the_norm_of_the_unscaled_gradient_and_rounds_the_new_weights():
    wide, config = new_state(random_parameters(dtype=np.float32)), TrainingConfig(9, 1e-2)
    state = new_state(random_parameters(dtype=np.float32), "float16")
    state.scale.value = 2.0**4
    before = state.compute.flat.copy()
    norms = [step(s, [FIRST], WeightedNLL(), config).gradient_norm for s in (wide, state)]
    assert norms[1] == pytest.approx(norms[0], rel=0.01)
    np.testing.assert_array_equal(state.compute.flat, state.parameters.flat.astype(np.float16))
    assert not (state.compute.flat == before).any()


def test_a_run_whose_steps_overflow_takes_all_of_them_from_all_examples(capsys):
    """It ends where a run ends whose loss scale was right from the start."""

    def results(scale):
        state = new_state(random_parameters(dtype=np.float32), "float16", seed=3)
        state.scale.value = scale
        data = EpochBatches(EXAMPLES, batch_size=4, micro_batch=2, seed=1)
        plan = TrainingConfig(5, 1e-2, 2, dropout=0.1)
        with np.errstate(all="ignore"):
            taken = list(take_steps(state, data, WeightedNLL(), plan))
        return state, taken

    (whole, right), (state, tries) = results(2.0**4), results(2.0**30)
    steps = [result for result in tries if result.updated]
    assert len(tries) > len(steps) == 5
    assert [result.step for result in steps] == [1, 2, 3, 4, 5]
    assert [result.loss for result in steps] == pytest.approx([r.loss for r in right], abs=1e-3)
    for name in ("step", "epoch", "position"):
        assert getattr(state, name) == getattr(whole, name)


@pytest.mark.parametrize(
    ("precision", "remedy"),
    [
        (
            "float16",
            "its numbers are too large for float16, with any loss scale: use bfloat16 or float32",
        ),
        (
            "float32",
            "the weights that the run begins with, or numbers of its settings, are too large",
        ),
    ],
)
def test_a_gradient_that_is_never_finite_is_told_with_what_to_do(precision, remedy):
    parameters = random_parameters(dtype=np.float32)
    parameters["ln_f.weight"][...] = 1e30
    with np.errstate(all="ignore"):
        state = new_state(parameters, precision)
    data = EpochBatches(EXAMPLES, batch_size=4, micro_batch=4)
    tries = take_steps(state, data, WeightedNLL(), TrainingConfig(5, 1e-2))
    with np.errstate(all="ignore"), pytest.raises(UserError) as error:
        for result in tries:
            assert not result.updated
    assert str(error.value) == f"step 1: the gradient is not finite: {remedy}"
    assert state.step == 0


def test_frozen_tensors_are_not_trained():
    source = random_parameters()
    frozen = [name for name in source.views if name.startswith("h.0.")] + ["wte.weight"]
    parameters = Parameters(source.config, np.empty_like(source.flat), frozen=frozen)
    for name, view in parameters.views.items():
        view[...] = source[name]
    list(take(parameters, repeat([FIRST, SECOND]), TrainingConfig(3, 1e-2)))
    for name, view in parameters.views.items():
        assert (view == source[name]).all() == (name in frozen), name
