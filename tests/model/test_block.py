"""Block: what its chapter claims."""

import re

import numpy as np
import pytest

from minigpt2.backend import deliver
from minigpt2.model import block as block_module
from minigpt2.model.block import block, block_backward
from minigpt2.model.gradients import Gradients
from minigpt2.ops import attention as attention_module
from minigpt2.ops import dropout as dropout_module
from tests import plain
from tests.fake_cores import fake_core_count
from tests.model.cases import FIRST, NAMES, C, H, N, random_parameters

PARAMETERS = random_parameters()
RECOMPUTE = [
    {"recompute": False},
    {"recompute": True},
    {"recompute": True, "keep_u": True},
]
X, DY = (np.random.default_rng(seed).standard_normal((N, C)) for seed in (1, 2))


def fresh():
    """A copy of the tensors of block 0, and zeros for their gradients."""
    p = {name: PARAMETERS.block(0)[name].copy() for name in NAMES}
    return p, Gradients({name: np.zeros_like(tensor) for name, tensor in p.items()})


def test_with_both_projections_at_0_the_block_is_the_identity():
    p, d = fresh()
    for name in ("attn.c_proj", "mlp.c_proj"):
        p[f"{name}.weight"][...] = p[f"{name}.bias"][...] = 0
    y, saved = block(X, FIRST.end, p, n_head=H)
    np.testing.assert_array_equal(y, X)
    np.testing.assert_array_equal(block_backward(DY, saved, d), DY)


def test_both_passes_are_the_equations_of_the_chapter_one_after_the_other():
    p, d = fresh()
    y, saved = block(X, FIRST.end, p, n_head=H)
    dx = block_backward(DY, saved, d)
    plain_y, plain_dx, plain_d = plain.block(X, FIRST.end, p, H, DY)
    np.testing.assert_allclose(y, plain_y, atol=1e-12)
    np.testing.assert_allclose(dx, plain_dx, atol=1e-12)
    for name in NAMES:
        np.testing.assert_allclose(d[name], plain_d[name], atol=1e-12)


def test_a_block_adds_its_branches_to_the_stream():
    p, _ = fresh()
    y, _ = block(X, FIRST.end, p, n_head=H)
    p["mlp.c_proj.bias"] += 3
    np.testing.assert_allclose(block(X, FIRST.end, p, n_head=H)[0], y + 3, atol=1e-13)
    p["attn.c_proj.bias"] += 3  # a constant for all features: the MLP's normalisation removes it
    np.testing.assert_allclose(block(X, FIRST.end, p, n_head=H)[0], y + 6, atol=1e-13)


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_gradients_are_added_to_what_is_there(drop):
    p, d = fresh()
    _, saved = block(X, FIRST.end, p, n_head=H, drop=drop, seed=4)
    dx = block_backward(DY, saved, d)
    rng = np.random.default_rng(3)
    start = {name: rng.standard_normal(tensor.shape) for name, tensor in p.items()}
    added = fresh()[1]
    for name in NAMES:
        deliver(start[name], added.target(name))
    np.testing.assert_array_equal(block_backward(DY, saved, added), dx)
    for name in NAMES:
        np.testing.assert_allclose(added[name], start[name] + d[name], atol=1e-13)
        assert d[name].any(), name


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_the_first_gradients_are_written_over_what_is_there(drop):
    p, d = fresh()
    _, saved = block(X, FIRST.end, p, n_head=H, drop=drop, seed=4)
    dx = block_backward(DY, saved, d)
    stale = Gradients({name: np.full_like(tensor, np.nan) for name, tensor in p.items()})
    np.testing.assert_array_equal(block_backward(DY, saved, stale), dx)
    for name in NAMES:
        np.testing.assert_array_equal(stale[name], d[name])


