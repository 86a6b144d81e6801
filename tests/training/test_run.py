"""Run: when the batches of a step are made, and when a run validates, saves and stops early."""

from math import nan

import numpy as np
import pytest

from minigpt2.data.batches import EpochBatches, StepBatches
from minigpt2.errors import UserError
from minigpt2.training import run as run_module
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.precision import LossScale
from minigpt2.training.run import Every, Hooks, Timer, finished, run_steps, take_steps
from minigpt2.training.state import Best, new_state
from minigpt2.training.world import ONE_PROCESS, World
from tests.data.small import example_of
from tests.model.cases import V, random_parameters
from tests.stepping import note_waits

RNG = np.random.default_rng(0)
EXAMPLES = [example_of(RNG.integers(V, size=2), RNG.integers(V, size=3)) for _ in range(5)]


class Noted:
    """Batches that note when each step's are made."""

    def __init__(self, events):
        self.batches = EpochBatches(EXAMPLES, batch_size=2, micro_batch=1)
        self.events = events

    def at(self, epoch: int, position: int) -> StepBatches:
        self.events.append(f"made {epoch}.{position}")
        return self.batches.at(epoch, position)


class OnPolicy(Noted):
    """Batches that depend on the weights."""

    on_policy = True


def events_of(monkeypatch, steps, taken, data=Noted):
    """What happens in which order in a run, of which so many steps are asked for."""
    events = []
    note_waits(monkeypatch, events)
    state = new_state(random_parameters())
    config = TrainingConfig(steps, 1e-3)
    run = take_steps(state, data(events), WeightedNLL(), config)
    for _ in range(taken):
        next(run)
    assert taken < steps or not list(run)
    return events, state


def test_the_next_batches_are_made_before_a_step_is_waited_for(monkeypatch):
    events, state = events_of(monkeypatch, steps=4, taken=4)
    assert events == [
        *("made 0.0", "made 0.2", "waited", "made 0.4", "waited", "made 1.0", "waited"),
        "waited",  # nothing follows the last step
    ]
    assert (state.epoch, state.position) == (1, 2)


def test_the_state_is_that_of_the_steps_taken_not_of_the_batches_made(monkeypatch):
    events, state = events_of(monkeypatch, steps=9, taken=2)
    assert events[-2:] == ["made 0.4", "waited"]
    assert (state.step, state.epoch, state.position) == (2, 0, 4)


def test_batches_on_policy_are_made_when_the_weights_are_those_of_their_step(monkeypatch):
    events, state = events_of(monkeypatch, steps=3, taken=3, data=OnPolicy)
    assert events == ["made 0.0", "waited", "made 0.2", "waited", "made 0.4", "waited"]
    assert (state.step, state.epoch, state.position) == (3, 1, 0)


def test_a_try_that_overflows_is_repeated_with_the_same_batches_on_policy():
    class Overflows(WeightedNLL):
        """The gradients of the first micro-batch are too large."""

        def add_gradients(self, parameters, batch, gradients, options):
            nll = super().add_gradients(parameters, batch, gradients, options)
            if options.loss_scale == 4:
                gradients["ln_f.bias"][0] = np.inf
            return nll

    events, state = [], new_state(random_parameters())
    state.scale.dynamic, state.scale.value = True, 4.0  # as in float16
    run = take_steps(state, OnPolicy(events), Overflows(), TrainingConfig(2, 1e-3))
    assert [next(run).updated for _ in range(3)] == [False, True, True]
    assert events == ["made 0.0", "made 0.2"]


def test_the_next_batches_are_prepared_for_the_parameters_of_the_passes(monkeypatch):
    """On a device that sends what they need, while the step before is computed."""
    calls = []
    monkeypatch.setattr(run_module, "prepare", lambda *arguments: calls.append(arguments))
    _, state = events_of(monkeypatch, steps=3, taken=3)
    data = Noted([])
    expected = [data.at(0, 2).batches, data.at(0, 4).batches]
    for (parameters, batches), those in zip(calls, expected, strict=True):
        assert parameters is state.compute
        for batch, that in zip(batches, those, strict=True):
            np.testing.assert_array_equal(batch.ids, that.ids)


