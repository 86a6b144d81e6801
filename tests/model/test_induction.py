"""Induction heads: the initial values do what their chapter says, before any step."""

import numpy as np
import pytest

from minigpt2.data.forest import Segment, lay_out
from minigpt2.model import induction as chapter
from minigpt2.model.config import TINY, GPT2Config
from minigpt2.model.gpt2 import gpt2
from minigpt2.model.induction import initialise_induction, rotation, waves

CONFIG = GPT2Config(vocab_size=600, n_positions=64, n_embd=TINY.n_embd, n_layer=3, n_head=7)
LITTLE = GPT2Config(vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=2)


@pytest.fixture(scope="module")
def parameters():
    return initialise_induction(CONFIG, np.random.default_rng(0))


def attention_of(parameters, ids, block):
    """Which row each row attends to most, and how much, for each head (H, N)."""
    _, saved = gpt2(parameters, lay_out([Segment([*ids, 0], [0.0] * (len(ids) + 1))]))
    attn = saved.blocks[block].attn
    n, h = len(ids), parameters.config.n_head
    q, k, _ = attn.qkv.reshape(n, 3, h, -1).transpose(1, 2, 0, 3)
    s = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    p = np.where(np.tri(n) > 0, np.exp(s - s.max(-1, keepdims=True)), 0)
    p /= p.sum(-1, keepdims=True)
    return p.argmax(-1), p.max(-1)


@pytest.mark.parametrize("distance", [1, 2, 3, 7])
def test_a_rotation_steps_back(distance):
    table = waves(50, 12)
    assert np.mean(table**2) == pytest.approx(0.5)
    turned = table @ rotation(distance, 50, 12)
    np.testing.assert_allclose(turned[distance:], table[:-distance], atol=1e-12)


def test_positions_and_tokens_have_features_of_their_own(parameters):
    d = CONFIG.n_embd // CONFIG.n_head
    wte, wpe = parameters["wte.weight"], parameters["wpe.weight"]
    assert not wte[:, :d].any() and not wpe[:, d:].any()
    for part in (wte[:, d:], wpe[:, :d]):
        assert np.sqrt(np.mean(part**2)) * np.sqrt(CONFIG.n_embd) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("head", [0, 1, 2])
def test_a_head_of_the_first_block_looks_so_many_places_back(parameters, head):
    ids = np.random.default_rng(1).integers(600, size=40).tolist()
    row, share = attention_of(parameters, ids, 0)
    distance = head + 1
    np.testing.assert_array_equal(row[head, distance:], np.arange(40)[:-distance])
    assert share[head, 5:].min() > 0.95


def test_heads_of_the_second_block_look_behind_the_same_token(parameters):
    ids = np.random.default_rng(1).permutation(600)[:20].tolist() * 2
    row, _ = attention_of(parameters, ids, 1)
    np.testing.assert_array_equal(row[:4, 20:], np.tile(np.arange(1, 21), (4, 1)))


def share_continued(parameters):
    """How often, in lists of words told twice, the likeliest next word is the right one."""
    rng = np.random.default_rng(2)
    right = []
    for _ in range(20):
        words = rng.permutation(600)[:12]
        ids = [*words, *words, 0]
        h, _ = gpt2(parameters, lay_out([Segment(ids, [0.0] * len(ids))]))
        likeliest = (h @ parameters["wte.weight"].T).argmax(-1)
        right.append(np.mean(likeliest[12:23] == words[1:]))
    return np.mean(right)


def test_an_untrained_model_continues_a_repeated_list(parameters):
    assert share_continued(parameters) > 0.7


def test_without_the_heads_it_cannot(monkeypatch):
    monkeypatch.setattr(chapter, "MATCH_SCORE", 0.0)
    assert share_continued(initialise_induction(CONFIG, np.random.default_rng(0))) < 0.1


def test_other_blocks_are_the_identity_at_first(parameters):
    for name, view in parameters.views.items():
        if name.endswith("c_proj.weight") and name[:8] not in ("h.0.attn", "h.1.attn"):
            assert not view.any(), name


def test_forms_of_a_word_have_a_part_in_common():
    words = np.arange(600) // 2  # tokens 0 and 1 are forms of one word, and so on
    related = initialise_induction(CONFIG, np.random.default_rng(0), words)
    e = related["wte.weight"]
    unit = e / np.linalg.norm(e, axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert np.mean(likeness[::2, 1::2].diagonal()) == pytest.approx(chapter.WORD_SHARE, abs=0.02)
    np.fill_diagonal(likeness[::2, 1::2], 0)
    np.fill_diagonal(likeness, 0)
    assert abs(likeness[::2]).max() < 0.5
    assert np.sqrt(np.mean(e[:, 32:] ** 2)) * np.sqrt(CONFIG.n_embd) == pytest.approx(1, rel=0.02)
    assert share_continued(related) > 0.6


def test_a_little_model_and_a_seed():
    one, same, other = (
        initialise_induction(LITTLE, np.random.default_rng(s)).flat for s in (0, 0, 1)
    )
    assert one.dtype == np.float32 and np.isfinite(one).all()
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).max() > 0.1
