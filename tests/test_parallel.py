"""Parallel work: every block once, on all cores, each product on its own core."""

import time
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2 import parallel
from minigpt2.blas import openblas
from minigpt2.parallel import each_block, map_rows, row_blocks
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


def test_in_shares_a_product_is_its_cores_own_and_afterwards_all_cores(monkeypatch):
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
    assert found[-1] == before  # the caller alone has all cores


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
