"""State: a run goes on from it in the middle of a step, bit for bit."""

from inspect import signature
from math import inf, nan

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.backend import array_module
from minigpt2.data.batches import EpochBatches
from minigpt2.data.loss_weights import LossWeights
from minigpt2.device import fake_cupy
from minigpt2.device.captured import CAPTURED
from minigpt2.device.devices import stream_of
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.training import precision as precision_module
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.precision import LossScale
from minigpt2.training.run import take_steps
from minigpt2.training.state import Best, State, new_moments, new_state
from tests.data.small import example_of
from tests.kernels.support import device, machine, needs_device
from tests.model.cases import CONFIG, RATE, V, random_parameters
from tests.training.restart import (
    Interrupted,
    assert_same_bits,
    broken_run,
    reopened,
    whole_run,
)

RNG = np.random.default_rng(0)
EXAMPLES = [
    example_of(RNG.integers(V, size=prompt), RNG.integers(V, size=answer))
    for prompt, answer in ((3, 1), (1, 6), (4, 2), (2, 5), (5, 3), (1, 1), (4, 4))
]


def data_of(**options):
    """The examples in steps of up to three micro-batches, prompts weighing a third."""
    sizes = {"batch_size": 3, "micro_batch": 1, "seed": 5, **options}
    return EpochBatches(EXAMPLES, loss_weights=LossWeights(1 / 3), **sizes)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("frozen", [(), ("wte.weight", "h.0.attn.c_attn.weight")])
def test_a_run_goes_on_between_any_two_micro_batches_bit_for_bit(recompute, frozen):
    config = TrainingConfig(5, 1e-2, 2, "cosine", dropout=RATE, recompute=recompute)

    def start():
        flat = random_parameters(dtype=np.float32).flat
        return new_state(Parameters(CONFIG, flat, frozen=frozen), seed=5)

    whole, expected = whole_run(start(), data_of(), config)
    state, results, places = broken_run(start(), data_of(), config)
    assert [(step, done) for step, _, done in places] == [
        (step, done) for step, parts in enumerate((3, 3, 1, 3, 3)) for done in range(1, parts)
    ]
    assert results == expected
    assert_same_bits(state, whole)


@needs_device
@pytest.mark.parametrize(
    ("steps", "dropout", "recompute"),
    [
        (2, RATE, False),
        pytest.param(4, RATE, True, marks=pytest.mark.long),
        pytest.param(4, 0.0, False, marks=pytest.mark.long),
        pytest.param(4, 0.0, True, marks=pytest.mark.long),
    ],
)
def test_a_run_in_float16_on_a_device_goes_on_bit_for_bit(monkeypatch, steps, dropout, recompute):
    monkeypatch.setattr(precision_module, "GROWTH_INTERVAL", 1)
    config = TrainingConfig(steps, 1e-2, 1, "linear", dropout=dropout, recompute=recompute)
    width = 8 if dropout else 32  # which is captured in a graph
    small = GPT2Config(V, n_positions=16, n_embd=width, n_layer=1, n_head=1)
    with device(machine()) as library, stream_of(library), np.errstate(all="ignore"):
        backend.register(library, CAPTURED)

        def start():
            parameters = initialise(small, np.random.default_rng(0)).on(library)
            state = new_state(parameters, "float16", seed=5)
            state.scale.value = 2.0**19
            return state

        data = data_of(batch_size=2)
        whole, expected = whole_run(start(), data, config)
        state, results, places = broken_run(start(), data, config)
        scales = [scale for _, scale, _ in places]
        assert scales != sorted(scales) and scales != sorted(scales, reverse=True)  # S moved
        assert results == expected
        assert_same_bits(state, whole)


def test_a_step_whose_micro_batch_failed_begins_again():
    config = TrainingConfig(2, 1e-2, 1, "linear")
    whole, expected = whole_run(new_state(random_parameters()), data_of(), config)

    class Failing(WeightedNLL):
        calls = 0

        def add_gradients(self, *arguments):
            result = super().add_gradients(*arguments)
            self.calls += 1
            if self.calls == 2:
                raise Interrupted
            return result

    state = new_state(random_parameters())
    with pytest.raises(Interrupted):
        next(take_steps(state, data_of(), Failing(), config))
    assert state.partial == []
    assert whole_run(state, data_of(), config)[1] == expected
    assert_same_bits(state, whole)


