"""Fused ops: the results of each kernel, compared with the op's own formula in float64."""

from inspect import signature

import numpy as np
import pytest
from hypothesis import given, settings

from minigpt2.backend import Array
from minigpt2.device import fused_attention, fused_gelu, fused_layer_norm, launch
from minigpt2.device.attention_blocks import forest_tables, size_of_tables, tables_in
from minigpt2.device.emulator import Machine
from minigpt2.device.fused import FUSED
from minigpt2.device.fused_attention import FORESTS
from minigpt2.device.includes import text_of
from minigpt2.ops.attention import attention, attention_backward
from minigpt2.ops.embedding import add_at, scatter_rows
from minigpt2.ops.layer_norm import layer_norm, layer_norm_backward
from tests import plain
from tests.kernels.jobs import DEEP, JOBS, LARGE, STORED, attend
from tests.kernels.support import (
    BITS,
    SHORT,
    assert_close,
    device,
    error_of,
    exactly,
    machine,
    needs_compiler,
    needs_device,
    run_on,
    single,
)
from tests.ops.test_attention import forests

pytestmark = needs_device
SIMPLE = [name for name in JOBS if not name.startswith((LARGE, STORED))]
every_job = pytest.mark.parametrize("name", SIMPLE)


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.__name__)
def test_a_fused_op_has_the_name_and_the_arguments_of_its_op(op):
    def parameters_of(function):
        return [(p.name, p.default, p.kind) for p in signature(function).parameters.values()]

    assert FUSED[op].__name__ == op.__name__
    assert parameters_of(FUSED[op]) == parameters_of(op)


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.__name__)
def test_the_first_argument_of_an_op_is_an_array_of_its_device(op):
    """It decides whether the fused op is called: an index, on the host, or None would not do."""
    first = next(iter(signature(op).parameters.values()))
    assert first.annotation == Array and "index" not in first.name and first.name != "rows"


@every_job
def test_a_kernel_is_as_exact_as_float32_is(name):
    assert_close(run_on(machine(), JOBS[name]), JOBS[name](exactly))


@every_job
def test_three_orders_of_threads_and_blocks_give_the_same_bits(name):
    orders = [machine(), machine(order="descending"), machine(order="random", seed=1)]
    first, *others = (run_on(on, JOBS[name]) for on in orders)
    for other in others:
        for result, again in zip(first, other, strict=True):
            np.testing.assert_array_equal(result, again)


@every_job
def test_the_checks_find_nothing(name):
    on = machine(check=True)
    assert_close(run_on(on, JOBS[name]), JOBS[name](exactly))
    assert not on.findings, "\n".join(map(str, on.findings))


def test_a_width_that_no_kernel_has_takes_the_formula_of_the_chapter():
    x, gamma, beta, rows = single(2, 2052), single(2052), single(2052, seed=1), single(5, 6)
    index = np.array([6, 0, 2, 3, 5])

    def job(array):
        y, saved = layer_norm(array(x), array(gamma), array(beta))
        table = array(single(8, 6))
        add_at(table, array(rows), index)
        spread = scatter_rows(array(rows), index, 8)
        return y, *layer_norm_backward(array(x), saved), table, spread

    assert_close(run_on(machine(), job), job(exactly))


def test_what_a_formula_has_saved_goes_to_its_formula():
    saved = "of another kind"
    assert fused_gelu.gelu_backward(None, saved) is NotImplemented
    assert fused_layer_norm.layer_norm_backward(None, saved) is NotImplemented


SHORT_JOBS = [name for name in JOBS if not name.startswith(("adamw", "cross_entropy with"))]


ATTENTION = [name for name in JOBS if name.startswith("attention")]
OTHER_SIZES = [name for name in JOBS if name.startswith((f"{LARGE}heads", f"{STORED}heads"))]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in SHORT_JOBS for kind in SHORT if name not in OTHER_SIZES),
        *((name, "float16") for name in OTHER_SIZES),  # the type is another matter than the blocks
    ],
)
def test_numbers_of_16_bits_cost_a_few_roundings(name, kind):
    """Sums are in float, so the error is that of storing: a few units in the last place."""
    dtype = SHORT[kind]
    exact = JOBS[name](lambda array: exactly(array.astype(dtype)))
    on = machine(check=True)
    assert_close(run_on(on, JOBS[name], dtype), exact, 4 * 2.0 ** -BITS[kind])
    assert not on.findings, "\n".join(map(str, on.findings))


