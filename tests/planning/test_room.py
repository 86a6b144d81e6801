"""Room: a run that does not fit is refused or warned of before its first step, in one line."""

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from minigpt2.alignment.pair_batches import PairBatches
from minigpt2.alignment.pairs import Pair
from minigpt2.data.batches import FIRST_EPOCHS, EpochBatches
from minigpt2.data.examples import Example
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, TINY
from minigpt2.planning import room
from minigpt2.planning.alignment_memory import Needs
from minigpt2.planning.available import Available
from minigpt2.planning.batch_profile import RunShape, profile
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, memory, peak, state_bytes
from minigpt2.planning.room import (
    Room,
    bound_of,
    check_answers,
    check_pairs,
    check_step,
    largest_of,
    nothing_fits,
    require_state,
)

WIDE = replace(TINY, n_layer=40)  # whose activations take most of the memory
SHAPE = RunShape(context=256, batch_size=8, micro_batch=8)


def batches(*lengths, batch_size=8, micro_batch=8):
    """Examples of these lengths, that share nothing."""
    examples = [
        Example([k % 4000, *range(1, n)], [False] + [True] * (n - 1)) for k, n in enumerate(lengths)
    ]
    return EpochBatches(examples, batch_size=batch_size, micro_batch=micro_batch)


def needed(config, rows, program=0, recompute=False):
    """The bytes of a step."""
    return peak(memory(config, MicroBatch(rows, rows), MemoryOptions(recompute), program))


@pytest.fixture
def machine(monkeypatch):
    """A function that gives this machine so much memory, of which so much is free.

    This process seems to hold little, whatever other tests have left in it.
    """
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=100 << 20))
    monkeypatch.setattr(room.psutil, "Process", lambda: process)

    def has(whole, free):
        monkeypatch.setattr(
            room, "memory_of_device", lambda library: Available("this machine", whole, free)
        )

    return has


def check(config, data, shape=SHAPE, steps=100):
    """What is said of a run on this processor."""
    return check_step(config, np, "float32", data, shape, steps)


def test_a_step_that_fits_is_not_even_laid_out(machine, monkeypatch):
    machine(10**12, 10**11)
    data = batches(*[200] * 16)
    monkeypatch.setattr(data, "lay_out", None)
    assert check(WIDE, data) is None


def test_a_step_that_takes_more_than_there_is_is_refused_with_what_fits(machine):
    data = batches(*[250] * 16)
    whole = int(0.6 * needed(WIDE, 2000))
    machine(whole, whole)
    text = (
        r"a step would take [\d.]+ [GM]B, but this machine has [\d.]+ [GM]B: "
        r"--micro-batch (\d) --recompute (true|false) takes [\d.]+ [GM]B$"
    )
    with pytest.raises(UserError, match=text) as error:
        check(WIDE, data)
    options = re.search(text, str(error.value))
    smaller = batches(*[250] * 16, micro_batch=int(options[1]))
    shape = SHAPE._replace(micro_batch=int(options[1]), recompute=options[2] == "true")
    check(WIDE, smaller, shape)  # is not refused


def test_a_step_that_takes_more_than_is_free_is_warned_of(machine):
    machine(10**11, 10**9)
    text = check(WIDE, batches(*[250] * 16))
    assert re.match(
        r"a step takes \d\.\d\d GB, but this machine has \d\.\d\d GB free for it: --micro-b", text
    )


def test_a_shorter_context_is_named_where_nothing_else_helps(machine):
    data, shape = batches(250, 250, micro_batch=1), SHAPE._replace(micro_batch=1, recompute=True)
    free = needed(WIDE, 100, recompute=True) - state_bytes(WIDE)
    machine(10**11, free)
    assert ": --context " in check(WIDE, data, shape)


