"""GPT-2: what its chapter claims of the whole model."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from minigpt2.backend import deliver
from minigpt2.model import gpt2 as gpt2_module
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import forward, gpt2, gpt2_backward, loss_and_gradients, loss_of
from minigpt2.model.gradients import gradients_of
from minigpt2.model.initialisation import initialise
from minigpt2.model.parameters import Parameters
from tests.model.cases import CONFIG, FIRST, RATE, SECOND, L, N, V, random_parameters

dropped_and_not = pytest.mark.parametrize("drop", [0.0, RATE], ids=["no dropout", "dropout"])


def run(parameters, batch, drop=0.0, recompute=False, seed=3):
    """Loss, nll and gradients of a batch."""
    gradients = gradients_of(parameters)
    rng = np.random.default_rng(seed)
    loss, nll = loss_and_gradients(
        parameters, batch, gradients, drop=drop, rng=rng, recompute=recompute
    )
    return loss, nll, gradients.flat


@dropped_and_not
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recomputation_gives_the_same_bit_for_bit(drop, dtype):
    parameters = random_parameters(dtype=dtype)
    for kept, again in zip(
        run(parameters, FIRST, drop), run(parameters, FIRST, drop, recompute=True), strict=True
    ):
        np.testing.assert_array_equal(kept, again)


def test_without_a_backward_pass_nothing_is_kept():
    parameters = random_parameters()
    h, saved = gpt2(parameters, FIRST, backward=False)
    assert saved.blocks == [None] * CONFIG.n_layer
    np.testing.assert_array_equal(h, gpt2(parameters, FIRST)[0])


def test_dropout_changes_the_loss_and_its_seed_fixes_it():
    parameters = random_parameters()
    plain, _, _ = run(parameters, FIRST)
    one, same, other = (run(parameters, FIRST, RATE, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[2], same[2])
    assert len({float(plain), float(one[0]), float(other[0])}) == 3


def test_each_block_has_masks_of_its_own():
    rng = np.random.default_rng(0)
    _, saved = gpt2(random_parameters(), FIRST, drop=0.5, rng=rng)
    masks = [saved.drop.z, *(z for s in saved.blocks for z in (s.attn_drop.z, s.mlp_drop.z))]
    assert len(masks) == 1 + 2 * L
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert 0.3 < ((one > 0) == (other > 0)).mean() < 0.7
    assert len({s.attn.seed for s in saved.blocks}) == L


def test_dropout_without_random_numbers_is_refused():
    with pytest.raises(ValueError, match="rng"):
        gpt2(random_parameters(), FIRST, drop=0.1)


@dropped_and_not
def test_gradients_are_added_to_what_is_there(drop):
    parameters = random_parameters()
    _, _, expected = run(parameters, FIRST, drop)
    gradients = gradients_of(parameters)
    start = np.random.default_rng(9).standard_normal(expected.shape)
    for name, part in parameters.like(start).views.items():
        deliver(part, gradients.target(name))
    loss_and_gradients(parameters, FIRST, gradients, drop=drop, rng=np.random.default_rng(3))
    np.testing.assert_allclose(gradients.flat, start + expected, atol=1e-12)


def test_parameters_are_not_modified():
    parameters = random_parameters()
    before = parameters.flat.copy()
    run(parameters, FIRST, RATE, recompute=True)
    np.testing.assert_array_equal(parameters.flat, before)


def test_the_loss_is_the_same_with_and_without_gradients():
    parameters = random_parameters()
    loss, nll, _ = run(parameters, FIRST)
    alone, nll_alone = loss_of(parameters, FIRST)
    np.testing.assert_allclose(loss, alone, rtol=1e-14)
    np.testing.assert_allclose(nll, nll_alone, rtol=1e-14)
    np.testing.assert_allclose(loss, (FIRST.weights * nll).sum(), rtol=1e-14)


def test_hidden_rows_times_wte_are_the_logits_of_the_loss():
    parameters = random_parameters()
    h, _ = gpt2(parameters, FIRST)
    logits = h[FIRST.rows] @ parameters["wte.weight"].T
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nll = -np.log(p[np.arange(len(FIRST.rows)), FIRST.targets])
    np.testing.assert_allclose(loss_of(parameters, FIRST)[1], nll, rtol=1e-12)


def test_the_forward_pass_gives_each_triple_the_row_that_it_reads():
    parameters = random_parameters()
    whole, _ = gpt2(parameters, FIRST)
    h, places, saved = forward(parameters, FIRST)
    assert len(h) < len(FIRST.ids)
    np.testing.assert_allclose(h[places], whole[FIRST.rows], rtol=1e-12)
    alone = forward(parameters, FIRST, backward=False)
    np.testing.assert_array_equal(alone.h, h)
    assert alone.saved.blocks == [None] * L and None not in saved.blocks


def test_the_columns_of_a_batch_cannot_be_changed():
    with pytest.raises(TypeError):
        FIRST.columns["reference"] = np.zeros(1)


def plain_gpt2(parameters, ids):
    """The hidden rows of one sequence by the definition alone, a head and a token at a time."""
    p, eps = parameters, parameters.config.layer_norm_epsilon
    heads = parameters.config.n_head

    def norm(x, name):
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps)
        return p[f"{name}.weight"] * x + p[f"{name}.bias"]

    def linear(x, name):
        return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

    x = p["wte.weight"][ids] + p["wpe.weight"][: len(ids)]
    for number in range(1, parameters.config.n_layer + 1):
        block = f"h.{number - 1}"
        tau = np.sqrt(x.shape[1] / heads) if parameters.config.scale_attn_weights else 1
        tau *= number if parameters.config.scale_attn_by_inverse_layer_idx else 1
        q, k, v = (
            np.split(part, heads, 1)
            for part in np.split(linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn"), 3, 1)
        )
        o = [np.empty_like(one) for one in q]
        for head in range(heads):
            for t in range(len(ids)):
                e = np.exp(k[head][: t + 1] @ q[head][t] / tau)
                o[head][t] = e / e.sum() @ v[head][: t + 1]
        x = x + linear(np.concatenate(o, 1), f"{block}.attn.c_proj")
        u = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        g = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        x = x + linear(g, f"{block}.mlp.c_proj")
    return norm(x, "ln_f")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layer_norm_epsilon": 0.3},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
    ],
    ids=str,
)
def test_every_row_is_what_a_plain_gpt2_gives_for_all_that_the_row_sees(changes):
    config = replace(CONFIG, **changes)
    parameters = Parameters(config, random_parameters().flat)
    h, _ = gpt2(parameters, FIRST)
    for i in range(N):
        seen = [j for j in range(i + 1) if i < FIRST.end[j]]
        np.testing.assert_allclose(plain_gpt2(parameters, FIRST.ids[seen])[-1], h[i], atol=1e-12)


def test_a_row_changes_nothing_for_a_row_that_does_not_see_it():
    parameters = random_parameters()
    h, _ = gpt2(parameters, FIRST)
    for j in range(N):
        ids = FIRST.ids.copy()
        ids[j] = (ids[j] + 1) % V
        moved, _ = gpt2(parameters, FIRST._replace(ids=ids))
        i = np.arange(N)
        sees = (j <= i) & (i < FIRST.end[j])
        np.testing.assert_array_equal(moved[~sees], h[~sees])
        assert (moved[sees] != h[sees]).any(1).all()


def test_positions_make_a_difference():
    parameters = random_parameters()
    h, _ = gpt2(parameters, FIRST)
    moved, _ = gpt2(parameters, FIRST._replace(positions=(FIRST.positions + 1)))
    assert (abs(h - moved).max(1) > 1e-3).all()


def test_untrained_the_loss_per_token_is_close_to_ln_v():
    config = GPT2Config(vocab_size=997, n_positions=64, n_embd=48, n_layer=4, n_head=4)
    rng = np.random.default_rng(0)
    parameters = initialise(config, rng)
    n = np.arange(64)
    ids, targets = rng.integers(997, size=(2, 64))
    batch = Batch(ids, n, np.full(64, 64), n, targets, np.ones(64))
    assert abs(float(loss_of(parameters, batch)[0]) / 64 - log(997)) < 0.1


@dropped_and_not
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_that_comes_in_is_the_precision_everywhere(
    dtype, drop, recompute, monkeypatch
):
    kinds = set()

    def watched(name):
        original = getattr(gpt2_module, name)

        def call(x, *rest, **options):
            result = original(x, *rest, **options)
            found = result if isinstance(result, tuple) else (result,)
            kinds.update(one.dtype for one in (x, *found) if isinstance(one, np.ndarray))
            return result

        monkeypatch.setattr(gpt2_module, name, call)

    for name in ("block", "block_backward", "through_layer_norm", "embedding_backward"):
        watched(name)
    parameters = random_parameters(dtype=dtype)
    assert FIRST.weights.dtype == np.float64
    h, _ = gpt2(parameters, FIRST, drop=drop, rng=np.random.default_rng(0))
    loss, nll, gradients = run(parameters, FIRST, drop, recompute)
    assert {h.dtype, loss.dtype, nll.dtype, gradients.dtype} | kinds == {np.dtype(dtype)}
    assert {one.dtype for one in loss_of(parameters, FIRST)} == {np.dtype(dtype)}


def test_single_precision_is_close_to_double():
    exact, rounded = random_parameters(), random_parameters(dtype=np.float32)
    for one, other in zip(run(exact, FIRST), run(rounded, FIRST), strict=True):
        assert np.abs(one - other).max() <= 1e-5 * np.abs(one).max()


def test_two_batches_add_up():
    parameters = random_parameters()
    gradients = gradients_of(parameters)
    losses = [loss_and_gradients(parameters, b, gradients)[0] for b in (FIRST, SECOND)]
    apart = [run(parameters, batch) for batch in (FIRST, SECOND)]
    assert losses == [one[0] for one in apart]
    np.testing.assert_allclose(gradients.flat, apart[0][2] + apart[1][2], atol=1e-12)


def test_the_backward_pass_lets_go_of_each_block_when_it_is_done():
    parameters = random_parameters()
    h, saved = gpt2(parameters, FIRST)
    assert len(saved.blocks) == CONFIG.n_layer
    gpt2_backward(np.ones_like(h), saved, gradients_of(parameters))
    assert saved.blocks == []
