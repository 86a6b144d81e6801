"""Attention over the token forest: what its chapter claims.

It is compared with plain attention, which has full (N, N) matrices, of tests/plain.py.
"""

import tracemalloc
from itertools import pairwise
from threading import Barrier, get_ident

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.ops import attention as module
from minigpt2.ops.attention import (
    attention,
    attention_backward,
    scores,
)
from minigpt2.ops.attention_tiles import dropout_rng, head_groups, key_blocks, query_blocks
from tests import plain
from tests.fake_cores import fake_core_count
from tests.kernels.support import SHORT
from tests.ops.cases import (
    DROPPED,
    FOREST,
    RATE,
    C,
    H,
    N,
    ends,
    keep_factors,
)

quick = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 999)
blocks = st.sampled_from([1, 2, 3, 5, 8, 128])


def segments(depth):
    """A segment of one to five rows with up to three segments below it, `depth` levels deep."""
    lengths = st.integers(1, 5)
    if depth == 0:
        return st.tuples(lengths)
    below = st.lists(segments(depth - 1), max_size=3)
    return st.tuples(lengths, below).map(lambda segment: (segment[0], *segment[1]))


roots = st.lists(segments(3), min_size=1, max_size=3)
forests = roots.map(lambda segments: ends(*segments))


def inputs(end, seed, heads=H, width=4):
    """Random qkv and do for the rows of a forest."""
    rng = np.random.default_rng(seed)
    features = heads * width
    return (rng.standard_normal((len(end), count * features)) for count in (3, 1))


@given(forests, blocks, seeds)
@quick
def test_equals_a_plain_masked_softmax(end, block, seed):
    qkv, do = inputs(end, seed)
    o, saved = attention(qkv, end, H, block=block)
    np.testing.assert_allclose(o, plain.attention(qkv, end, H), atol=1e-12)
    expected = plain.attention_backward(do, qkv, end, H)
    np.testing.assert_allclose(attention_backward(do, saved), expected, atol=1e-12)


@given(forests, blocks, seeds, st.sampled_from([1.0, 0.5, 7.0]))
@quick
def test_equals_a_plain_masked_softmax_with_another_divisor(end, block, seed, divisor):
    qkv, do = inputs(end, seed)
    o, saved = attention(qkv, end, H, block=block, divisor=divisor)
    np.testing.assert_allclose(o, plain.attention(qkv, end, H, divisor=divisor), atol=1e-12)
    expected = plain.attention_backward(do, qkv, end, H, divisor=divisor)
    np.testing.assert_allclose(attention_backward(do, saved), expected, atol=1e-12)


def test_scores_are_divided_by_the_root_of_a_heads_width_or_by_what_is_said():
    end = np.array([3, 3, 3])
    qkv, _ = inputs(end, 0, heads=2, width=4)
    plainly, halved, whole = (attention(qkv, end, 2, divisor=d)[0] for d in (None, 2.0, 1.0))
    np.testing.assert_array_equal(plainly, halved)  # √4
    np.testing.assert_allclose(whole, plain.attention(qkv, end, 2, divisor=1.0), atol=1e-14)
    assert abs(whole - plainly).max() > 1e-3