class Recorded:
    """A run of seven steps on one state, and what its hooks were called for."""

    def __init__(self, *, losses=(), breaks=(), save_at=(), minutes=(), **every):
        self.state = new_state(random_parameters())
        self.every = Every(**{"log": 0, **every})
        self.losses = iter(losses)
        self.minutes = iter(minutes)
        self.breaks = list(breaks)
        self.advances = []
        self.world = ONE_PROCESS
        self.events = []

    def note(self, event):
        """Note a call; raises if the run is to be stopped there."""
        self.events.append(event)
        if event in self.breaks:
            self.breaks.remove(event)
            raise KeyboardInterrupt

    def validate(self, number):
        assert number == self.state.step
        self.note(f"validate {number}")
        return next(self.losses)

    def between(self):
        state = self.state
        self.note(f"between {state.step}" + ("+" if state.partial else ""))

    def go(self, *, steps=7, validates=True, quiet=("between", "log")):
        """Take the steps that are left; returns the calls, without the quiet ones."""
        hooks = Hooks(
            log=lambda result, printed: self.note(f"log {result.step}" + " printed" * printed),
            save=lambda: self.note(f"save {self.state.step}"),
            validate=self.validate if validates else None,
            between=self.between,
            advance=self.advances.append,
        )
        data = EpochBatches(EXAMPLES, batch_size=2, micro_batch=1)
        config = TrainingConfig(steps, 1e-3)
        clock = (lambda: 60.0 * next(self.minutes)) if self.every.save_minutes else None
        run_steps(
            self.state,
            data,
            WeightedNLL(),
            config,
            every=self.every,
            hooks=hooks,
            world=self.world,
            **({"clock": clock} if clock else {}),
        )
        assert finished(self.state, config, self.every)
        shown = [event for event in self.events if not event.startswith(quiet)]
        self.events.clear()
        return shown


def test_a_run_logs_validates_saves_and_then_may_be_interrupted():
    run = Recorded(losses=[3.0, 2.0, 1.0], log=2, validate=2, save=2)
    assert run.go(steps=3, quiet=("nothing",)) == [
        "validate 0",
        *("between 0+", "log 1 printed", "between 1"),
        *("between 1+", "log 2 printed", "validate 2", "save 2", "between 2"),
        *("log 3 printed", "validate 3", "save 3", "between 3"),
    ]
    assert run.advances == [1, 1, 1]


def test_a_run_that_says_nothing_prints_every_tenth_step_and_saves_once():
    assert tuple(Every()) == (10, 0, 0, 0, 0)
    printed, saved = [], []

    def log(result, is_printed):
        printed.extend([result.step] * is_printed)

    run = Recorded()
    hooks = Hooks(log=log, save=lambda: saved.append(run.state.step))
    assert hooks.validate is None
    data = EpochBatches(EXAMPLES, batch_size=2, micro_batch=1)
    config = TrainingConfig(12, 1e-3)
    run_steps(run.state, data, WeightedNLL(), config, every=Every(), hooks=hooks)
    assert (printed, saved) == ([1, 10, 12], [12])


def test_a_run_saves_every_so_many_steps():
    assert Recorded(save=3).go(validates=False) == ["save 3", "save 6", "save 7"]


def test_a_try_that_overflows_in_float16_is_printed(monkeypatch):
    update = LossScale.update

    def too_large(scale, finite):
        goes_on = update(scale, finite)
        scale.value *= 64 if finite else 1  # the next step overflows first
        return goes_on

    monkeypatch.setattr(LossScale, "update", too_large)
    run = Recorded(log=3)
    run.state = new_state(random_parameters(dtype=np.float32), "float16")
    run.state.scale.value = 2.0**24
    with np.errstate(all="ignore"):
        calls = run.go(validates=False, steps=4, quiet=("between", "save"))
    assert [call for call in calls if "printed" not in call] == ["log 2"]  # the step itself
    assert "log 2 printed" in calls


def test_the_processes_of_a_run_sum_their_normalisers():
    class Counting(World):
        sums = 0

        def sum(self, number):
            self.sums += 1
            return number

    run = Recorded()
    run.world = Counting()
    run.go(validates=False, steps=4)
    assert run.world.sums == 4


def test_a_timer_counts_from_its_start():
    now = [1000.0]
    timer = Timer(2, clock=lambda: now[0])
    for now[0], due in ((1000, (False, False)), (1120, (True, False)), (1240, (True, True))):
        assert (timer.due(), timer.due(times=2)) == due
    timer.restart()
    assert not timer.due() and not Timer(0, clock=lambda: now[0]).due()


def test_a_run_validates_and_saves_at_the_end_whatever_its_settings():
    run = Recorded(losses=[3.0, 2.0])
    assert run.go() == ["validate 0", "validate 7", "save 7"]
    assert run.state.best == Best(2.0, 7) and run.state.validated == 7
    assert Recorded().go(validates=False) == ["save 7"]


def test_a_run_that_is_finished_does_nothing():
    run = Recorded(losses=[3.0, 2.0])
    run.go()
    assert run.go(quiet=()) == []


