"""Cross-entropy with the projection inside: what its chapter claims."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.ops import cross_entropy as module
from minigpt2.ops.cross_entropy import cross_entropy, cross_entropy_gradient
from tests import plain

N, C, V = 7, 5, 11
quick = settings(deadline=None, max_examples=60)
triples = st.lists(
    st.tuples(
        st.integers(0, N - 1),
        st.integers(0, V - 1),
        st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]),
    ),
    min_size=1,
    max_size=25,
)


def inputs(triples, scale=1.0):
    """Random x and wte, and rows, targets, weights as arrays."""
    rng = np.random.default_rng(len(triples))
    rows, targets, weights = zip(*triples, strict=True)
    x, wte = scale * rng.standard_normal((N, C)), rng.standard_normal((V, C))
    return x, wte, np.array(rows), np.array(targets), np.array(weights)


def both(x, wte, *columns, **options):
    """Loss, dx and dwte of the op."""
    dwte = np.zeros_like(wte)
    loss, _, dx = cross_entropy_gradient(x, wte, *columns, dwte, **options)
    return loss, dx, dwte


@given(triples)
@quick
def test_equals_the_formula_with_all_logits(triples):
    arguments = inputs(triples)
    for one, other in zip(both(*arguments), plain.cross_entropy(*arguments), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@given(triples, st.sampled_from([1, 3, None]))
@quick
def test_a_fresh_dwte_is_put_over_what_is_there(triples, chunk):
    arguments = inputs(triples)
    dwte = np.full((V, C), np.nan)
    loss, _, dx = cross_entropy_gradient(*arguments, dwte, chunk=chunk, accumulate=False)
    for one, other in zip((loss, dx, dwte), both(*arguments, chunk=chunk), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)


@given(triples, st.floats(-3, 3))
@quick
def test_what_the_loss_is_multiplied_by_belongs_into_the_weights(triples, dloss):
    *tables, rows, targets, weights = inputs(triples)
    expected = both(*tables, rows, targets, weights)
    found = both(*tables, rows, targets, dloss * weights)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, dloss * other, atol=1e-12)


@given(triples)
@quick
def test_the_tables_gradient_is_added_to_what_is_there(triples):
    arguments = inputs(triples)
    before = np.random.default_rng(1).standard_normal((V, C))
    dwte = before.copy()
    cross_entropy_gradient(*arguments, dwte)
    np.testing.assert_allclose(dwte, before + both(*arguments)[2], atol=1e-12)


@given(triples, st.integers(1, 30))
@quick
def test_the_size_of_a_chunk_does_not_matter(triples, chunk):
    arguments = inputs(triples)
    for one, other in zip(both(*arguments), both(*arguments, chunk=chunk), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@given(triples)
@quick
def test_a_row_that_stands_in_no_triple_or_only_with_weight_0_gets_exactly_zero(triples):
    x, wte, rows, targets, weights = inputs(triples)
    _, dx, _ = both(x, wte, rows, targets, weights)
    weighted = np.isin(np.arange(N), rows[weights != 0])
    np.testing.assert_array_equal(dx[~weighted], 0)
    assert (abs(dx[weighted]).max(-1, initial=0) > 0).all()


@given(triples)
@quick
def test_logits_are_made_only_for_rows_that_are_supervised(triples):
    x, wte, rows, targets, weights = inputs(triples)
    expected = both(x, wte, rows, targets, weights)
    x[~np.isin(np.arange(N), rows[weights != 0])] = np.nan  # would spoil whatever reads it
    for one, other in zip(both(x, wte, rows, targets, weights), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("gradient", [True, False])
def test_logits_are_never_made_for_all_rows_at_once(gradient):
    n, vocabulary, chunk = 600, 3000, 20
    rng = np.random.default_rng(0)
    x, wte = rng.standard_normal((n, C)), rng.standard_normal((vocabulary, C))
    rows, targets = np.arange(n), rng.integers(0, vocabulary, n)
    dwte = np.zeros_like(wte)
    tracemalloc.start()
    triples = rows, targets, np.ones(n)
    if gradient:
        cross_entropy_gradient(x, wte, *triples, dwte, chunk=chunk)
    else:
        cross_entropy(x, wte, *triples, chunk=chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert chunk * vocabulary * 8 < peak < n * vocabulary * 8 / 8


@given(triples)
@quick
def test_the_gradient_of_a_triples_logits_adds_up_to_0(triples):
    _, _, dwte = both(*inputs(triples))  # Σᵥ dwte[v] = Σₙ (Σᵥ dℓₙᵥ) x[rowₙ]
    np.testing.assert_allclose(dwte.sum(0), 0, atol=1e-12)


def test_the_gradient_vanishes_when_p_is_1_at_the_target():
    x, wte = np.eye(3, C) * 1e3, np.eye(V, C)
    loss, dx, dwte = both(x, wte, np.arange(3), np.arange(3), np.ones(3))
    assert loss == 0 and not dx.any() and not dwte.any()


@given(triples)
@quick
def test_a_row_may_stand_in_several_triples(triples):
    x, wte, *columns = inputs(triples)
    together = both(x, wte, *columns)
    alone = [both(x, wte, *(column[[n]] for column in columns)) for n in range(len(triples))]
    for i, whole in enumerate(together):
        np.testing.assert_allclose(whole, sum(one[i] for one in alone), atol=1e-12)


@given(triples)
@quick
def test_nll_is_minus_ln_p_of_the_target(triples):
    x, wte, rows, targets, weights = inputs(triples)
    _, nll = cross_entropy(x, wte, rows, targets, weights)
    one = np.ones(1)
    singles = zip(rows[:, None], targets[:, None], strict=True)
    expected = [plain.cross_entropy(x, wte, row, target, one)[0] for row, target in singles]
    np.testing.assert_allclose(nll, expected, atol=1e-12)


@given(triples)
@quick
def test_the_loss_alone_is_the_same(triples):
    arguments = inputs(triples)
    loss, nll = cross_entropy(*arguments)
    found, some, _ = cross_entropy_gradient(*arguments, np.zeros((V, C)))
    np.testing.assert_allclose(found, loss, atol=1e-12)
    np.testing.assert_allclose(some, np.where(arguments[-1] != 0, nll, 0), atol=1e-12)


@given(triples)
@quick
def test_for_a_mean_the_weights_carry_one_over_their_sum(triples):
    x, wte, rows, targets, weights = inputs(triples)
    weights = weights + 1
    mean = cross_entropy(x, wte, rows, targets, weights / weights.sum())[0]
    nll = cross_entropy(x, wte, rows, targets, weights)[1]
    np.testing.assert_allclose(mean, np.average(nll, weights=weights), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_exponential_overflows(dtype):
    rng = np.random.default_rng(0)
    x, wte = (1e4 * rng.standard_normal((n, C)).astype(dtype) for n in (N, V))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, dx, dwte = both(x, wte, np.arange(N), np.arange(N), np.ones(N))
    assert np.isfinite(loss) and np.isfinite(dx).all() and np.isfinite(dwte).all()


@pytest.mark.parametrize("weight", [0.0, None], ids=["weight 0", "no triples"])
def test_a_batch_with_no_weighted_token_contributes_zero(weight):
    x, wte, *_ = inputs([(0, 0, 1.0)])
    columns = ([2], [3], [weight]) if weight is not None else ([], [], [])
    rows, targets, weights = (np.array(one, kind) for one, kind in zip(columns, "iid", strict=True))
    loss, dx, dwte = both(x, wte, rows, targets, weights)
    assert loss == 0 and not dx.any() and not dwte.any()
    dwte[...] = np.nan  # which a fresh gradient is put over, also where it is 0
    cross_entropy_gradient(x, wte, rows, targets, weights, dwte, accumulate=False)
    assert not dwte.any()


def test_a_chunk_is_one_triple_at_least(monkeypatch):
    x, wte, rows, *_ = inputs([(0, 1, 1.0), (3, 2, 1.0), (1, 1, 1.0)])
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    chunks = [(part, rows.tolist()) for part, rows, _ in module.logit_chunks(x, wte, rows, None)]
    assert chunks == [(slice(k, k + 1), x[[row]].tolist()) for k, row in enumerate(rows)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("table_bytes", "pieces"), [(1, [1] * V), (3 * 4 * C, [3, 3, 3, 2])])
def test_a_tables_gradient_in_float32_is_made_a_few_rows_at_a_time(
    monkeypatch, dtype, accumulate, table_bytes, pieces
):
    shapes, matmul = [], module.matmul

    def noted(*arguments):
        product = matmul(*arguments)
        shapes.append(product.shape)
        return product

    monkeypatch.setattr(module, "TABLE_BYTES", table_bytes)
    monkeypatch.setattr(module, "matmul", noted)
    rng = np.random.default_rng(0)
    dlogits, x = (rng.integers(-3, 4, shape).astype(dtype) for shape in ((4, V), (4, C)))
    dwte = np.full((V, C), 7.0, np.float32)
    module.add_product(dwte, dlogits, x, accumulate=accumulate)
    exact = dlogits.T.astype(float) @ x.astype(float)
    np.testing.assert_array_equal(dwte, exact + 7.0 * accumulate)
    in_place = not accumulate and dtype == np.float32  # one product, made where it goes
    assert shapes == ([(V, C)] if in_place else [(n, C) for n in pieces])


def test_weights_in_double_precision_do_not_make_the_loss_double(monkeypatch):
    added, scatter_add = [], module.scatter_add

    def noted(rows, *rest):
        added.append(rows.dtype)
        return scatter_add(rows, *rest)

    monkeypatch.setattr(module, "scatter_add", noted)
    x, wte, *columns = inputs([(0, 1, 0.5), (0, 2, 1.0)])
    x, wte = x.astype(np.float32), wte.astype(np.float32)
    loss, nll, dx = cross_entropy_gradient(x, wte, *columns, np.zeros_like(wte))
    assert loss.dtype == nll.dtype == dx.dtype == added[0] == np.float32


def test_by_default_a_chunk_is_as_many_triples_as_fit(monkeypatch):
    rng = np.random.default_rng(0)
    n, vocabulary = 400, 2000
    x, wte = rng.standard_normal((n, C)), rng.standard_normal((vocabulary, C))
    arguments = x, wte, np.arange(n), rng.integers(0, vocabulary, n), np.ones(n)
    expected = both(*arguments)
    monkeypatch.setattr("minigpt2.ops.cross_entropy.CHUNK_BYTES", 10 * vocabulary * 8)
    tracemalloc.start()
    found = both(*arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * vocabulary * 8
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)
