"""Captured steps: batches that are filled up, and graphs that repeat a step for each of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import backend
from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example
from minigpt2.device import captured, fused_loss
from minigpt2.device.captured import CAPTURED
from minigpt2.device.devices import stream_of
from minigpt2.device.filled_batch import filled, rounded_up
from minigpt2.model.adapters import LAYERS, LoRA, with_adapters
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import both_passes, nll_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from minigpt2.training.config import TrainingConfig
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.state import new_state
from minigpt2.training.step import step
from tests.kernels.jobs import backward_in
from tests.kernels.support import SHORT, device, machine, needs_device

CONFIG = GPT2Config(vocab_size=211, n_positions=64, n_embd=32, n_layer=2, n_head=1)
SMALL = GPT2Config(vocab_size=23, n_positions=16, n_embd=8, n_layer=2, n_head=2)


def batch(seed, examples=3, config=CONFIG, longest=14):
    """Some examples, the second half of each supervised."""
    rng = np.random.default_rng(seed)
    return batch_of_lengths(rng, rng.integers(4, longest, examples), config)


def batch_of_lengths(rng, lengths, config=CONFIG):
    """Examples of these lengths, the second half of each supervised."""
    rows = [rng.integers(0, config.vocab_size, n).tolist() for n in lengths]
    return batch_of([Example(ids, [2 * k >= len(ids) for k in range(len(ids))]) for ids in rows])


def parameters_of(config=CONFIG, dtype=np.float32, **options):
    """Random parameters, far enough from 0 that every op is curved."""
    made = initialise(config, np.random.default_rng(1), dtype)
    return Parameters(config, 3 * made.flat, **options)


@pytest.fixture
def xp():
    with device(machine()) as library, stream_of(library):
        backend.register(library, CAPTURED)
        yield library


def runs_of(gradients):
    """What was captured for an array of gradients."""
    return list(captured._shapes.get(gradients, {}).values())


@given(st.integers(1, 100_000))
@settings(deadline=None)
def test_sizes_are_filled_up_by_an_eighth_at_most_and_seldom_differ(size):
    assert 0 <= rounded_up(size) - size < max(64, size / 4)
    assert rounded_up(size) % 64 == 0
    assert rounded_up(rounded_up(size)) == rounded_up(size)


def test_few_sizes_occur():
    assert len({rounded_up(n) for n in range(1, 16_385)}) < 60


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
@settings(deadline=None, max_examples=30)
def test_what_fills_a_batch_up_changes_neither_loss_nor_gradient(seed, examples, zeros):
    plain = batch(seed, examples, SMALL, longest=9)
    if zeros:
        weights = np.where(np.arange(len(plain.weights)) % 3 == 1, 0, plain.weights)
        plain = plain._replace(weights=weights)
    parameters = parameters_of(SMALL, np.float64)
    expected, gradients = gradients_of(parameters), gradients_of(parameters)
    nll = nll_and_gradients(parameters, plain, expected)
    ready = filled(plain)
    assert len(ready.batch.ids) > len(plain.ids)
    into = gradients, ready.rows, ready.places
    again = both_passes(parameters, ready.batch, *into)
    np.testing.assert_allclose(again[: len(ready.used)], nll[ready.used], atol=1e-12)
    np.testing.assert_allclose(gradients.flat, expected.flat, atol=1e-12)


@needs_device
@pytest.mark.parametrize("precision", ["float32", *SHORT])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_graph_gives_the_bits_of_its_launches_one_by_one(xp, precision, recompute):
    """Four steps of two micro-batches; in one run every shape is a new one."""

    def losses(forget):
        state = new_state(parameters_of().on(xp), precision)
        config = TrainingConfig(4, 1e-2, recompute=recompute)
        results = []
        for k in range(4):
            if forget:
                captured._shapes.pop(state.gradients, None)
            batches = [batch(k), batch(k + 10)]
            results.append(step(state, batches, WeightedNLL(), config))
        graphs = [run.graph is not None for run in runs_of(state.gradients)]
        return [(r.loss, r.gradient_norm) for r in results], graphs

    (eager, none), (replayed, graphs) = losses(True), losses(False)
    assert replayed == eager
    assert all(graphs) and graphs and not any(none)


@needs_device
def test_a_run_follows_that_on_the_cpu(xp):
    def losses(parameters):
        state = new_state(parameters)
        config = TrainingConfig(5, 1e-2)
        return [step(state, [batch(k), batch(9 - k)], WeightedNLL(), config).loss for k in range(5)]

    cpu = losses(parameters_of())
    assert losses(parameters_of().on(xp)) == pytest.approx(cpu, abs=2e-5)


def gradient_of(parameters, *batches, **options):
    """The gradients of some micro-batches, each seen three times over."""
    gradients = gradients_of(parameters)
    for _ in range(3):
        gradients.clear()
        results = [nll_and_gradients(parameters, b, gradients, **options) for b in batches]
    gradients.complete()
    return gradients, results


FROZEN = [["wte.weight"], ["wpe.weight"], ["h.0.attn.c_attn.weight", "h.1.ln_2.bias"]]


@needs_device
@pytest.mark.parametrize("frozen", [[], *FROZEN], ids=lambda names: "+".join(names) or "none")
def test_gradients_with_frozen_tensors_are_those_of_the_cpu(xp, frozen):
    on_cpu = parameters_of(frozen=frozen)
    expected, _ = gradient_of(on_cpu, batch(1), batch(2))
    gradients, _ = gradient_of(on_cpu.on(xp), batch(1), batch(2))
    assert all(run.graph is not None for run in runs_of(gradients))
    np.testing.assert_allclose(
        xp.asnumpy(gradients.flat), expected.flat, atol=2e-5 * abs(expected.flat).max()
    )


@needs_device
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("layers", [LAYERS, LAYERS[1:3]], ids=" ".join)
def test_gradients_of_adapters_are_those_of_the_cpu(xp, layers, recompute):
    lora, rng = LoRA(rank=4, alpha=8.0, layers=layers), np.random.default_rng(3)
    on_cpu = with_adapters(parameters_of(), lora, rng)
    on_cpu.flat[...] += 0.2 * rng.standard_normal(on_cpu.flat.size)
    expected, results = gradient_of(on_cpu, batch(1), batch(2), recompute=recompute)
    gradients, nll = gradient_of(on_cpu.on(xp), batch(1), batch(2), recompute=recompute)
    assert all(run.graph is not None for run in runs_of(gradients))
    bound = 2e-5 * abs(expected.flat).max()
    np.testing.assert_allclose(xp.asnumpy(gradients.flat), expected.flat, atol=bound)
    for one, other in zip(nll, results, strict=True):
        np.testing.assert_allclose(xp.asnumpy(one), other, atol=1e-4)


@needs_device
@pytest.mark.parametrize("name", ["scale_attn_weights", "scale_attn_by_inverse_layer_idx"])
def test_gradients_with_the_divisors_of_the_model_are_those_of_the_cpu(xp, name):
    on_cpu = parameters_of(replace(CONFIG, **{name: not getattr(CONFIG, name)}))
    expected, _ = gradient_of(on_cpu, batch(1))
    gradients, _ = gradient_of(on_cpu.on(xp), batch(1))
    assert all(run.graph is not None for run in runs_of(gradients))
    bound = 2e-5 * abs(expected.flat).max()
    np.testing.assert_allclose(xp.asnumpy(gradients.flat), expected.flat, atol=bound)
    assert abs(gradient_of(parameters_of(), batch(1))[0].flat - expected.flat).max() > 10 * bound


@needs_device
def test_triples_without_weight_and_a_batch_whose_rows_are_all_read(xp):
    plain, n = batch(4), 20
    holes = plain._replace(weights=plain.weights * (np.arange(len(plain.weights)) % 2))
    ids = np.random.default_rng(0).integers(0, CONFIG.vocab_size, n)
    every = Batch(ids, np.arange(n), np.full(n, n), np.arange(n), np.roll(ids, 1), np.ones(n))
    expected, nll = gradient_of(parameters_of(), holes, every)
    gradients, results = gradient_of(parameters_of().on(xp), holes, every)
    assert filled(every).rows is None
    bound = 2e-5 * abs(expected.flat).max()
    np.testing.assert_allclose(xp.asnumpy(gradients.flat), expected.flat, atol=bound)
    for result, reference in zip(results, nll, strict=True):
        np.testing.assert_allclose(xp.asnumpy(result), reference, atol=1e-4)


@needs_device
def test_chunks_of_logits_share_one_memory_and_wait_for_each_other(xp, monkeypatch):
    monkeypatch.setattr(fused_loss, "CHUNK", 256 * 16)
    plain = batch(5)
    assert len(filled(plain).batch.targets) > 2 * 16  # more than two chunks
    expected, _ = gradient_of(parameters_of(), plain)
    on_device = parameters_of().on(xp)
    gradients = gradients_of(on_device)
    for _ in range(4):  # launched one by one, captured and run, and run twice
        gradients.clear()
        nll_and_gradients(on_device, plain, gradients)
        result, bound = xp.asnumpy(gradients.flat), 2e-5 * abs(expected.flat).max()
        np.testing.assert_allclose(result, expected.flat, atol=bound)


@needs_device
def test_the_nll_of_a_micro_batch_outlives_the_next_run_of_its_graph(xp):
    parameters = parameters_of().on(xp)
    gradients = gradients_of(parameters)
    batches = [batch(k) for k in range(4)]
    results = [nll_and_gradients(parameters, b, gradients) for b in batches]
    for b, result in zip(batches, results, strict=True):
        _, reference = gradient_of(parameters_of(), b)
        np.testing.assert_allclose(xp.asnumpy(result), reference[0], atol=1e-4)


@needs_device
def test_a_graph_begins_anew_where_a_forest_needs_more_room_for_ds(xp, monkeypatch):
    """Two batches of one shape; in the second, one example crosses the end of the first tile."""
    monkeypatch.setattr(captured, "rounded_up", lambda size: size)
    rng, parameters = np.random.default_rng(0), parameters_of(dtype=np.float16).on(xp)
    few, many = (batch_of_lengths(rng, lengths) for lengths in ((65, 32), (61, 36)))
    gradients, expected = gradients_of(parameters_of().on(xp)), {}  # which are in float32
    with backward_in("stored"):
        for seen, b in enumerate([few, few, few, many, many, many, few]):
            gradients.clear()
            nll = xp.asnumpy(nll_and_gradients(parameters, b, gradients))
            result = nll, xp.asnumpy(gradients.flat)
            for one, other in zip(result, expected.setdefault(id(b), result), strict=True):
                np.testing.assert_array_equal(one, other)
            (run,) = runs_of(gradients)
            assert run.slabs == (4 if seen < 3 else 5)
            assert (run.graph is None) == (seen in (0, 3))


@needs_device
def test_the_shapes_that_are_remembered_are_bounded(xp, monkeypatch):
    monkeypatch.setattr(captured, "MOST_SHAPES", 2)
    parameters = parameters_of().on(xp)
    gradients = gradients_of(parameters)
    for examples in (1, 12, 24, 40):
        gradients.clear()
        nll_and_gradients(parameters, batch(0, examples), gradients)
    assert len(runs_of(gradients)) == 2


def test_only_models_whose_kernels_are_all_compiled_are_captured():
    assert captured.captures(CONFIG)
    assert not captured.captures(GPT2Config(11, 8, 24, 1, 1))  # heads of 24
    assert not captured.captures(GPT2Config(11, 8, 4096, 1, 32))  # rows too long to normalise


@needs_device
def test_with_dropout_the_ops_run_one_by_one(xp):
    parameters = parameters_of().on(xp)
    gradients = gradients_of(parameters)
    rng = np.random.default_rng(0)
    nll_and_gradients(parameters, batch(0), gradients, drop=0.1, rng=rng)
    assert not runs_of(gradients)