@pytest.mark.parametrize("place", [0, 4, 7])
def test_a_run_that_was_stopped_while_it_validated_begins_with_that(place):
    losses = [3.0, 2.0, 1.0, 0.5, 0.2]
    whole = Recorded(losses=losses, validate=2, save=2).go(quiet=("between",))
    run = Recorded(losses=losses, validate=2, save=2, breaks=[f"validate {place}"])
    with pytest.raises(KeyboardInterrupt):
        run.go()
    assert run.state.step == place and run.state.validated < place
    before, run.events = [e for e in run.events if "between" not in e], []
    assert before[:-1] + run.go(quiet=("between",)) == whole
    assert run.state.best == Best(0.2, 7)


def test_a_run_that_was_stopped_elsewhere_logs_and_validates_nothing_twice():
    losses = [3.0, 2.0, 1.0, 0.5, 0.2]
    options = {"validate": 2, "save": 3, "log": 2}
    whole = Recorded(losses=losses, **options).go(quiet=("between",))
    places = [f"between {step}{more}" for step in range(7) for more in ("", "+")]
    missing = {"between 0", "between 2+", "between 5+"}  # the last step of an epoch has one part
    run = Recorded(losses=losses, **options, breaks=set(places) - missing)
    calls = []
    while run.breaks:
        try:
            calls += run.go(quiet=("between",))
        except KeyboardInterrupt:
            calls += [event for event in run.events if "between" not in event]
            run.events.clear()
    assert calls + run.go(quiet=("between",)) == whole


def test_a_run_without_an_improvement_stops_early_and_is_finished():
    run = Recorded(losses=[3.0, 2.0, 2.5, nan, 2.0, 9.9], validate=1, patience=3)
    expected = ["validate 0", "validate 1", "save 1", "validate 2", "validate 3", "validate 4"]
    assert run.go() == [*expected, "save 4"]
    assert run.state.best == Best(2.0, 1, since=3)
    assert run.go(quiet=()) == []


def test_without_patience_no_run_stops_early():
    run = Recorded(losses=[3.0] + [4.0] * 7, validate=1)
    assert run.go()[-1] == "save 7"
    assert run.state.best == Best(3.0, 0, since=7)


def test_a_run_saves_when_so_many_minutes_have_passed_since_it_saved_last():
    ticks = iter(range(100))
    run = Recorded(save_minutes=4, save=5, minutes=ticks)
    # Each look at the clock takes a minute: after each step, and between its micro-batches.
    calls = run.go(validates=False, quiet=("log",))
    assert calls[:5] == ["between 0+", "between 1", "between 1+", "save 2", "between 2"]
    saves = [event for event in calls if event.startswith("save")]
    assert "save 5" in saves and saves[-1] == "save 7"


def test_in_a_step_that_takes_long_it_saves_between_two_micro_batches():
    run = Recorded(save_minutes=4, minutes=iter(range(0, 1000, 8)))
    calls = run.go(steps=1, validates=False, quiet=("log",))
    assert calls == ["between 0+", "save 0", "save 1", "between 1"]


def test_weights_that_are_not_finite_are_never_saved():
    run = Recorded(save_minutes=1, minutes=iter(range(0, 1000, 9)))

    def spoil():
        run.state.parameters.flat[0] = nan

    run.between = spoil
    with pytest.raises(UserError) as error:
        run.go(validates=False)
    assert str(error.value) == "step 0: the weights are not finite: lower the learning rate"
    assert "save 0" not in run.events


@pytest.mark.parametrize("often", [{"validate": 2}, {"save": 2}, {"validate": 2, "save": 2}])
def test_weights_that_are_not_finite_are_neither_validated_nor_saved(often):
    run = Recorded(losses=[3.0, 2.0], **often)

    def note(event):
        run.events.append(event)
        if event.startswith("log 2"):
            run.state.parameters.flat[0] = nan

    run.note = note
    with pytest.raises(UserError) as error:
        run.go(steps=4)
    assert str(error.value) == "step 2: the weights are not finite: lower the learning rate"
    assert [event for event in run.events if not event.startswith(("log", "between"))] == [
        "validate 0"
    ]


def test_each_step_settles_before_it_changes_what_may_still_be_written():
    settled, run = [], Recorded()

    def settle():
        settled.append(run.state.step)

    hooks = Hooks(log=lambda *_: None, save=lambda: None, settle=settle)
    data = EpochBatches(EXAMPLES, batch_size=2, micro_batch=1)
    config = TrainingConfig(3, 1e-3)
    run_steps(run.state, data, WeightedNLL(), config, every=Every(), hooks=hooks)
    assert settled == [0, 1, 2]