@pytest.mark.parametrize("rows", [[0, 3, 4, 9], [len(X) - 1], []])
@pytest.mark.parametrize("kept", RECOMPUTE, ids=len)
def test_rows_that_nothing_reads_are_left_out_and_the_others_are_the_same(rows, kept):
    rows = np.array(rows, np.int64)
    p, d = fresh()
    whole, saved = block(X, FIRST.end, p, n_head=H)
    dy = np.zeros_like(DY)
    dy[rows] = DY[rows]
    dx = block_backward(dy, saved, d)
    _, own = fresh()
    y, saved = block(X, FIRST.end, p, n_head=H, rows=rows, **kept)
    assert y.shape == (len(rows), X.shape[1])
    np.testing.assert_allclose(y, whole[rows], atol=1e-13)
    np.testing.assert_allclose(block_backward(DY[rows], saved, own), dx, atol=1e-12)
    for name in NAMES:
        np.testing.assert_allclose(own[name], d[name], atol=1e-12)


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_inputs_are_not_modified(drop):
    p, d = fresh()
    for array in (X, DY, FIRST.end, *p.values()):
        array.flags.writeable = False
    try:
        _, saved = block(X, FIRST.end, p, n_head=H, drop=drop)
        block_backward(DY, saved, d)
    finally:
        for array in (X, DY, FIRST.end):
            array.flags.writeable = True


def masks_of(monkeypatch, seed, rate=0.5):
    """What each call of keep_factors drops in one block: attention's calls, then the branches'."""
    found = {attention_module: [], dropout_module: []}
    draw = dropout_module.keep_factors
    for module, masks in found.items():

        def recorded(*arguments, masks=masks):
            k = draw(*arguments)
            masks.append(k.ravel() > 0)
            return k

        monkeypatch.setattr(module, "keep_factors", recorded)
    fake_core_count(monkeypatch, 1)  # calls in one order
    n = 300  # more rows than one block of queries
    x = np.random.default_rng(0).standard_normal((n, C))
    _, saved = block(x, np.full(n, n), fresh()[0], n_head=H, drop=rate, seed=seed)
    monkeypatch.undo()
    attention, branches = found.values()
    assert len(attention) > 2 and len(branches) == 2
    np.testing.assert_array_equal(branches[0], saved.attn_drop.z.ravel() > 0)
    np.testing.assert_array_equal(branches[1], saved.mlp_drop.z.ravel() > 0)
    return attention + branches


@pytest.mark.parametrize("seed", [0, 1, 2**62 + 5])
def test_no_two_masks_of_a_block_come_from_the_same_random_numbers(monkeypatch, seed):
    masks = masks_of(monkeypatch, seed)
    length = min(map(len, masks))
    assert length >= 1000
    for i, one in enumerate(masks):
        for other in masks[:i]:
            for shift in (0, 1, length // 3):
                a, b = one[: length - shift], other[shift:length]
                alike = (a == b).mean()  # of independent masks that keep one half: one half
                assert abs(alike - 0.5) < 5 * 0.5 / np.sqrt(len(a))


def test_the_seed_fixes_the_masks(monkeypatch):
    one, same, other = (masks_of(monkeypatch, seed) for seed in (1, 1, 2))
    for a, b, c in zip(one, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert 0.3 < (a == c).mean() < 0.7


def arrays_in(saved):
    """Every array that a nest of tuples holds."""
    if isinstance(saved, np.ndarray):
        return [saved]
    return [a for one in saved for a in arrays_in(one)] if isinstance(saved, tuple) else []


@pytest.mark.parametrize(
    "recompute, text", [(False, r"Keeps (\d+)·N·C"), (True, r"checkpointing\) (\d+)·N·C")]
)
def test_keeps_as_many_numbers_as_told(recompute, text):
    told = int(re.search(text, block_module.__doc__)[1])
    p, _ = fresh()
    _, saved = block(X, FIRST.end, p, n_head=H, recompute=recompute)
    rows = [a for a in arrays_in(saved) if a.ndim == 2 and len(a) == N]
    memory = {a.__array_interface__["data"][0]: a.size for a in rows}
    assert abs(sum(memory.values()) / (N * C) - told) < 1


@pytest.mark.parametrize("kept", RECOMPUTE, ids=str)
def test_what_is_recomputed_has_the_bits_of_what_is_kept(kept):
    (p, first), (_, second) = fresh(), fresh()
    _, saved = block(X, FIRST.end, p, n_head=H, drop=0.3, seed=3)
    _, other = block(X, FIRST.end, p, n_head=H, drop=0.3, seed=3, **kept)
    dx, again = block_backward(DY, saved, first), block_backward(DY, other, second)
    np.testing.assert_array_equal(dx, again)
    for name in NAMES:
        np.testing.assert_array_equal(first[name], second[name])
