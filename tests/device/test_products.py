"""Products on a device: each form against the same product in float64."""

import sys
from itertools import product
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from minigpt2.device import cublaslt, fake_cupy, products
from minigpt2.device.products import matmul
from tests.device.cublaslt import CublasLt
from tests.kernels.support import (
    device,
    emulated_only,
    exactly,
    machine,
    needs_device,
    single,
)

pytestmark = needs_device
SHAPES = ((1, 8, 8), (7, 32, 257), (33, 48, 64), (40, 16, 24))
BOUNDS = {np.float32: 2e-6, np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7}
TYPES = list(BOUNDS)


def turned(array, transpose):
    """An array whose transpose is multiplied, if it is to be transposed."""
    return np.ascontiguousarray(array.T) if transpose else array


def compare(result, exact, bound):
    """Raise AssertionError unless the error is within the bound of the largest number."""
    assert abs(exactly(result) - exact).max() <= bound * abs(exact).max()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("added", ["", "bias", "residual", "bias residual"])
def test_a_product_with_what_is_added_to_it(dtype, added):
    with device(machine()) as xp:
        for (n, c, k), tx, tw in product(SHAPES, (False, True), (False, True)):
            x, w, b, r = (single(*s).astype(dtype) for s in ((n, c), (c, k), (k,), (n, k)))
            exact = exactly(x) @ exactly(w)
            exact = exact + exactly(b) if "bias" in added else exact
            exact = exact + exactly(r) if "residual" in added else exact
            result = matmul(
                xp.asarray(turned(x, tx)),
                xp.asarray(turned(w, tw)),
                transpose_x=tx,
                transpose_w=tw,
                bias=xp.asarray(b) if "bias" in added else None,
                residual=xp.asarray(r) if "residual" in added else None,
            )
            assert result.dtype == dtype
            compare(xp.asnumpy(result), exact, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_gradient_is_written_or_added_in_float32(dtype, accumulate):
    with device(machine()) as xp:
        for n, c, k in SHAPES:
            x, dy, before = single(n, c).astype(dtype), single(n, k).astype(dtype), single(c, k)
            out = xp.asarray(before.copy())
            result = matmul(
                xp.asarray(x), xp.asarray(dy), transpose_x=True, out=out, accumulate=accumulate
            )
            assert result is out
            exact = exactly(x).T @ exactly(dy) + (exactly(before) if accumulate else 0)
            compare(xp.asnumpy(out), exact, 2e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_product_times_a_number(dtype, accumulate):
    """Rounded once, also in 16 bits."""
    with device(machine()) as xp:
        for n, c, k in SHAPES:
            x, w, before = single(n, c).astype(dtype), single(c, k).astype(dtype), single(n, k)
            out = xp.asarray(before.astype(dtype))
            matmul(xp.asarray(x), xp.asarray(w), out=out, accumulate=accumulate, scale=0.3)
            start = exactly(before.astype(dtype)) if accumulate else 0
            exact = np.float32(0.3) * (exactly(x) @ exactly(w)) + start
            compare(xp.asnumpy(out), exact, 2e-6 if dtype == np.float32 else 1e-2)


def test_rows_may_be_longer_than_the_matrix():
    with device(machine()) as xp:
        x, w, wide = single(9, 16), single(24, 16), xp.asarray(single(9, 32))
        matmul(xp.asarray(x), xp.asarray(w), transpose_w=True, out=wide[:, :24])
        compare(xp.asnumpy(wide)[:, :24], exactly(x) @ exactly(w).T, 2e-6)
        np.testing.assert_array_equal(xp.asnumpy(wide)[:, 24:], single(9, 32)[:, 24:])


def test_matrices_that_do_not_fit_are_refused():
    with device(machine()) as xp:
        x, w = xp.asarray(single(3, 8)), xp.asarray(single(9, 4))
        with pytest.raises(ValueError, match=r"product of \(3, 8\) and \(9, 4\)"):
            matmul(x, w)
        with pytest.raises(ValueError, match="does not fit"):
            matmul(x, x, transpose_w=True, out=xp.asarray(single(4, 4)))


@pytest.fixture
def stand_in(monkeypatch):
    """The emulated device with the products of a GPU, by a stand-in for their library."""
    library = CublasLt()
    caches = cublaslt.handle, products.planned, products.workspace
    monkeypatch.setattr(cublaslt, "cublaslt", lambda: library)
    monkeypatch.delattr(fake_cupy, "product_into")
    for cached in caches:
        cached.cache_clear()
    yield library
    for cached in caches:
        cached.cache_clear()


@emulated_only
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("added", ["", "bias", "residual", "bias residual"])
def test_the_library_is_told_the_product(stand_in, dtype, added):
    test_a_product_with_what_is_added_to_it(dtype, added)


@emulated_only
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("accumulate", [False, True])
def test_the_library_is_told_where_a_gradient_goes(stand_in, dtype, accumulate):
    test_a_gradient_is_written_or_added_in_float32(dtype, accumulate)


@emulated_only
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("accumulate", [False, True])
def test_the_library_is_told_the_number(stand_in, dtype, accumulate):
    test_a_product_times_a_number(dtype, accumulate)


@emulated_only
def test_the_library_is_told_how_rows_lie_in_memory(stand_in):
    test_rows_may_be_longer_than_the_matrix()
    assert stand_in.search[cublaslt.MAX_WORKSPACE] == cublaslt.WORKSPACE_BYTES
    with device(machine()) as xp:
        x, dy, out = xp.asarray(single(9, 16)), xp.asarray(single(9, 32)), xp.asarray(single(32, 8))
        with pytest.raises(ValueError, match="must be neighbours"):
            matmul(x, dy[:, ::2].T)
        empty = matmul(x[:0], out[:16])
        assert empty.shape == (0, 8)
        shifted = matmul(x[:, 1:], out[:15])
        compare(xp.asnumpy(shifted), exactly(single(9, 16)[:, 1:]) @ single(32, 8)[:15], 2e-6)
    assert stand_in.search[cublaslt.ALIGNMENT_B] == 4  # of the address of x[:, 1:]


@emulated_only
def test_what_the_library_refuses_is_an_error(stand_in):
    with device(machine()) as xp:
        x = xp.asarray(single(8, 8))
        stand_in.proposals = 0
        with pytest.raises(cublaslt.ProductError, match=r"no algorithm for Matrix.*rows=8"):
            matmul(x, x)
        stand_in.proposals, stand_in.status = 1, 13
        with pytest.raises(cublaslt.ProductError, match=r"cublasLtMatmul failed with .* 13"):
            matmul(x, x)


def test_the_library_is_loaded_from_where_nvidia_puts_it(monkeypatch):
    loaded = SimpleNamespace(cublasLtMatmul=SimpleNamespace())
    finder = SimpleNamespace(
        load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=f"/lib/{name}")
    )
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=finder))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", finder)
    paths = []
    monkeypatch.setattr(cublaslt.ctypes, "CDLL", lambda path: paths.append(path) or loaded)
    assert cublaslt.cublaslt.__wrapped__() is loaded and paths == ["/lib/cublasLt"]
    assert len(loaded.cublasLtMatmul.argtypes) == 16