OLD = ["attention, an end after a tile", "attention, padding"]
OLD += [f"attention, heads of {d}" for d in (32, 80, 128)]


@pytest.mark.long
@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("name", OLD)
def test_attention_has_16_bits_without_tensor_cores_too(name, kind, monkeypatch):
    monkeypatch.setattr(fused_attention, "on_tensor_cores", lambda library, dtype: False)
    dtype, on = SHORT[kind], machine(check=True)
    exact = JOBS[name](lambda array: exactly(array.astype(dtype)))
    assert_close(run_on(on, JOBS[name], dtype), exact, 4 * 2.0 ** -BITS[kind])
    assert not on.findings, "\n".join(map(str, on.findings))


@pytest.mark.parametrize("kind", SHORT)
@given(forests)
@settings(deadline=None, max_examples=15)
def test_attention_on_tensor_cores_over_any_forest(kind, end):
    job, dtype = attend(end, 1, 64), SHORT[kind]
    exact = job(lambda array: exactly(array.astype(dtype)))
    assert_close(run_on(machine(), job, dtype), exact, 4 * 2.0 ** -BITS[kind])


def assert_stored_and_recomputed_agree(end, heads, d, kind):
    """The gradients from ds in memory have the bits of those with ds made twice."""
    recomputed = run_on(machine(), attend(end, heads, d, blocks="large"), SHORT[kind])
    for order in ({}, {"order": "descending"}, {"order": "random", "seed": 1}):
        stored = run_on(machine(**order), attend(end, heads, d, blocks="stored"), SHORT[kind])
        for one, other in zip(stored, recomputed, strict=True):
            np.testing.assert_array_equal(one, other)


@needs_compiler
@pytest.mark.parametrize("name", [f"{kind}deep" for kind in ("attention, ", LARGE, STORED)])
def test_the_shorter_steps_of_newer_gpus_are_right(name, monkeypatch):
    """sm_120 has other steps, which the emulator else does not run."""

    def text_for_sm_120(file):
        text = text_of(file)
        assert "#define ARCHITECTURE 0" in text or "mma" not in file
        return text.replace("#define ARCHITECTURE 0", "#define ARCHITECTURE 1200")

    monkeypatch.setattr(launch, "text_of", text_for_sm_120)
    exact = JOBS[name](lambda array: exactly(array.astype(np.float16)))
    on = Machine(check=True)
    assert_close(run_on(on, JOBS[name], np.float16), exact, 4 * 2.0 ** -BITS["float16"])
    assert not on.findings, "\n".join(map(str, on.findings))


@given(forests)
@settings(deadline=None, max_examples=10)
def test_ds_in_memory_changes_no_bit_over_any_forest(end):
    assert_stored_and_recomputed_agree(end, 1, 64, "float16")


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("d", [32, 64, 80, 128])
def test_ds_in_memory_changes_no_bit_whatever_the_heads(d, kind):
    assert_stored_and_recomputed_agree(DEEP, 3, d, kind)