def test_nothing_changes_between_a_step_and_settle():
    """So a checkpoint can be written meanwhile, from where the arrays are."""
    state, config = new_state(random_parameters(), seed=5), TrainingConfig(3, 1e-2)
    seen = []

    def look():
        seen.append([a.tobytes() for a in (state.parameters.flat, state.m, state.v)])

    for _ in take_steps(state, data_of(), WeightedNLL(), config, between=look, settle=look):
        assert len({str(one) for one in seen}) == 1
        seen.clear()
        look()


def test_settle_may_raise_and_the_step_can_be_taken_again():
    config = TrainingConfig(2, 1e-2, 1, "linear")
    _, expected = whole_run(new_state(random_parameters()), data_of(), config)
    state = new_state(random_parameters())

    def settle():
        raise OSError

    with pytest.raises(OSError):
        next(take_steps(state, data_of(), WeightedNLL(), config, settle=settle))
    assert whole_run(reopened(state), data_of(), config)[1] == expected


def test_a_new_state_is_at_the_beginning_of_a_run_in_float32_with_seed_0():
    parameters = random_parameters(dtype=np.float32)
    state = new_state(parameters)
    assert (state.precision, state.seed, state.scale) == ("float32", 0, LossScale(False, 1.0, 0))
    assert (state.step, state.epoch, state.position) == (0, 0, 0)
    assert (state.partial, state.validated, state.best) == ([], -1, None)
    assert state.compute is state.parameters is parameters and state.rounded_copy is None
    for moment in (state.m, state.v):
        assert moment.dtype == np.float32 and moment.shape == parameters.trainable.shape
        assert not moment.any()


@pytest.mark.parametrize("xp", [np, fake_cupy])
def test_moments_are_where_the_parameters_are(monkeypatch, xp):
    """On a CPU v follows m in memory, as in a checkpoint."""
    monkeypatch.setattr(backend, "LIBRARIES", [fake_cupy])
    theta = xp.asarray(np.ones(5, np.float32))
    m, v = new_moments(theta)
    for moment in (m, v):
        assert array_module(moment) is xp and moment.shape == (5,) and moment.dtype == np.float32
        assert not moment.any()
    if xp is np:
        addresses = [moment.__array_interface__["data"][0] for moment in (m, v)]
        assert addresses[1] == addresses[0] + m.nbytes


def test_a_state_in_16_bits_has_a_rounded_copy_for_the_passes():
    parameters = random_parameters(dtype=np.float32)
    state = new_state(parameters, "float16", seed=3)
    assert (state.precision, state.seed, state.scale) == ("float16", 3, LossScale(True, 2.0**16, 0))
    np.testing.assert_array_equal(state.compute.flat, parameters.flat.astype(np.float16))
    assert np.shares_memory(state.rounded_copy, state.compute.flat)


def test_what_follows_from_a_state_is_no_part_of_it():
    stored = set(signature(State).parameters)
    assert stored & {"compute", "gradients"} == set()
    assert stored >= {"parameters", "m", "v", "scale", "seed", "step", "epoch", "position"}


def test_the_best_validation_and_how_many_came_after_it():
    state = new_state(random_parameters())
    bests = []
    for state.step, loss in enumerate([nan, 3.0, 2.0, nan, 2.0, inf, 1.5, -inf]):
        state.add_validation(loss)
        assert state.validated == state.step
        bests.append(state.best)
    assert bests[:3] == [None, Best(3.0, 1), Best(2.0, 2)]
    assert bests[3:] == [
        Best(2.0, 2, 1),
        Best(2.0, 2, 2),
        Best(2.0, 2, 3),
        Best(1.5, 6),
        Best(1.5, 6, 1),
    ]