def choice(monkeypatch, numbers, **options):
    """Which of the proposals with these numbers (waves, kernel, tile, splits) is chosen."""
    proposals = [cublaslt.Heuristic(waves=waves) for waves, *_ in numbers]
    told_of = {id(p): own for p, (_, *own) in zip(proposals, numbers, strict=True)}
    monkeypatch.setattr(cublaslt, "number_of", lambda p, attribute: told_of[id(p)][attribute])
    chosen = cublaslt.chosen(proposals, **{"short": True, "upright": True} | options)
    return next(k for k, proposal in enumerate(proposals) if proposal is chosen)


def test_many_tiles_of_16_bits_are_small_ones_on_hopper(monkeypatch):
    (small, many), (middle, more) = cublaslt.SMALL_TILES
    large, wide = (5.8, 66, 24, 1), (more + 1, 66, middle, 1)
    assert choice(monkeypatch, [large, wide, (many + 1, 66, small, 1)]) == 2
    assert choice(monkeypatch, [large, wide, (many, 66, small, 1)], upright=False) == 1
    assert choice(monkeypatch, [large, (more, 66, middle, 1), (many, 66, small, 1)]) == 0
    assert choice(monkeypatch, [large, wide], short=False) == 0
    assert choice(monkeypatch, [(5.8, 6, 24, 1), wide]) == 0  # another card


def test_splits_of_float32_are_summed_by_the_newer_kernel(monkeypatch):
    older, newer = (2.0, cublaslt.OLDER, 24, 11), (2.0, cublaslt.NEWER, 20, 33)
    assert choice(monkeypatch, [older, older, newer], short=False) == 2
    assert choice(monkeypatch, [older, older], short=False) == 0
    assert choice(monkeypatch, [older, newer], short=False, upright=False) == 0
    assert choice(monkeypatch, [older, newer]) == 0
    assert choice(monkeypatch, [(2.0, cublaslt.OLDER, 24, 1), newer], short=False) == 0
    assert choice(monkeypatch, [newer, older], short=False) == 0
