"""Memory on a GPU: what is counted is what a step takes on the emulated device."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest

from minigpt2 import backend
from minigpt2.device import captured, fake_cupy, fake_pool, graph
from minigpt2.device.attention_blocks import forest_tables
from minigpt2.device.devices import stream_of
from minigpt2.device.filled_batch import rounded_up
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.planning.device_memory import (
    ds_on_device,
    kept_on_device,
    memory_on_device,
    recomputed_on_device,
)
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.state import new_state
from tests.benchmarks.work import make_batch
from tests.kernels.jobs import backward_in
from tests.kernels.support import device, machine, needs_compiler
from tests.stepping import Windows

ROWS = 127  # with one that is idle a multiple of 64: steps that repeat have such sizes


class Pool(fake_pool.MemoryPool):
    """A pool that knows how much was used at most."""

    most = 0

    def malloc(self, size):
        memory = super().malloc(size)
        self.most = max(self.most, self.used)
        return memory


@contextmanager
def pooled():
    """An emulated device whose memory, that of graphs too, comes from one pool."""
    pool = Pool()
    with (
        device(machine()) as library,
        stream_of(library),
        patch.object(graph, "graph_pool", lambda library: pool),
        fake_pool.using_allocator(pool.malloc),
    ):
        backend.register(library, captured.CAPTURED)
        yield pool


def used_by_a_step(config, precision, recompute):
    """The bytes that three steps take at most, besides the state."""
    batch = make_batch(config, ROWS, ROWS, 1.0, 0, np.random.default_rng(0))
    settings = TrainingConfig(3, 1e-3, 1, "cosine", recompute=recompute)
    with pooled() as pool:
        parameters = initialise(config, np.random.default_rng(0)).on(fake_cupy)
        state = new_state(parameters, precision)
        before = pool.most = pool.used
        assert len(list(take_steps(state, Windows([[batch]] * 3), WeightedNLL(), settings))) == 3
        return pool.most - before


@needs_compiler
@pytest.mark.parametrize(
    ("sizes", "precision", "recompute"),
    [
        ((200, 128, 64, 4, 1), "bfloat16", False),  # activations rule
        ((200, 128, 64, 4, 1), "bfloat16", True),
        ((200, 128, 64, 3, 1), "float32", False),
        ((3000, 128, 32, 2, 1), "float16", False),  # the loss rules
    ],
    ids=str,
)
def test_a_step_takes_as_much_as_is_counted(sizes, precision, recompute):
    config, options = GPT2Config(*sizes), MemoryOptions(recompute)
    parts = memory_on_device(config, MicroBatch(ROWS, ROWS), options, precision)
    counted = parts["activations"] + parts["workspace"]
    assert counted == pytest.approx(used_by_a_step(config, precision, recompute), rel=0.1)


@needs_compiler
def test_a_step_that_recomputes_what_takes_no_product_takes_as_much_as_is_counted(monkeypatch):
    config, batch = GPT2Config(200, 128, 64, 4, 1), MicroBatch(ROWS, ROWS)
    whole = memory_on_device(config, batch, MemoryOptions(), "bfloat16")["activations"]
    monkeypatch.setattr(captured, "MUCH", 0)
    parts = memory_on_device(config, batch, MemoryOptions(), "bfloat16")
    assert parts["activations"] < 0.75 * whole
    counted = parts["activations"] + parts["workspace"]
    assert counted == pytest.approx(used_by_a_step(config, "bfloat16", False), rel=0.1)


@needs_compiler
def test_attention_that_stores_ds_takes_as_much_as_is_counted(monkeypatch):
    config, rows = GPT2Config(200, 512, 64, 1, 1), 511
    monkeypatch.setattr(f"{__name__}.ROWS", rows)
    with backward_in("stored"):
        counted = memory_on_device(config, MicroBatch(rows, rows), MemoryOptions(), "bfloat16")
        used = used_by_a_step(config, "bfloat16", False)
    without = memory_on_device(config, MicroBatch(rows, rows), MemoryOptions(), "bfloat16")
    assert counted["workspace"] > 1.2 * without["workspace"]
    assert counted["activations"] + counted["workspace"] == pytest.approx(used, rel=0.1)


@pytest.mark.parametrize(("name", "sequences"), [("gpt2", 8), ("gpt2-large", 4)])
def test_ds_of_sequences_that_fill_the_context_has_the_room_that_is_counted(name, sequences):
    config, length = OFFICIAL[name], OFFICIAL[name].n_positions - 1
    rows = rounded_up(sequences * length + 1)
    ends = np.repeat(np.arange(length, rows, length), length)
    end = np.append(ends, np.arange(len(ends) + 1, rows + 1))
    slabs = rounded_up(forest_tables(end).slabs)
    assert ds_on_device(config, rows, 2) == 4096 * config.n_head * slabs
    assert ds_on_device(config, rows, 4) == ds_on_device(config, 1000, 2) == 0


def test_dropout_in_16_bits_widens_what_attention_reads():
    config, batch = OFFICIAL["gpt2"], MicroBatch(1024, 0)
    plain, dropped = (
        memory_on_device(config, batch, MemoryOptions(dropout=dropout), "bfloat16")["workspace"]
        for dropout in (False, True)
    )
    assert dropped == 46 * 1024 * 768 > 2 * plain


def test_the_state_takes_16_bytes_a_parameter_and_18_with_a_copy():
    config, nothing = OFFICIAL["gpt2"], MicroBatch(0, 0)
    for precision, each in (("float32", 16), ("bfloat16", 18), ("float16", 18)):
        parts = memory_on_device(config, nothing, MemoryOptions(), precision)
        assert parts["activations"] == parts["workspace"] == 0
        assert sum(parts.values()) == each * config.n_parameters + parts["products"]


def test_16_bits_halve_what_grows_with_the_rows():
    config, batch = OFFICIAL["gpt2"], MicroBatch(4096, 4096)
    whole, half = (
        memory_on_device(config, batch, MemoryOptions(), precision)["activations"]
        for precision in ("float32", "bfloat16")
    )
    assert half == pytest.approx(whole / 2, rel=0.01)


def test_recomputation_computes_again_what_it_does_not_keep():
    config, rows = OFFICIAL["gpt2"], 1000
    kept, checkpoint = (
        kept_on_device(config, rows, MemoryOptions(recompute), 2) for recompute in (False, True)
    )
    again = recomputed_on_device(config, rows, MemoryOptions(True), 2)
    assert kept == checkpoint + again + 2 * rows * config.n_embd  # h comes later
    masks = kept_on_device(config, rows, MemoryOptions(False, True), 2) - kept
    assert masks == 2 * 4 * rows * config.n_embd  # in float32