@pytest.mark.parametrize("kind", ["bfloat16", pytest.param("float16", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", [name for name in ATTENTION if name not in OTHER_SIZES])
def test_tensor_cores_repeat_bit_for_bit(name, kind):
    orders = [machine(), machine(order="descending"), machine(order="random", seed=2)]
    first, *others = (run_on(on, JOBS[name], SHORT[kind]) for on in orders)
    for other in others:
        for result, again in zip(first, other, strict=True):
            np.testing.assert_array_equal(result, again)


@given(forests)
@settings(deadline=None, max_examples=25)
def test_attention_over_any_forest(end):
    job = attend(end, 1, 64)
    assert_close(run_on(machine(), job), job(exactly))


BLIND = pytest.mark.parametrize(
    ("kind", "bound"), [("float32", 2e-6), *((kind, 4 * 2.0 ** -BITS[kind]) for kind in SHORT)]
)


@BLIND
def test_a_row_that_sees_nothing_gets_0_and_sends_nothing_back(kind, bound):
    n, d = 70, 64
    end = np.full(n, n)
    hidden = [0, 31, 32, 33, 69]
    end[hidden] = hidden  # a row whose end is itself is seen by none, not even by itself
    end[:3] = 0
    alone = np.array([not (end[: i + 1] > i).any() for i in range(n)])
    assert alone[[0, 1, 2]].all() and alone.sum() == 3
    dtype = SHORT.get(kind, np.float32)
    qkv, do = (single(n, size).astype(dtype).astype(np.float32) for size in (3 * d, d))

    def job(put):
        o, saved = attention(put(qkv), end, 1)
        return o, saved.lse, attention_backward(put(do), saved)

    o, lse, dqkv = run_on(machine(), job, dtype)
    assert (lse[0, alone] == -np.inf).all() and np.isfinite(lse[0, ~alone]).all()
    assert not o[alone].any() and not dqkv[alone].any()
    rest = end[~alone] - 3
    qkv_rest, do_rest = exactly(qkv[~alone]), exactly(do[~alone])
    assert error_of(o[~alone], plain.attention(qkv_rest, rest, 1)) < bound
    exact = plain.attention_backward(do_rest, qkv_rest, rest, 1)
    assert error_of(dqkv[~alone], exact) < bound


@pytest.mark.parametrize("step", [-0.25, 0.01, 0.25, 2.0])
def test_scores_may_rise_from_tile_to_tile(step):
    """A kernel's m lags behind the maximum, but never so far that an exponential overflows."""
    n, d = 200, 64
    qkv, do = single(n, 3 * d), single(n, d)
    qkv[:, 0], qkv[:, d] = 8, step * np.arange(n)[::-1]  # tiles come from the last key back

    def job(put):
        o, saved = attention(put(qkv), np.full(n, n), 1)
        return o, saved.lse, attention_backward(put(do), saved)

    *exact, _ = job(lambda array: exactly(array.astype(np.float16)))
    *results, dqkv = run_on(machine(), job, np.float16)
    assert_close(results, exact, 4 * 2.0**-11)
    assert np.isfinite(dqkv).all()  # o in 16 bits leaves Δ few digits where p is nearly 1


def test_a_walk_passes_over_more_tiles_than_a_warp_has_lanes():
    """A preamble and rows that see it and themselves: 34 tiles of nothing lie between."""
    end = np.arange(1, 36 * 64 + 1)
    end[:10] = len(end)
    job = attend(end, 1, 32)
    exact = job(lambda array: exactly(array.astype(np.float16)))
    assert_close(run_on(machine(), job, np.float16), exact, 4 * 2.0**-11)


def test_a_forests_tables_may_lie_on_the_device_already():
    end = np.array([40] * 40 + [70] * 30)
    job = attend(end, 1, 64)
    with device(machine()) as xp:
        first = [xp.asnumpy(r) for r in job(lambda a: xp.asarray(a, np.float16))]
        flat = xp.asarray(np.zeros(size_of_tables(70), np.int32))
        known = forest_tables(end)
        tables = tables_in(flat, 70, known.slabs)
        flat[:] = xp.asarray(known.flat)
        FORESTS.put(end, tables)
        assert FORESTS.get(xp, end) is tables
        again = [xp.asnumpy(r) for r in job(lambda a: xp.asarray(a, np.float16))]
        other = FORESTS.get(xp, end.copy())
        assert other is not tables
        np.testing.assert_array_equal(xp.asnumpy(other.flat), xp.asnumpy(flat))
    for result, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(result, same)


def test_behind_the_vocabulary_the_gradient_is_exactly_0():
    _, dlogits = run_on(machine(), JOBS["cross_entropy, 3 x 13 in rows of 16"])
    assert dlogits[:, :13].all()
    assert not dlogits[:, 13:].any() and not np.signbit(dlogits[:, 13:]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_a_gradient_that_is_not_finite_changes_no_parameter(bad):
    from minigpt2.ops.adamw import AdamW, Update, adamw_flat

    g = single(1000)
    g[500] = bad
    with device(machine()) as xp:
        arrays = [xp.asarray(a) for a in (single(1000), g, single(1000), single(1000) ** 2)]
        before = [a.get() for a in arrays]
        norm = adamw_flat(*arrays, Update(1, 0.1, 10, AdamW())).get()
        for array, was in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array.get(), was)
    assert not np.isfinite(norm).any()


def test_new_memory_is_nan_so_results_without_one_are_written_in_full():
    with device(machine()) as xp:
        assert np.isnan(xp.empty(3, np.float32).get()).all()
        assert (xp.empty_like(xp.asarray(np.ones(3, np.int32))).get() == -1).all()