def test_the_estimate_may_be_a_tenth_too_high(machine):
    def remedy(most):
        return f"{most} bytes"

    for whole, refused in ((899, True), (901, False)):
        space = Room(Available("the GPU", whole, whole))
        if refused:
            with pytest.raises(UserError, match=r"would take .*the GPU has .*: 899 bytes"):
                space.require(1000, "a step", remedy)
        else:
            assert space.require(1000, "a step", remedy).endswith("free for it: 901 bytes")
    assert Room(Available("the GPU", 1000, 400), held=600).require(1000, "a step", remedy) is None
    assert Room(Available("the GPU", 1000, 400), held=500).require(1000, "a step", remedy)


def test_large_with_recomputation_runs_on_14_gb():
    step = needed(OFFICIAL["gpt2-large"], 1024, 100_000_000, recompute=True)
    assert (
        Room(Available("this machine", 14 * 10**9, 14 * 10**9)).require(step, "a step", str) is None
    )


def test_an_emulated_device_is_not_counted(monkeypatch):
    monkeypatch.setattr(room, "memory_of_device", lambda library: None)
    assert check(WIDE, batches(250)) is None


def test_the_bound_is_above_every_micro_batch_and_the_largest_is_that_of_the_epoch():
    rng = np.random.default_rng(0)
    data = batches(*map(int, rng.integers(2, 200, 100)), micro_batch=3)
    shape = RunShape(context=256, batch_size=8, micro_batch=3)
    counted = profile(shape, data.examples).largest
    assert largest_of(data, FIRST_EPOCHS * data.steps) == counted
    assert largest_of(data, data.steps).rows < counted.rows
    assert bound_of(data).rows >= counted.rows and bound_of(data).supervised >= counted.supervised
    first = largest_of(data, 1)
    assert first.rows <= counted.rows
    parts = data.examples_at(0, 0)
    assert first.rows == max(sum(len(e.ids) - 1 for e in part) for part in parts)


def test_what_fits_where_nothing_of_a_run_does():
    counter = partial(memory, program=0)
    text = nothing_fits(OFFICIAL["gpt2-large"], 10**10, counter)
    assert re.search(r"alone take 12\.\d\d GB; gpt2-medium would$", text)
    assert nothing_fits(OFFICIAL["gpt2"], 10**6, counter).endswith("; take a smaller model")


def test_a_model_that_cannot_be_trained_here_is_refused_before_its_moments_are_made(machine):
    machine(8 * 10**9, 0)
    text = r"and moments would take 12\.38 GB, but this machine has 8\.00 GB: gpt2-medium would$"
    with pytest.raises(UserError, match=text):
        require_state(OFFICIAL["gpt2-large"], np)
    require_state(OFFICIAL["gpt2-medium"], np)


def test_pairs_that_do_not_fit_are_refused_with_what_does(machine):
    pairs = [Pair([1] * 100, [2] * 50, [3] * 50)] * 8
    epochs = PairBatches(pairs, batch_size=8, micro_batch=8)
    arguments = WIDE, np, "float32", epochs, MemoryOptions()
    machine(10**12, 10**12)
    assert check_pairs(*arguments) is None
    most = needed(WIDE, 8 * 198) // 2
    machine(most, most)
    with pytest.raises(UserError, match=r"a step would take .*: --micro-batch [1-4] --recompute"):
        check_pairs(*arguments)
    machine(10**12, most - (100 << 20))
    assert "free for it: --micro-batch 4 --recompute false" in check_pairs(*arguments)
    machine(10**8, 10**8)
    with pytest.raises(UserError, match=r": even --micro-batch 1 --recompute true takes"):
        check_pairs(*arguments)


def test_drawn_answers_that_do_not_fit_are_refused(machine):
    sizes = [MicroBatch(64 * 150, 64 * 50), MicroBatch(150, 50)]

    def check(answers):
        options, rollout = MemoryOptions(), Needs(answers=answers, rows=150)
        return check_answers(WIDE, np, "float32", sizes, options, rollout)

    machine(10**12, 10**12)
    assert check(64) is None
    machine(10**9, 10**9)
    with pytest.raises(UserError, match=r"a step would take .* GB.*smaller --micro-batch; with 1"):
        check(64)
