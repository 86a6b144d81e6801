"""Backend: an op is replaced on a device and nowhere else, and a device is asked once."""

import os
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from minigpt2 import backend
from minigpt2.backend import (
    ONE_CORE_A_PRODUCT,
    array_module,
    axpby,
    each_block,
    fetch,
    fusible,
    map_rows,
    register,
    row_blocks,
)
from tests.cores import take_cores


class DeviceArray:
    """An array of a device: NumPy's, in a box."""

    def __init__(self, host):
        self.host = host

    def __len__(self):
        return len(self.host)

    def ravel(self):
        return DeviceArray(self.host.ravel())


@pytest.fixture
def device(monkeypatch):
    """A device's library that is in use, and counts what is copied from it."""
    copies = []

    def asnumpy(array):
        copies.append(array.host.size)
        return array.host

    def concatenate(arrays):
        return DeviceArray(np.concatenate([array.host for array in arrays]))

    library = SimpleNamespace(
        ndarray=DeviceArray, asnumpy=asnumpy, concatenate=concatenate, copies=copies
    )
    monkeypatch.setattr(backend, "LIBRARIES", [])
    monkeypatch.setattr(backend, "FUSED", {})
    return library


@fusible
def double(x, times=2):
    """An op."""
    return "formula", times


def test_an_array_belongs_to_the_library_that_made_it(device):
    there = DeviceArray(np.ones(3))
    assert array_module(there) is np  # a library that is not in use is not asked
    register(device, ())
    assert array_module(there) is device
    assert array_module(np.ones(3)) is np
    register(device, ())
    assert [device] == backend.LIBRARIES


def test_a_fused_op_takes_the_place_of_its_formula_on_the_device_alone(device):
    def fused(x, times=2):
        return NotImplemented if times == 5 else ("kernel", times)

    fused.__name__ = "double"
    register(device, [fused])
    there = DeviceArray(np.ones(3))
    assert double(there, 3) == ("kernel", 3)
    assert double(there, times=4) == ("kernel", 4)
    assert double(there, 5) == ("formula", 5)  # the kernel cannot do this one
    assert double(np.ones(3)) == ("formula", 2)
    assert double.__doc__ == "An op."


def test_without_a_fused_op_the_formula_runs_on_the_device(device):
    register(device, ())
    assert double(DeviceArray(np.ones(3))) == ("formula", 2)


def test_arrays_come_back_in_one_copy(device):
    register(device, ())
    parts = [np.arange(n, dtype=np.float32).reshape(-1, 1) for n in (3, 1, 4)]
    for found, part in zip(fetch(*map(DeviceArray, parts)), parts, strict=True):
        np.testing.assert_array_equal(found, part.ravel())
    assert device.copies == [8]
    for found, part in zip(fetch(*parts), parts, strict=True):
        np.testing.assert_array_equal(found, part.ravel())
    np.testing.assert_array_equal(fetch(parts[0], 2.5)[1], [2.5])
    assert device.copies == [8]


def test_every_block_is_done_once():
    done = []
    each_block(done.append, list(range(7)))
    assert sorted(done) == list(range(7))


def test_what_goes_wrong_in_a_block_is_raised_when_no_core_is_at_work_any_more():
    done = []

    def work(block):
        if block in (0, 5):
            raise ArithmeticError(f"block {block}")
        done.append(block)

    with pytest.raises(ArithmeticError):
        each_block(work, list(range(8)))
    before = list(done)
    time.sleep(0.01)
    assert done == before


def test_in_shares_a_product_is_its_cores_own_and_afterwards_all_cores(monkeypatch):
    before = threads_of_blas()
    take_cores(monkeypatch, 2)
    found = []
    each_block(lambda block: found.append(threads_of_blas()), [0, 1])
    assert set(chain(*found)) == {1} or backend.openblas() is None

    def work(block):
        raise ArithmeticError

    for failing in (lambda: each_block(work, [0, 1]), lambda: each_block(work, [0])):
        with pytest.raises(ArithmeticError):
            failing()
        assert threads_of_blas() == before
    each_block(lambda block: found.append(threads_of_blas()), [0])
    assert found[-1] == before  # the caller alone has all cores


