"""Embedding: what its chapter claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.ops.embedding import (
    Saved,
    add_at,
    chosen_rows,
    embedding,
    embedding_backward,
    scatter_add,
    scatter_rows,
)

V, T, C = 11, 7, 3
rows = st.lists(st.tuples(st.integers(0, V - 1), st.integers(0, T - 1)), min_size=1, max_size=30)
quick = settings(deadline=None, max_examples=60)


def inputs(pairs):
    """Random tables and dx for rows of (id, position)."""
    ids, positions = np.array(pairs).T
    rng = np.random.default_rng(len(pairs))
    tables = rng.standard_normal((V, C)), rng.standard_normal((T, C))
    return *tables, ids, positions, rng.standard_normal((len(ids), C))


def backward(dx, ids, positions):
    """What the backward pass adds to tables of zeros."""
    tables = np.zeros((V, C)), np.zeros((T, C))
    embedding_backward(dx, Saved(ids, positions), *tables)
    return tables


@given(rows)
@quick
def test_a_row_of_features_for_each_token_id_plus_one_for_its_position(pairs):
    wte, wpe, ids, positions, _ = inputs(pairs)
    x, _ = embedding(wte, wpe, ids, positions)
    for n, (token, position) in enumerate(pairs):
        np.testing.assert_array_equal(x[n], wte[token] + wpe[position])


@given(rows)
@quick
def test_an_id_that_occurs_k_times_receives_the_sum_of_k_gradients(pairs):
    *_, ids, positions, dx = inputs(pairs)
    dwte, dwpe = backward(dx, ids, positions)
    for v in range(V):
        np.testing.assert_allclose(dwte[v], dx[ids == v].sum(0), atol=1e-13)
    for p in range(T):
        np.testing.assert_allclose(dwpe[p], dx[positions == p].sum(0), atol=1e-13)


@given(rows)
@quick
def test_an_id_that_does_not_occur_receives_zero(pairs):
    *_, ids, positions, dx = inputs(pairs)
    dwte, _ = backward(dx, ids, positions)
    absent = np.setdiff1d(np.arange(V), ids)
    np.testing.assert_array_equal(dwte[absent], 0)


def test_adding_at_repeated_ids_reads_the_old_row_once_and_keeps_the_last():
    table, ids, dx = np.zeros(3), np.array([1, 1, 1]), np.array([1.0, 2.0, 4.0])
    table[ids] += dx
    np.testing.assert_array_equal(table, [0, 4, 0])
    np.testing.assert_array_equal(scatter_add(dx[:, None], ids, 3)[:, 0], [0, 7, 0])


@given(rows, st.integers(0, 99))
@quick
def test_the_order_of_the_additions_is_fixed(pairs, seed):
    _, _, ids, _, dx = inputs(pairs)
    dx = dx.astype(np.float32) * 10.0 ** np.random.default_rng(seed).integers(-4, 5, (len(dx), 1))
    np.testing.assert_array_equal(scatter_add(dx, ids, V), scatter_add(dx, ids, V))
    order = np.argsort(ids, kind="stable")
    np.testing.assert_array_equal(scatter_add(dx, ids, V), scatter_add(dx[order], ids[order], V))


def test_no_rows_at_all_give_an_empty_sum():
    np.testing.assert_array_equal(
        scatter_add(np.empty((0, C)), np.empty(0, int), V), np.zeros((V, C))
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_ids_may_be_of_any_width(dtype):
    ids = np.array([0, 10, 0, 3])
    dx = np.random.default_rng(0).standard_normal((4, C))
    np.testing.assert_array_equal(scatter_add(dx, ids.astype(dtype), V), scatter_add(dx, ids, V))


def test_keeps_the_ids_alone():
    wte, wpe, ids, positions, _ = inputs([(1, 2), (1, 3), (4, 0)])
    _, saved = embedding(wte, wpe, ids, positions)
    assert saved.ids is ids and saved.positions is positions
    assert len(saved) == 2


@given(rows)
@quick
def test_gradients_are_added_to_what_the_tables_hold(pairs):
    *_, ids, positions, dx = inputs(pairs)
    before = np.random.default_rng(1).standard_normal((V, C))
    table = before.copy()
    add_at(table, dx, ids)
    np.testing.assert_allclose(table, before + backward(dx, ids, positions)[0], atol=1e-13)


def test_a_frozen_table_has_no_gradient():
    *_, ids, positions, dx = inputs([(1, 2), (1, 3), (4, 0)])
    both, alone = backward(dx, ids, positions), (np.zeros((V, C)), np.zeros((T, C)))
    embedding_backward(dx, Saved(ids, positions), alone[0], None)
    embedding_backward(dx, Saved(ids, positions), None, alone[1])
    for table, expected in zip(alone, both, strict=True):
        np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_chosen_and_put_back_where_they_were(dtype):
    x, y = np.random.default_rng(0).standard_normal((2, 7, C)).astype(dtype)
    rows = np.array([5, 0, 3])
    some_x, some_y = chosen_rows(rows, x, y)
    np.testing.assert_array_equal(some_x, x[rows])
    np.testing.assert_array_equal(some_y, y[rows])
    back = scatter_rows(some_x, rows, len(x))
    assert back.dtype == dtype and back.shape == x.shape
    np.testing.assert_array_equal(back[rows], some_x)
    np.testing.assert_array_equal(np.delete(back, rows, 0), 0)


def test_without_rows_all_are_chosen_and_nothing_is_copied():
    x, y = np.ones((3, C)), np.zeros((3, C))
    all_x, all_y = chosen_rows(None, x, y)
    assert all_x is x and all_y is y and scatter_rows(x, None, 3) is x


def test_rows_of_one_index_are_summed_in_their_order():
    """So a sum has the same bits with every NumPy."""
    rows = np.random.default_rng(0).standard_normal((600, 3)).astype(np.float32)
    index, table = np.arange(600) % 2, np.zeros((2, 3), np.float32)
    add_at(table, rows, index)
    for k in (0, 1):
        np.testing.assert_array_equal(table[k], np.add.reduceat(rows[k::2], [0])[0])
