"""Ahead: a device has work while the host reads the numbers of a step, and the bits stay."""

from itertools import islice

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.data.batches import StepBatches
from minigpt2.device import fake_cupy
from minigpt2.device.captured import CAPTURED
from minigpt2.device.devices import stream_of
from minigpt2.errors import UserError
from minigpt2.training import precision as precision_module
from minigpt2.training import run as run_module
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.state import new_state
from minigpt2.training.step import NotFinite
from minigpt2.training.world import World
from tests.device.test_captured import batch, parameters_of
from tests.kernels.support import SHORT, device, emulated_only, machine, needs_device
from tests.stepping import note_waits
from tests.training.restart import assert_same_bits, numbers_of, reopened

pytestmark = [needs_device, emulated_only]
CONFIG = TrainingConfig(4, 1e-2)


@pytest.fixture
def xp():
    with device(machine()) as library, stream_of(library):
        backend.register(library, CAPTURED)
        yield library


class Data:
    """Two micro-batches a step, which the position tells apart."""

    def __init__(self, events=None, on_policy=False, weightless=()):
        self.events = [] if events is None else events
        self.on_policy = on_policy
        self.weightless = weightless

    def at(self, epoch, position):
        self.events.append(f"made {position}")
        batches = [batch(position), batch(position + 10)]
        if position in self.weightless:
            batches = [b._replace(weights=np.zeros_like(b.weights)) for b in batches]
        return StepBatches(batches, epoch, position + 1)


class Noted(WeightedNLL):
    """The loss of tuning, that notes when a micro-batch is sent."""

    def __init__(self, events):
        self.events = events

    def add_gradients(self, parameters, batch, gradients, options):
        self.events.append("sent")
        return super().add_gradients(parameters, batch, gradients, options)


def events_of(monkeypatch, parameters, config=CONFIG, **options):
    """What a run's steps do, one list a step."""
    events = []
    note_waits(monkeypatch, events)
    steps, state = [], new_state(parameters)
    for _ in take_steps(state, Data(events, **options), Noted(events), config):
        steps.append(events.copy())
        events.clear()
    return steps


def run(xp, *, precision="float32", config=CONFIG, data=None, scale=None):
    """The state at the end of a run, and what its tries reported."""
    state = new_state(parameters_of().on(xp), precision, seed=5)
    state.scale.value = scale or state.scale.value
    with np.errstate(all="ignore"):
        tries = [numbers_of(r) for r in take_steps(state, data or Data(), WeightedNLL(), config)]
    return state, tries


def without_ahead(monkeypatch):
    monkeypatch.setattr(run_module, "begin_next", lambda *_: None)


def test_the_first_micro_batch_of_the_next_step_is_sent_before_the_numbers_are_waited_for(
    xp, monkeypatch
):
    first, *between, last = events_of(monkeypatch, parameters_of().on(xp))
    assert first == ["made 0", "sent", "sent", "made 1", "sent", "waited"]
    assert between == [["sent", f"made {k}", "sent", "waited"] for k in (2, 3)]
    assert last == ["sent", "waited"]


def test_on_a_cpu_nothing_is_sent_ahead(monkeypatch):
    first, *_, last = events_of(monkeypatch, parameters_of())
    assert first == ["made 0", "sent", "sent", "made 1", "waited"]
    assert last == ["sent", "sent", "waited"]


def test_batches_on_policy_wait_for_the_numbers(xp, monkeypatch):
    steps = events_of(monkeypatch, parameters_of().on(xp), on_policy=True)
    assert steps == [[f"made {k}", "sent", "sent", "waited"] for k in range(4)]


@pytest.mark.parametrize("precision", ["float32", *SHORT])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.1}, {"recompute": True}], ids=str)
def test_the_bits_are_those_of_steps_one_after_the_other(xp, monkeypatch, precision, options):
    config = TrainingConfig(4, 1e-2, **options)
    found = run(xp, precision=precision, config=config)
    without_ahead(monkeypatch)
    expected = run(xp, precision=precision, config=config)
    assert found[1] == expected[1]
    assert_same_bits(found[0], expected[0])


@pytest.mark.parametrize("scale", [2.0**24, 2.0**15])
def test_what_was_sent_ahead_with_another_loss_scale_is_forgotten(xp, monkeypatch, scale):
    """After a step that overflowed, and where the scale grows behind its second step."""
    monkeypatch.setattr(precision_module, "GROWTH_INTERVAL", 2)
    config = TrainingConfig(5, 1e-2)
    found = run(xp, precision="float16", config=config, scale=scale)
    without_ahead(monkeypatch)
    expected = run(xp, precision="float16", config=config, scale=scale)
    assert found[1] == expected[1]
    assert (len(found[1]) > 5) == (scale > 2.0**20)
    assert_same_bits(found[0], expected[0])


def test_a_scale_that_grows_is_known_ahead(xp, monkeypatch):
    """So no micro-batch is computed twice: ten for five steps."""
    monkeypatch.setattr(precision_module, "GROWTH_INTERVAL", 2)
    events = []
    state = new_state(parameters_of().on(xp), "float16")
    scales = [
        r.loss_scale for r in take_steps(state, Data(), Noted(events), TrainingConfig(5, 1e-2))
    ]
    assert scales[1] == 2 * scales[0] and events.count("sent") == 10


def test_a_run_that_is_stored_between_two_steps_continues_with_the_same_bits(xp):
    expected = run(xp)
    state = new_state(parameters_of().on(xp), seed=5)
    tries = [numbers_of(r) for r in islice(take_steps(state, Data(), WeightedNLL(), CONFIG), 2)]
    state = reopened(state)
    tries += [numbers_of(r) for r in take_steps(state, Data(), WeightedNLL(), CONFIG)]
    assert tries == expected[1]
    assert_same_bits(state, expected[0])


def test_a_step_whose_next_one_has_nothing_to_learn_from_is_taken_and_reported(xp):
    state, events = new_state(parameters_of().on(xp)), []
    steps = take_steps(state, Data(weightless=(1,)), Noted(events), CONFIG)
    assert next(steps).updated and events == ["sent", "sent"]
    with pytest.raises(UserError, match="step 2: none of its tokens is supervised"):
        next(steps)
    assert state.step == 1


def test_numbers_that_are_not_finite_end_the_run_with_its_last_good_parameters(xp):
    parameters = parameters_of()
    parameters["ln_f.weight"][0] = np.inf
    state = new_state(parameters.on(xp))
    before = xp.asnumpy(state.parameters.flat).tobytes()
    with np.errstate(all="ignore"), pytest.raises(NotFinite, match="step 1: the gradient"):
        next(take_steps(state, Data(), WeightedNLL(), CONFIG))
    assert xp.asnumpy(state.parameters.flat).tobytes() == before


def test_the_processes_of_a_world_add_up_their_normalisers_once_a_step(xp):
    sums = []

    class Counting(World):
        def sum(self, number):
            sums.append(number)
            return number

    list(take_steps(new_state(parameters_of().on(xp)), Data(), WeightedNLL(), CONFIG, Counting()))
    assert len(sums) == CONFIG.steps


def test_numbers_that_nobody_has_waited_for_are_not_there(xp, monkeypatch):
    """What these tests rest on: a copy ends when it is waited for, and not before."""
    monkeypatch.setattr(fake_cupy.cuda.Event, "synchronize", lambda _: None)
    state = new_state(parameters_of().on(xp))
    with pytest.raises(NotFinite):
        next(take_steps(state, Data(), WeightedNLL(), CONFIG))