def test_the_last_one_out_gives_blas_its_threads_back():
    before = threads_of_blas()
    with ONE_CORE_A_PRODUCT:
        with ONE_CORE_A_PRODUCT:
            pass
        assert set(threads_of_blas()) <= {1} or backend.openblas() is None
    assert threads_of_blas() == before


def threads_of_blas():
    """How many threads each BLAS of the process would take."""
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


@pytest.mark.skipif(sys.platform != "linux", reason="where libraries are loaded from is known")
def test_openblas_is_found_if_numpy_has_it(monkeypatch, tmp_path):
    wheel = list(Path(np.__file__).parents[1].glob("numpy.libs/*openblas*"))
    assert (backend.openblas() is not None) == (blas() == "openblas") or not wheel
    backend.openblas.cache_clear()
    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    again = backend.openblas()  # as if NumPy had no wheel: by what is loaded
    backend.openblas.cache_clear()
    assert (again is not None) == (blas() == "openblas")


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
    monkeypatch.setattr(backend, "openblas", lambda: None)
    axpby(0.1, x, 0.9, without)
    np.testing.assert_allclose(with_it, without, rtol=0, atol=1e-15)


@pytest.mark.skipif(backend.openblas() is None, reason="NumPy's products are another library's")
def test_openblas_is_asked_where_it_can_do_it(monkeypatch):
    asked = []
    spy = backend.openblas()._replace(axpby=dict.fromkeys("fd", lambda *how: asked.append(how)))
    monkeypatch.setattr(backend, "openblas", lambda: spy)
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


@pytest.mark.skipif(backend.cores() < 2, reason="one core: BLAS has no threads that could wait")
def test_after_a_product_the_threads_of_blas_leave_the_cores_alone():
    def seconds(**environment):
        runs = [
            subprocess.run(
                [sys.executable, "-c", IDLE],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=True,
            )
            for _ in range(3)
        ]
        return [float(run.stdout) for run in runs]

    asleep = min(seconds())
    assert asleep < 0.003
    if blas() == "openblas":  # and what a user has set stays
        assert max(seconds(OPENBLAS_THREAD_TIMEOUT="26")) > 2 * asleep


def blas():
    """The library that does NumPy's products."""
    names = [lib["internal_api"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    return names[0] if names else None


@given(st.integers(0, 300), st.integers(1, 5000))
def test_blocks_have_all_rows_and_fit_and_are_shared_out_evenly(n, row_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "BLOCK_BYTES", 1000)
        patch.setattr(backend, "cores", lambda: 3)
        blocks = row_blocks(n, row_bytes)
    assert [row for block in blocks for row in range(n)[block]] == list(range(n))
    sizes = [block.stop - block.start for block in blocks]
    assert all(size == 1 or size * row_bytes <= 1000 for size in sizes)
    share = -(-len(blocks) // 3)  # blocks of the first core
    assert all(size == sizes[0] for size in sizes[:-1])
    assert len(blocks) < 2 or share * sizes[0] <= n / 3 + share


def test_rows_are_mapped_in_blocks(monkeypatch):
    monkeypatch.setattr(backend, "BLOCK_BYTES", 64)
    x = np.arange(60.0).reshape(20, 3)
    sizes = []

    def formula(x):
        sizes.append(len(x))
        return x + 1, x.sum(-1)

    plus, sums = map_rows(formula, x)
    np.testing.assert_array_equal(plus, x + 1)
    np.testing.assert_array_equal(sums, x.sum(-1))
    assert max(sizes) == 2 and sum(sizes) == 20 + 1  # one row tells what to expect


def test_sums_over_rows_are_added_up_over_blocks(monkeypatch):
    monkeypatch.setattr(backend, "BLOCK_BYTES", 64)
    x = np.arange(60.0).reshape(20, 3)
    double, total, squares = map_rows(lambda x: (2 * x, x.sum(0), (x * x).sum()), x, sums=2)
    np.testing.assert_array_equal(double, 2 * x)
    np.testing.assert_array_equal(total, x.sum(0))
    assert squares == (x * x).sum()
    np.testing.assert_array_equal(map_rows(lambda x: x.sum(0), x, sums=1), x.sum(0))
