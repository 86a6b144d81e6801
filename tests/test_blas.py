"""BLAS: axpby is what it says, and OpenBLAS gets its threads back."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from minigpt2 import blas
from minigpt2.blas import axpby, single_threaded_blas
from minigpt2.parallel import cores


def test_the_last_one_out_gives_blas_its_threads_back():
    before = threads_of_blas()
    with single_threaded_blas:
        with single_threaded_blas:
            pass
        assert set(threads_of_blas()) <= {1} or blas.openblas() is None
    assert threads_of_blas() == before


def threads_of_blas():
    """How many threads each BLAS of the process would take."""
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


@pytest.mark.skipif(sys.platform != "linux", reason="where libraries are loaded from is known")
def test_openblas_is_found_if_numpy_has_it(monkeypatch, tmp_path):
    wheel = list(Path(np.__file__).parents[1].glob("numpy.libs/*openblas*"))
    assert (blas.openblas() is not None) == (blas_of_numpy() == "openblas") or not wheel
    blas.openblas.cache_clear()
    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    again = blas.openblas()  # as if NumPy had no wheel: by what is loaded
    blas.openblas.cache_clear()
    assert (again is not None) == (blas_of_numpy() == "openblas")


def test_another_blas_is_no_openblas(monkeypatch):
    monkeypatch.setattr(blas.ctypes, "PyDLL", lambda path: object())
    blas.openblas.cache_clear()
    try:
        assert blas.openblas() is None
    finally:
        blas.openblas.cache_clear()


def test_an_openblas_without_axpby_has_none(monkeypatch):
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda path: object())
    assert blas.axpby_functions("libopenblas.so", "cblas_{}axpby64_") == {}


lengths = st.integers(0, 300)


@given(lengths, st.sampled_from("fdFD"), st.integers(1, 2), st.integers(0, 99))
def test_axpby_is_what_it_says_for_all_types_and_with_gaps(n, letter, stride, seed):
    x, y = np.random.default_rng(seed).standard_normal((2, stride * n)).astype(letter)
    before = x.copy()
    expected = 0.25 * x[::stride].astype("D") - 3 * y[::stride]
    between = y[1::2].copy()
    assert axpby(0.25, x[::stride], -3, y[::stride]) is None
    np.testing.assert_allclose(
        y[::stride], expected, rtol=0, atol=1e-5 if letter in "fF" else 1e-14
    )
    np.testing.assert_array_equal(x, before)
    if stride == 2:
        np.testing.assert_array_equal(y[1::2], between)


@given(lengths, st.sampled_from("fd"), st.integers(1, 40))
def test_axpby_in_pieces_gives_the_same_bits(n, letter, piece):
    x, y = np.random.default_rng(n).standard_normal((2, n)).astype(letter)
    whole = y.copy()
    axpby(0.1, x, 0.9, whole)
    for start in range(0, n, piece):
        axpby(0.1, x[start : start + piece], 0.9, y[start : start + piece])
    np.testing.assert_array_equal(y, whole)


def test_axpby_writes_nowhere_it_must_not():
    x, y = np.ones(4, np.float32), np.ones(4, np.float32)
    for wrong in (x[:3], np.ones((4, 2), np.float32)):
        with pytest.raises(ValueError, match="broadcast"):
            axpby(1, wrong, 1, y)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        axpby(1, x, 1, y)
    np.testing.assert_array_equal(y, 1)


def test_axpby_without_openblas_gives_the_same(monkeypatch):
    x, y = np.random.default_rng(0).standard_normal((2, 100))
    with_it, without = y.copy(), y.copy()
    axpby(0.1, x, 0.9, with_it)
    monkeypatch.setattr(blas, "openblas", lambda: None)
    axpby(0.1, x, 0.9, without)
    np.testing.assert_allclose(with_it, without, rtol=0, atol=1e-15)


@pytest.mark.skipif(blas.openblas() is None, reason="NumPy's products are another library's")
def test_openblas_is_asked_where_it_can_do_it(monkeypatch):
    asked = []
    spy = blas.openblas()._replace(axpby=dict.fromkeys("fd", lambda *how: asked.append(how)))
    monkeypatch.setattr(blas, "openblas", lambda: spy)
    for letter in "fdFD":
        axpby(2, np.ones(3, letter), 3, np.ones(3, letter))
    assert [how[:2] + how[3:5] for how in asked] == 2 * [(3, 2, 1, 3)]


IDLE = """
import time
import minigpt2
import numpy as np

x = np.ones((500, 500), np.float32)
x @ x
x @ x
before = time.process_time()
time.sleep(0.015)
print(time.process_time() - before)
"""


@pytest.mark.skipif(cores() < 2, reason="one core: BLAS has no threads that could wait")
def test_after_a_product_the_threads_of_blas_leave_the_cores_alone():
    ours = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}

    def seconds(**environment):
        runs = [
            subprocess.run(
                [sys.executable, "-c", IDLE],
                env=ours | environment,
                capture_output=True,
                text=True,
                check=True,
            )
            for _ in range(3)
        ]
        return [float(run.stdout) for run in runs]

    asleep = min(seconds())
    assert asleep < 0.003
    if blas_of_numpy() == "openblas":  # and what a user has set stays
        assert max(seconds(OPENBLAS_THREAD_TIMEOUT="26")) > 2 * asleep


def blas_of_numpy():
    """The library that does NumPy's products."""
    names = [lib["internal_api"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    return names[0] if names else None
