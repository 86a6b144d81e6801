"""Fake CuPy: as strict as CuPy, and it counts what comes to the host."""

import inspect
import json
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.device import fake_cupy as xp
from minigpt2.device.fake_stream import Graph
from tests.device import make_cupy_api
from tests.kernels.support import needs_compiler

HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def no_copies():
    """Begin with no copy counted."""
    xp.copies.clear()


def on_device():
    """An array on the device."""
    return xp.asarray(HOST)


REFUSED = {
    "plus an array of NumPy's": lambda: on_device() + HOST,
    "an array of NumPy's plus it": lambda: HOST + on_device(),
    "a function of an array of NumPy's": lambda: xp.exp(HOST),
    "both in one function": lambda: xp.where(on_device() > 1, HOST, on_device()),
    "in a list": lambda: xp.concatenate([on_device(), HOST]),
    "as an index": lambda: on_device()[np.array([0, 1])],
    "put into it": lambda: on_device().__setitem__(0, HOST[0]),
    "becomes one unasked": lambda: np.asarray(on_device()),
    "a function of NumPy's that is none of its kind": lambda: np.concatenate(
        [on_device(), on_device()]
    ),
    "an array as a whole number": lambda: range(on_device()[0, 0]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_arrays_of_both_kinds_never_meet(what):
    with pytest.raises(TypeError):
        REFUSED[what]()


LACKING = {
    "a name": lambda: xp.insert,
    "another": lambda: xp.spacing,
    "a method": lambda: on_device().setflags,
    "a method of NumPy's": lambda: on_device().ctypes,
}


@pytest.mark.parametrize("what", LACKING)
def test_what_cupy_lacks_is_not_there(what):
    with pytest.raises(AttributeError, match="cupy"):
        LACKING[what]()


def test_a_keyword_that_cupy_lacks_is_refused():
    with pytest.raises(TypeError, match=r"cupy\.sum\(\) got an unexpected keyword"):
        xp.sum(on_device(), where=on_device() > 1)


COPIES = {
    "get": (lambda: on_device().get(), "get"),
    "asnumpy": (lambda: xp.asnumpy(on_device()), "get"),
    "item": (lambda: on_device().sum().item(), "item"),
    "tolist": (lambda: on_device().tolist(), "tolist"),
    "float": (lambda: float(on_device().sum()), "float"),
    "int": (lambda: int(on_device().sum()), "int"),
    "bool": (lambda: bool((on_device() >= 0).all()), "bool"),
    "if": (lambda: 1 if on_device().sum() > 3 else 0, "bool"),
    "flatnonzero": (lambda: xp.flatnonzero(on_device()), "shape"),
    "nonzero, the method": (lambda: on_device().nonzero(), "shape"),
    "where with a condition alone": (lambda: xp.where(on_device() > 1), "shape"),
    "unique": (lambda: xp.unique(on_device()), "shape"),
    "a mask as an index": (lambda: on_device()[on_device() > 1], "shape"),
}


@pytest.mark.parametrize("what", COPIES)
def test_every_copy_to_the_host_is_counted(what):
    action, why = COPIES[what]
    action()
    assert dict(xp.copies) == {why: 1}


def test_what_stays_on_the_device_is_no_copy():
    a = on_device()
    a += 1
    b = xp.exp(a @ a.T) - a.sum(-1, keepdims=True)
    b[xp.asarray([0, 1])] = 2.0
    b = xp.where(b > 1, b, 0)[:, ::-1].astype(xp.float32).reshape(-1)
    assert isinstance(b, xp.ndarray) and isinstance(b.max(), xp.ndarray)
    assert isinstance(b.max() * 2, xp.ndarray) and len(b) == 4 and "device" in repr(b)
    assert not xp.copies


def test_asarray_copies_from_the_host_and_not_on_the_device():
    a = on_device()
    a += 1
    assert HOST[0, 0] == 0
    assert xp.asarray(a) is a and xp.asarray(a, xp.float32) is a
    assert xp.asarray(a, xp.float16).dtype == np.float16


def test_in_place_operators_work_on_the_array_itself():
    a = on_device()
    part = a[0]
    part *= 3
    np.testing.assert_array_equal(a.get()[0], 3 * HOST[0])
    np.testing.assert_array_equal((2 - part).get(), 2 - 3 * HOST[0])


def test_out_is_what_is_returned():
    a = on_device()
    assert xp.exp(a, out=a) is a
    np.testing.assert_array_equal(a.get(), np.exp(HOST))


def test_products_of_short_numbers_are_summed_in_float32():
    a = np.full((1, 4096), 1 / 64, np.float16)
    product = xp.matmul(xp.asarray(a), xp.asarray(a.T))
    assert product.dtype == np.float16 and product.get()[0, 0] == 1
    out = xp.empty((1, 1), np.float16)
    xp.matmul(xp.asarray(a), xp.asarray(a.T), out=out)
    assert out.get()[0, 0] == 1 and (xp.asarray(a) @ xp.asarray(a.T)).get()[0, 0] == 1


AGREE = {
    "argsort": lambda m, a: m.argsort(a, kind="stable"),
    "cumsum": lambda m, a: m.cumsum(a, dtype=m.float64),
    "log-sum-exp": lambda m, a: m.log(m.exp(a - a.max()).sum()) + a.max(),
    "take_along_axis": lambda m, a: m.take_along_axis(a, m.argsort(-a), -1),
    "partition": lambda m, a: m.sort(m.partition(a, 0)),
    "add.reduceat": lambda m, a: m.add.reduceat(a, m.asarray([0])),
}


@pytest.mark.parametrize("what", AGREE)
@given(numbers=st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=20))
@settings(deadline=None, max_examples=20)
def test_agrees_with_numpy_where_both_have_it(what, numbers):
    host = np.array(numbers, np.float32)
    np.testing.assert_array_equal(AGREE[what](xp, xp.asarray(host)).get(), AGREE[what](np, host))


def test_the_list_of_names_is_that_of_the_cupy_which_is_installed():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    written = json.loads(make_cupy_api.TARGET.read_text(encoding="utf-8"))
    if cupy.__version__ != written["cupy"]:
        pytest.skip(f"the list is of CuPy {written['cupy']}, not {cupy.__version__}")
    assert make_cupy_api.api_of(cupy) == written


# Captures.

SMALL_GPU = """extern "C" __global__ void add_one(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x] + 1.f;
}
"""


@contextmanager
def capturing():
    """A stream that captures, with memory of a pool; afterwards none does."""
    stream, pool = xp.cuda.Stream(non_blocking=True), xp.cuda.MemoryPool()
    try:
        with stream, xp.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            yield stream
    finally:
        xp.Stream.capturing = None


@needs_compiler
def test_a_capture_runs_nothing_and_its_graph_runs_all_in_order():
    kernel = xp.RawModule(code=SMALL_GPU).get_function("add_one")
    x, out = xp.asarray(np.zeros(4, np.float32)), xp.asarray(np.zeros((2, 2), np.float32))
    with capturing() as stream:
        y, z = xp.empty(4, xp.float32), xp.zeros((2, 2), xp.float32)
        kernel((1,), (4,), (x, y))
        xp.product_into(out, y.reshape(2, 2), y.reshape(2, 2), False, True, None, None)
        kernel((1,), (3,), (out, z))
        graph = stream.end_capture()
    assert (out.get() == 0).all() and not xp.Stream.capturing
    for start in (1, 5):
        x.set(np.full(4, start, np.float32))
        graph.launch(stream)
        stream.synchronize()
        product = 2 * (start + 1) ** 2
        np.testing.assert_array_equal(out.get(), np.full((2, 2), product))
        np.testing.assert_array_equal(z.get(), [[product + 1, product + 1], [product + 1, 0]])


EVENT = xp.cuda.Event()
UNCAPTURED = {
    "arithmetic": lambda a: a + a,
    "in place": lambda a: a.__iadd__(1),
    "a comparison": lambda a: a > 1,
    "a product of CuPy's": lambda a: a @ a.T,
    "a ufunc": lambda a: xp.exp(a),
    "a ufunc of NumPy's": lambda a: np.exp(a),
    "its method": lambda a: xp.add.at(a, (xp.zeros(1, int),), 1),
    "a sum": lambda a: a.sum(),
    "a copy": lambda a: a.copy(),
    "another type": lambda a: a.astype(xp.float16),
    "get": lambda a: a.get(),
    "float": lambda a: float(a[0, 0]),
    "from the host": lambda a: xp.asarray(HOST),
    "set": lambda a: a.set(HOST),
    "an assignment": lambda a: a.__setitem__(0, 1.0),
    "an index of integers": lambda a: a[[0, 1]],
    "a shape that copies": lambda a: a.T.reshape(-1),
    "contiguous": lambda a: xp.ascontiguousarray(a.T),
    "numbers in turn": lambda a: xp.arange(5),
    "to wait": lambda a: xp.cuda.get_current_stream().synchronize(),
    "to wait for an event": lambda a: xp.cuda.Event().synchronize(),
    "an event of another stream": lambda a: xp.cuda.Stream().record(),
    "to wait in a queue for what is not captured": lambda a: xp.cuda.Stream().wait_event(EVENT),
    "another graph": lambda a: xp.stream_graph.launch(),
    "a second capture": lambda a: xp.cuda.Stream().begin_capture(),
}


@pytest.mark.parametrize("what", UNCAPTURED)
def test_what_a_graph_cannot_hold_spoils_the_capture(what, monkeypatch):
    monkeypatch.setattr(xp, "stream_graph", Graph(), raising=False)
    a = on_device()
    with capturing() as stream:
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
            UNCAPTURED[what](a)
        with pytest.raises(RuntimeError, match="due to a previous error"):
            a.fill(0)
        with pytest.raises(RuntimeError, match="due to a previous error"):
            stream.end_capture()
    np.testing.assert_array_equal(a.get(), HOST)


def test_views_and_shapes_are_no_work():
    a = on_device()
    with capturing() as stream:
        views = a[0], a[:, 1:], a.T, a.reshape(3, 2), a.ravel(), xp.ascontiguousarray(a)
        assert xp.asarray(a) is a and len(a) == 2 and a.dtype == xp.float32
        assert xp.empty_like(a.T).strides == (4, 12)
        stream.end_capture()
    assert all(np.shares_memory(view.host, a.host) for view in views)


def test_a_launch_into_another_stream_would_not_be_captured():
    a = on_device()
    with capturing(), xp.cuda.Stream(), pytest.raises(RuntimeError, match="into another stream"):
        a.fill(0)


def filled_by_two_streams(joined=True):
    """A graph that fills a with 1, then b with 2 and in a second stream a with 3, then a with 4."""
    a, b, second = on_device(), on_device(), xp.cuda.Stream()
    with capturing() as stream:
        a.fill(1)
        second.wait_event(stream.record())
        with second:
            a.fill(3)
            end = second.record()
        b.fill(2)
        if joined:
            stream.wait_event(end)
            a.fill(4)
        with pytest.raises(RuntimeError, match="a graph has the event"):
            xp.Stream.capturing = None
            end.synchronize()
        xp.Stream.capturing = stream
        return stream.end_capture(), a, b


def test_a_second_stream_is_captured_from_its_first_wait_on():
    graph, a, b = filled_by_two_streams()
    for _ in range(2):
        a.fill(0)
        graph.launch()
        assert (a.get() == 4).all() and (b.get() == 2).all()


def test_what_two_streams_do_at_once_runs_in_one_order_and_then_in_the_other():
    a, second, results = on_device(), xp.cuda.Stream(), []
    with capturing() as stream:
        second.wait_event(stream.record())
        with second:
            a.fill(3)
        a.fill(4)
        stream.wait_event(second.record())
        graph = stream.end_capture()
    for _ in range(4):
        graph.launch()
        results.append(float(a[0, 0]))
    assert results == [4, 3, 4, 3]


def test_a_capture_must_wait_for_its_second_stream():
    with pytest.raises(RuntimeError, match="not waited for"):
        filled_by_two_streams(joined=False)


def test_a_pool_keeps_the_memory_of_each_stream_for_that():
    pool, second = xp.cuda.MemoryPool(), xp.cuda.Stream()
    with xp.cuda.using_allocator(pool.malloc):
        first = xp.empty(4).data.ptr  # gone at once
        with second:
            assert xp.empty(4).data.ptr != first
        assert xp.empty(4).data.ptr == first


def test_a_graph_needs_memory_of_its_own():
    stream = xp.cuda.Stream()
    try:
        with stream:
            stream.begin_capture()
            with pytest.raises(RuntimeError, match="memory from a pool that others use"):
                xp.empty(3)
    finally:
        xp.Stream.capturing = None


def test_the_null_stream_captures_nothing():
    with pytest.raises(RuntimeError, match="null stream"):
        xp.cuda.get_current_stream().begin_capture()
    with pytest.raises(RuntimeError, match="does not capture"):
        xp.cuda.Stream().end_capture()


def test_a_stream_is_in_use_until_another_is():
    null, (first, second) = xp.cuda.get_current_stream(), (xp.cuda.Stream() for _ in range(2))
    with first:
        second.use()
        assert xp.cuda.get_current_stream() is second
    assert xp.cuda.get_current_stream() is null
    second.use()
    with first:
        pass
    assert xp.cuda.get_current_stream() is null  # as in CuPy: `with` knows nothing of `use`
    null.use()


def test_a_pool_hands_memory_out_again_with_every_bit_set():
    pool = xp.cuda.MemoryPool()
    with xp.cuda.using_allocator(pool.malloc):
        a = xp.zeros((2, 3), xp.float32)
        view, place = a[1:], a.data.ptr
        del a
        assert pool.used_bytes() == 512 and xp.empty(6, xp.float32).data.ptr != place
        stale = view.host.ctypes.data
        del view
        b = xp.zeros(0), xp.empty((1, 5), xp.float32)
        assert {place} <= {array.data.ptr for array in b} and place < stale
    assert pool.total_bytes() == 1024
    pool.free_all_blocks()
    assert pool.total_bytes() == pool.used_bytes() == 512


def test_memory_that_a_graph_writes_to_is_anyones_once_its_array_is_gone():
    with capturing() as stream:
        kept, lost = xp.zeros(4, xp.float32), xp.zeros(4, xp.float32)
        place = lost.data.ptr
        del lost
        graph = stream.end_capture()
        other = xp.empty(4, xp.float32)
    other.fill(7)
    graph.launch()
    assert other.data.ptr == place and (other.get() == 0).all() and (kept.get() == 0).all()


SET = {
    "a list": ([1.0], TypeError),
    "another shape": (HOST[0], ValueError),
    "another type": (HOST.astype(np.float64), ValueError),
}


@pytest.mark.parametrize("what", SET)
def test_an_array_is_set_only_to_one_of_its_shape_and_type(what):
    other, error = SET[what]
    with pytest.raises(error):
        on_device().set(other)


def test_pinned_memory_is_filled_by_numpy_and_copied_by_set():
    pinned = np.frombuffer(xp.cuda.alloc_pinned_memory(HOST.nbytes), HOST.dtype, HOST.size)
    a, pinned[:] = on_device(), 3
    a.set(pinned.reshape(HOST.shape))
    assert (a.get() == 3).all()


@pytest.mark.parametrize("wait", ["event", "stream", "later copy"])
def test_a_copy_that_does_not_block_has_arrived_when_it_was_waited_for(wait):
    device, event = xp.asarray(np.ones(3, np.float32)), xp.cuda.Event()
    stream, host = xp.cuda.get_current_stream(), np.zeros(3, np.float32)
    device.get(out=host, blocking=False)
    event.record()
    device += 1
    assert np.isnan(host).all()
    {"event": event.synchronize, "stream": stream.synchronize, "later copy": device.get}[wait]()
    np.testing.assert_array_equal(host, 1)


def test_an_array_on_the_host_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        on_device().get(out=np.zeros(3))


def test_an_event_has_passed_when_it_is_recorded():
    event = xp.cuda.Event(disable_timing=True)
    event.record()
    event.synchronize()
    assert event.done


def test_the_streams_and_pools_of_cupy_have_these_names():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    for name in vars(xp.cuda):
        assert hasattr(cupy.cuda, name)
    for mine, theirs in (
        (xp.Stream, cupy.cuda.Stream),
        (xp.Event, cupy.cuda.Event),
        (xp.MemoryPool, cupy.cuda.MemoryPool),
        (Graph, cupy.cuda.Graph),
    ):
        names = {name for name, value in vars(mine).items() if inspect.isfunction(value)}
        own = {"take_back", "add", "behind"}  # that only the fake has
        assert {name for name in names if name[0] != "_"} - own <= set(dir(theirs))
