"""Fake CuPy: as strict as CuPy, and it counts what comes to the host."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.device import fake_cupy as xp
from tests.device import make_cupy_api

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