@pytest.mark.parametrize("end", [FOREST, ends((N,))], ids=["forest", "one sequence"])
def test_equals_a_plain_masked_softmax_with_dropout(end):
    qkv, do = inputs(end, 0, width=C // H)
    z = keep_factors(qkv, end, **DROPPED)
    o, saved = attention(qkv, end, H, **DROPPED)
    np.testing.assert_allclose(o, plain.attention(qkv, end, H, z), atol=1e-12)
    expected = plain.attention_backward(do, qkv, end, H, z)
    np.testing.assert_allclose(attention_backward(do, saved), expected, atol=1e-12)


@given(blocks, seeds, st.integers(1, 20))
@quick
def test_one_sequence_is_the_special_case_end_is_n(block, seed, n):
    end = np.full(n, n)
    np.testing.assert_array_equal(plain.visible_pairs(end), np.tri(n, dtype=bool))
    qkv, _ = inputs(end, seed)
    expected = plain.attention(qkv, end, H)
    np.testing.assert_allclose(attention(qkv, end, H, block=block)[0], expected, atol=1e-12)


def paths(roots):
    """For each segment of a forest: its own rows, and with them all rows of its ancestors."""
    start = 0

    def walk(segment, above):
        nonlocal start
        own = list(range(start, start + segment[0]))
        start += segment[0]
        yield own, above + own
        for below in segment[1:]:
            yield from walk(below, above + own)

    for root in roots:
        yield from walk(root, [])


@given(roots, blocks, seeds)
@quick
def test_a_token_sees_its_own_segment_up_to_itself_and_the_whole_of_every_ancestor(
    roots, block, seed
):
    end = ends(*roots)
    qkv, _ = inputs(end, seed)
    o, _ = attention(qkv, end, H, block=block)
    for own, path in paths(roots):
        alone, _ = attention(qkv[path], np.full(len(path), len(path)), H)
        np.testing.assert_allclose(o[own], alone[-len(own) :], atol=1e-12)


@given(roots, seeds)
@quick
def test_the_gradient_of_a_forest_is_the_sum_over_its_paths_run_one_by_one(roots, seed):
    end = ends(*roots)
    qkv, do = inputs(end, seed)
    together = attention_backward(do, attention(qkv, end, H, block=4)[1])
    summed = np.zeros_like(qkv)
    for own, path in paths(roots):
        _, saved = attention(qkv[path], np.full(len(path), len(path)), H)
        alone = np.zeros((len(path), do.shape[1]))
        alone[-len(own) :] = do[own]
        summed[path] += attention_backward(alone, saved)
    np.testing.assert_allclose(together, summed, atol=1e-12)


@given(forests, blocks, seeds)
@quick
def test_a_row_changes_nothing_for_a_row_that_does_not_see_it(end, block, seed):
    qkv, do = inputs(end, seed)
    j = seed % len(end)
    blind = ~plain.visible_pairs(end)[:, j]
    before, saved = attention(qkv, end, H, block=block)
    moved = qkv.copy()
    moved[j] = 100 + moved[j] * -3
    after, _ = attention(moved, end, H, block=block)
    np.testing.assert_array_equal(after[blind], before[blind])
    do[~blind] = 0  # only rows that do not see j are left to send it a gradient
    np.testing.assert_array_equal(attention_backward(do, saved)[j], 0)


@given(forests, blocks, seeds)
@quick
def test_values_that_are_all_equal_come_out_unchanged(end, block, seed):
    qkv, _ = inputs(end, seed)
    value = np.random.default_rng([seed, 1]).standard_normal(qkv.shape[1] // 3)
    qkv[:, -len(value) :] = value
    o, _ = attention(qkv, end, H, block=block)
    np.testing.assert_allclose(o, np.broadcast_to(value, o.shape), atol=1e-13)


@given(forests, blocks, seeds, st.sampled_from([0.0, RATE]))
@quick
def test_each_row_of_ds_adds_up_to_0(end, block, seed, rate):
    # Σⱼ dkⱼ = (1/√D) Σᵢ (Σⱼ dsᵢⱼ) qᵢ, for every q: equal keys more or less change no probability.
    qkv, do = inputs(end, seed)
    _, saved = attention(qkv, end, H, rate, seed, block=block)
    dk = np.split(attention_backward(do, saved), 3, axis=1)[1]
    np.testing.assert_allclose(dk.sum(0), 0, atol=1e-12)


@given(forests, blocks, seeds, st.sampled_from([1e3, 1e10, 1e100]))
@quick
def test_no_exponential_overflows(end, block, seed, scale):
    qkv, do = inputs(end, seed)
    qkv[:, : qkv.shape[1] * 2 // 3] *= scale
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        o, saved = attention(qkv, end, H, block=block)
        dqkv = attention_backward(do, saved)
    assert np.isfinite(dqkv).all()
    np.testing.assert_allclose(o, plain.attention(qkv, end, H), atol=1e-9)


def test_rising_scores_raise_the_maximum_block_after_block():
    n, block = 40, 3
    for sign in (-1, 1):
        qkv = np.random.default_rng(0).standard_normal((n, 3))
        qkv[:, 0], qkv[:, 1] = 1, sign * 50.0 * np.arange(n)
        o, _ = attention(qkv, np.full(n, n), 1, block=block)
        expected = plain.attention(qkv, np.full(n, n), 1)
        np.testing.assert_allclose(o, expected, atol=1e-12)


@given(forests, blocks)
@quick
def test_blocks_of_queries_have_all_rows_and_cut_no_run_that_fits(end, block):
    rows = query_blocks(end, block)
    assert [i for one in rows for i in range(len(end))[one]] == list(range(len(end)))
    assert all(one.stop - one.start <= block for one in rows)
    cuts = {one.start for one in rows[1:]}
    stops = [0, *(np.flatnonzero(end == np.arange(len(end)) + 1) + 1)]
    for start, stop in pairwise(stops):
        if stop - start <= block:
            assert not cuts & set(range(start + 1, stop))
    after = dict(pairwise(stops))  # where a run begins: where it ends
    for one in rows[:-1]:  # runs are together as far as half a block goes
        assert one.stop not in stops or after[one.stop] - one.start > block // 2
        whole = one.start in after and one.stop in stops
        assert not whole or after[one.start] == one.stop or one.stop - one.start <= block // 2


@given(forests, blocks)
@quick
def test_the_block_with_the_row_itself_comes_first(end, block):
    for rows in query_blocks(end, block):
        keys, visible = next(key_blocks(end, rows, block))
        own = np.arange(len(end))[keys]
        i = np.arange(rows.start, rows.stop)
        assert np.isin(i, own).all()
        visible = np.ones((len(i), len(own)), bool) if visible is None else visible
        assert visible.any(1).all()


def test_a_row_does_not_see_the_root_that_ended_before_it():
    end = np.array([2, 2, 4, 4])
    ((keys, visible),) = key_blocks(end, slice(0, 4), 4)
    assert keys == slice(0, 4)
    assert visible.astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_keys_are_a_slice_where_they_are_contiguous():
    end = np.array([8, 8, 8, 7, 7, 7, 7, 8, 9])
    tiles = [[keys for keys, _ in key_blocks(end, rows, 4)] for rows in query_blocks(end, 4)]
    assert tiles[:2] == [[slice(0, 4)], [slice(3, 7), slice(0, 3)]]
    assert tiles[2][0].tolist() == [0, 1, 2, 7, 8]


@pytest.mark.parametrize(
    ("n_head", "groups", "sizes"),
    [(1, 1, [1]), (4, 2, [2, 2]), (5, 2, [3, 2]), (3, 8, [1, 1, 1]), (12, 5, [3, 3, 3, 3])],
)
def test_heads_are_shared_out_and_each_is_in_one_group(n_head, groups, sizes):
    found = [list(range(n_head))[heads] for heads in head_groups(n_head, groups)]
    assert [head for heads in found for head in heads] == list(range(n_head))
    assert [len(heads) for heads in found] == sizes


def test_the_masks_of_a_block_are_drawn_from_the_seed_its_first_row_and_1():
    """So a run of a seed has the masks that it always had, and row 0 has not those of the seed."""
    found = [dropout_rng(3, rows).random() for rows in (slice(0, 4), slice(4, 9))]
    assert found == [np.random.default_rng(seeds).random() for seeds in ([3, 0, 1], [3, 4, 1])]
    assert np.random.default_rng(3).random() == np.random.default_rng([3, 0]).random() != found[0]


@given(forests, blocks)
@quick
def test_keys_that_no_row_of_a_block_sees_are_never_looked_at(end, block):
    pairs = plain.visible_pairs(end)
    for rows in query_blocks(end, block):
        found = np.zeros_like(pairs[rows])
        for keys, visible in key_blocks(end, rows, block):
            j = np.arange(len(end))[keys]
            assert pairs[rows][:, j].any(0).all() and not found[:, j].any()
            assert len(j) * (rows.stop - rows.start) <= block * block
            found[:, j] = True if visible is None else visible
        np.testing.assert_array_equal(found, pairs[rows])


def test_never_a_matrix_of_pairs_larger_than_one_block_by_one_block_a_head():
    n, block = 4000, 50
    end = np.full(n, n)
    qkv, do = inputs(end, 0, heads=2)
    tracemalloc.start()
    attention_backward(do, attention(qkv, end, 2, block=block)[1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pairs = 2 * block * block * 8  # bytes, of two heads
    hidden = n * block * 8  # of the blocks on the diagonal
    assert peak < 4 * qkv.nbytes + hidden + 3 * pairs + 5 * do.nbytes < n * n * 8 / 16


def test_scores_of_rows_that_differ_by_much_do_not_underflow():
    qkv, _ = inputs(ends((4,)), 0, heads=1)
    qkv[:2, :4] *= 1e4  # queries of the first two rows
    o, saved = attention(qkv, ends((4,)), 1)
    assert np.isfinite(saved.lse).all()
    np.testing.assert_allclose(o, plain.attention(qkv, ends((4,)), 1), atol=1e-12)


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_however_many_cores_take_part_the_bits_are_the_same(monkeypatch, cores):
    end = FOREST[:, None].repeat(5, 1).ravel() * 5
    qkv, do = inputs(end, 0, heads=3)

    def both():
        o, saved = attention(qkv, end, 3, block=4)
        return o, saved.lse, attention_backward(do, saved)

    first = both()
    fake_core_count(monkeypatch, cores)
    for one, other in zip(first, both(), strict=True):
        np.testing.assert_array_equal(one, other)


class Device:
    """A library that is not NumPy and computes like it."""

    def __getattr__(self, name):
        return getattr(np, name)


@pytest.mark.parametrize(("library", "count"), [(np, 2), (Device(), 1)], ids=["NumPy", "device"])
def test_all_cores_take_part_but_on_a_device_the_callers_thread_alone(monkeypatch, library, count):
    fake_core_count(monkeypatch, 2)
    threads, all_there = set(), Barrier(count)

    def recorded(*operands):
        if get_ident() not in threads:
            threads.add(get_ident())
            all_there.wait(timeout=10)
        return scores(*operands)

    monkeypatch.setattr(module, "scores", recorded)
    monkeypatch.setattr(module, "array_module", lambda x: library)
    qkv, do = inputs(FOREST, 0)
    _, saved = attention(qkv, FOREST, H, block=4)
    assert len(threads) == count and get_ident() in threads
    threads.clear()
    attention_backward(do, saved)
    assert len(threads) == count and get_ident() in threads


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masks_and_sums_have_the_precision_of_the_scores(monkeypatch, dtype):
    masks = []

    def recorded(q, k, mask):
        masks.append(mask)
        return scores(q, k, mask)

    monkeypatch.setattr(module, "scores", recorded)
    qkv, do = (array.astype(dtype) for array in inputs(FOREST, 0))
    _, saved = attention(qkv, FOREST, H, block=4)
    attention_backward(do, saved)
    assert saved.lse.dtype == dtype
    assert {mask.dtype for mask in masks if mask is not None} == {np.dtype(dtype)}


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("dtype", SHORT.values(), ids=SHORT)
def test_sums_of_16_bit_numbers_are_in_float32(dtype, rate):
    """Where there is no kernel; in 16 bits the probabilities of a row would not add up to 1."""
    n, rng = 600, np.random.default_rng(0)
    qkv, do = (2 * rng.standard_normal((n, c)) for c in (3 * 32, 32))
    qkv, do = qkv.astype(dtype), do.astype(dtype)
    end = np.full(n, n)
    o, saved = attention(qkv, end, 2, rate, seed=1)
    dqkv = attention_backward(do, saved)
    exact, wide = attention(qkv.astype(np.float64), end, 2, rate, seed=1)
    expected = attention_backward(do.astype(np.float64), wide)
    assert o.dtype == dqkv.dtype == dtype and saved.qkv is qkv and saved.lse.dtype == np.float32
    np.testing.assert_allclose(saved.lse, wide.lse, atol=1e-5)
    bound = 4 * (2.0**-11 if dtype is np.float16 else 2.0**-8)
    for actual, right in ((o, exact), (dqkv, expected)):
        assert abs(actual.astype(np.float64) - right).max() < bound * abs(right).max()


def test_ends_may_be_of_any_width():
    qkv, _ = inputs(FOREST, 0)
    narrow, _ = attention(qkv, FOREST.astype(np.int32), H, block=4)
    np.testing.assert_array_equal(narrow, attention(qkv, FOREST, H, block=4)[0])


def test_keeps_qkv_o_and_lambda():
    qkv, _ = inputs(FOREST, 0)
    o, saved = attention(qkv, FOREST, H)
    assert saved.qkv is qkv and saved.o is o
    kept = [one for one in saved if isinstance(one, np.ndarray) and one is not saved.end]
    assert sum(one.size for one in kept) == N * (4 * o.shape[1] + H)
    assert (saved.dropout, saved.seed, saved.block) == (0, 0, 128)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_keep_factors_are_0_or_one_over_the_chance_to_be_kept(rate):
    qkv, _ = inputs(FOREST, 0, width=C // H)
    kept, pairs = 0, 0
    for seed in range(40):
        z = keep_factors(qkv, FOREST, dropout=rate, seed=seed, block=4)[
            :, plain.visible_pairs(FOREST)
        ]
        assert np.logical_or(z == 0, abs(z - 1 / (1 - rate)) < 1e-9).all()
        kept, pairs = kept + (z > 0).sum(), pairs + z.size
    assert abs(kept / pairs - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / pairs)


def test_the_seed_fixes_which_probabilities_are_dropped():
    qkv, _ = inputs(FOREST, 0)
    one, same, other = (attention(qkv, FOREST, H, RATE, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).max() > 0.01


def test_dropout_differs_between_heads_and_between_blocks():
    end = ends((N,))
    qkv, _ = inputs(end, 0, width=C // H)
    z = keep_factors(qkv, end, dropout=0.5, seed=0, block=4)
    assert (z[0] != z[1]).any() and (z[1] != z[2]).any()
    assert (z[:, 4:8, :4] != z[:, 8:12, :4]).any() and (z[:, 8:12, :4] != z[:, 8:12, 4:8]).any()
