"""Parallel work: every block once, on all cores, each product on its own core."""

import gc
import time
import weakref
from collections import deque
from itertools import chain
from queue import SimpleQueue
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2 import blas, parallel
from minigpt2.blas import openblas
from minigpt2.parallel import Blocks, each_block, map_rows, matmul, row_blocks, tiles
from tests.fake_cores import fake_core_count
from tests.test_blas import threads_of_blas


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


def test_in_blocks_a_product_is_its_cores_own_and_afterwards_all_cores(monkeypatch):
    before = threads_of_blas()
    fake_core_count(monkeypatch, 2)
    found = []
    each_block(lambda block: found.append(threads_of_blas()), [0, 1])
    assert set(chain(*found)) == {1} or openblas() is None

    def work(block):
        raise ArithmeticError

    for failing in (lambda: each_block(work, [0, 1]), lambda: each_block(work, [0])):
        with pytest.raises(ArithmeticError):
            failing()
        assert threads_of_blas() == before
    each_block(lambda block: found.append(threads_of_blas()), [0])
    assert set(found[-1]) == {1} or openblas() is None  # one block: the caller's core alone


@pytest.fixture
def late_helpers(monkeypatch):
    """Two cores, the other one so busy that no helper ever begins."""
    fake_core_count(monkeypatch, 2)
    queue = SimpleQueue()
    monkeypatch.setattr(parallel, "helpers", lambda: queue)
    return queue


def test_nobody_waits_for_a_helper_that_has_begun_nothing(late_helpers):
    done = []
    each_block(done.append, [3, 1, 2])
    assert done == [3, 1, 2]
    late_helpers.get().help()
    assert done == [3, 1, 2]


def test_the_caller_waits_for_a_block_that_a_helper_has_begun(late_helpers):
    done, begun = [], Event()

    def work(block):
        if block == "first":
            Thread(target=late_helpers.get().help).start()
            begun.wait()
        else:
            begun.set()
            time.sleep(0.01)
        done.append(block)

    each_block(work, ["first", "second"])
    assert done == ["first", "second"]


def test_what_goes_wrong_in_a_helpers_block_is_raised_by_the_caller(late_helpers):
    begun = Event()

    def work(block):
        if block == "first":
            Thread(target=late_helpers.get().help).start()
            begun.wait()
        else:
            begun.set()
            raise ArithmeticError(block)

    with pytest.raises(ArithmeticError, match="second"):
        each_block(work, ["first", "second"])


def test_another_core_may_take_the_last_block_first():
    shared = Blocks(None, [])
    shared.remaining = SimpleNamespace(popleft=deque().popleft)  # it seems that one remains
    assert list(shared) == []


def test_a_helper_that_comes_too_late_keeps_no_arrays(late_helpers):
    x = np.ones(3)
    alive = weakref.ref(x)
    each_block(lambda block, x=x: x.sum(), [0, 1])
    del x
    gc.collect()
    assert alive() is None and not late_helpers.empty()


@given(st.integers(0, 300), st.integers(1, 5000))
def test_blocks_have_all_rows_and_fit_and_are_shared_out_evenly(n, row_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "BLOCK_BYTES", 1000)
        patch.setattr(parallel, "cores", lambda: 3)
        blocks = row_blocks(n, row_bytes)
    assert [row for block in blocks for row in range(n)[block]] == list(range(n))
    sizes = [block.stop - block.start for block in blocks]
    assert all(size == 1 or size * row_bytes <= 1000 for size in sizes)
    share = -(-len(blocks) // 3)  # blocks of the first core
    assert all(size == sizes[0] for size in sizes[:-1])
    assert len(blocks) < 2 or share * sizes[0] <= n / 3 + share


def test_rows_are_mapped_in_blocks(monkeypatch):
    monkeypatch.setattr(parallel, "BLOCK_BYTES", 64)
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
    monkeypatch.setattr(parallel, "BLOCK_BYTES", 64)
    x = np.arange(60.0).reshape(20, 3)
    double, total, squares = map_rows(lambda x: (2 * x, x.sum(0), (x * x).sum()), x, sums=2)
    np.testing.assert_array_equal(double, 2 * x)
    np.testing.assert_array_equal(total, x.sum(0))
    assert squares == (x * x).sum()
    np.testing.assert_array_equal(map_rows(lambda x: x.sum(0), x, sums=1), x.sum(0))


sizes = st.integers(1, 40)


@given(sizes, sizes, sizes, st.sampled_from("fdFD"), st.booleans(), st.integers(1, 5))
def test_products_are_right_and_the_same_bits_whoever_makes_their_tiles(
    n, c, k, letter, out, count
):
    rng = np.random.default_rng([n, c, k])
    x, w, dy = (rng.standard_normal(shape).astype(letter) for shape in ((n, c), (c, k), (n, k)))
    for a, b in ((x, w), (dy, w.T), (x.T, dy)):
        memory = np.full((len(a), b.shape[1]), np.nan, letter) if out else None
        results = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel, "TILE", 100)
            patch.setattr(parallel, "TILE_EDGE", 4)
            fake_core_count(patch, count)
            for _ in range(2):
                results.append(matmul(a, b, memory).copy())
                patch.setattr(parallel, "helpers", SimpleQueue)  # now nobody helps
        np.testing.assert_array_equal(*results)
        np.testing.assert_allclose(
            results[0], a @ b, rtol=0, atol=1e-4 if letter in "fF" else 1e-12
        )
        assert results[0].dtype == x.dtype and (memory is None or (memory == results[0]).all())


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 12))
def test_tiles_cover_a_product_once(rows, columns, count):
    covered = np.zeros((rows, columns), np.int8)
    cut = tiles(rows, columns, count)
    for tile in cut:
        covered[tile] += 1
    assert covered.min() == covered.max() == 1 and len(cut) <= count


def test_tiles_are_of_one_size_and_nearly_square():
    sides = {tuple(part.stop - part.start for part in tile) for tile in tiles(960, 3840, 16)}
    assert sides == {(480, 480)}
    assert [tile[0].stop for tile in tiles(1000, 200, 2)] == [528, 1000]


def test_a_small_product_is_the_callers_alone_and_a_large_one_is_cut(monkeypatch):
    blocks, threads = [], []
    fake_core_count(monkeypatch, 2)
    monkeypatch.setattr(parallel, "each_block", lambda work, cut: blocks.append(len(cut)))
    if openblas() is not None:
        spy = openblas()._replace(get_threads=lambda: 2, set_threads=threads.append)
        monkeypatch.setattr(blas, "openblas", lambda: spy)
        monkeypatch.setattr(parallel, "openblas", lambda: spy)
    for n in (64, 512):
        matmul(np.ones((n, 256), np.float32), np.ones((256, 256), np.float32))
    if openblas() is not None:
        assert blocks == [2] and threads == [1, 2, 1, 2]


def test_without_openblas_products_are_left_to_the_library(monkeypatch):
    monkeypatch.setattr(parallel, "openblas", lambda: None)
    monkeypatch.setattr(parallel, "each_block", None)
    x = np.ones((512, 256), np.float32)
    np.testing.assert_array_equal(matmul(x, x.T), x @ x.T)
