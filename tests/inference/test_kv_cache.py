"""Key/value cache: a sequence that grows row by row gives what the whole of it gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.data.forest import common_prefix
from minigpt2.inference.kv_cache import Cache, prompt_forest
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import gpt2
from minigpt2.model.parameters import Parameters

CONFIG = GPT2Config(vocab_size=23, n_positions=40, n_embd=12, n_layer=3, n_head=3)
PARAMETERS = Parameters(CONFIG, np.random.default_rng(5).standard_normal(CONFIG.n_parameters) * 0.3)


def whole(sequence, parameters=PARAMETERS):
    """The hidden rows of one sequence, all computed at once."""
    h, _ = gpt2(parameters, prompt_forest([list(sequence)], prefix=0))
    return h


def filled(prompts, prefix, suffix, parameters=PARAMETERS):
    """A cache that holds the prompts, and their last rows."""
    cache = Cache(parameters, sequences=len(prompts), prefix=prefix, suffix=suffix)
    return cache, cache.prefill(prompts)


@given(st.data())
def test_every_step_gives_what_the_whole_sequence_gives(data):
    token = st.integers(0, 22)
    shared = data.draw(st.lists(token, max_size=6))
    tails = data.draw(st.lists(st.lists(token, max_size=5), min_size=1, max_size=4))
    prompts = [shared + tail for tail in tails]
    if not min(map(len, prompts)):
        prompts = [[0, *prompt] for prompt in prompts]
    prefix = data.draw(st.integers(0, common_prefix(prompts)))
    growth = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    cache, h = filled(prompts, prefix, max(map(len, prompts)) + sum(growth) - prefix)
    for b, prompt in enumerate(prompts):
        np.testing.assert_allclose(h[b], whole(prompt)[-1], rtol=0, atol=1e-12)
    rng = np.random.default_rng(0)
    for n in growth:
        ids = rng.integers(23, size=(len(prompts), n))
        prompts = [prompt + new.tolist() for prompt, new in zip(prompts, ids, strict=True)]
        h = cache.extend(ids)
        for b, prompt in enumerate(prompts):
            np.testing.assert_allclose(h[b], whole(prompt)[-n:], rtol=0, atol=1e-12)
    assert cache.free == 0


@pytest.mark.parametrize("name", ["scale_attn_weights", "scale_attn_by_inverse_layer_idx"])
def test_rows_are_those_of_the_whole_with_the_divisors_of_the_model(name):
    config = replace(CONFIG, **{name: not getattr(CONFIG, name)})
    parameters = Parameters(config, PARAMETERS.flat)
    cache, _ = filled([[1, 2, 3], [1, 2]], 2, 8, parameters)
    h = cache.extend(np.array([[7, 8], [9, 10]]))
    for row, sequence in zip(h, ([1, 2, 3, 7, 8], [1, 2, 9, 10]), strict=True):
        np.testing.assert_allclose(row, whole(sequence, parameters)[-2:], rtol=0, atol=1e-12)
        assert abs(row - whole(sequence)[-2:]).max() > 1e-3


def test_sequences_that_stay_continue_as_before():
    prompts = [[1, 2, 3], [1, 2], [1, 2, 4, 5], [1, 2, 6]]
    cache, _ = filled(prompts, 2, 10)
    cache.extend(np.array([[7], [8], [9], [10]]))
    cache.keep([0, 2])
    h = cache.extend(np.array([[11], [12]]))
    np.testing.assert_allclose(h[0, 0], whole([1, 2, 3, 7, 11])[-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(h[1, 0], whole([1, 2, 4, 5, 9, 12])[-1], rtol=0, atol=1e-12)


def test_what_does_not_fit_is_refused():
    cache, _ = filled([[1, 2]], 2, 3)
    cache.extend(np.array([[3, 4]]))
    with pytest.raises(ValueError, match="2 more rows do not fit; free rows: 1"):
        cache.extend(np.array([[5, 6]]))


def test_float32_stays_float32():
    single = Parameters(CONFIG, PARAMETERS.flat.astype(np.float32))
    cache, h = filled([[1, 2, 3], [1, 2]], 2, 5, single)
    assert cache.prefix.dtype == cache.suffixes.dtype == h.dtype == np.float32
    assert cache.extend(np.array([[4], [5]])).dtype == np.float32


def test_large_scores_do_not_overflow():
    loud = Parameters(CONFIG, PARAMETERS.flat * 40)
    cache, _ = filled([[1, 2, 3], [1, 2, 4]], 2, 5, loud)
    with np.errstate(over="raise", invalid="raise"):
        h = cache.extend(np.array([[5], [6]]))
    np.testing.assert_allclose(h[0, 0], whole([1, 2, 3, 5], loud)[-1], rtol=1e-9)


def test_the_arrays_have_the_size_that_the_chapter_says():
    cache = Cache(PARAMETERS, sequences=4, prefix=10, suffix=6)
    rows = 10 + 4 * 6
    assert cache.prefix.size + cache.suffixes.size == rows * 2 * CONFIG.n_layer * CONFIG.n_embd


def test_the_prefix_and_the_suffix_share_one_softmax():
    """A value far larger in one place must weigh as its score says, not as its place does."""
    cache, _ = filled([[1, 2, 3, 4, 5]], 5, 2)
    h = cache.extend(np.array([[6]]))
    cache.prefix[..., 0, :] += 1.0
    changed = Cache(PARAMETERS, sequences=1, prefix=5, suffix=2)
    changed.prefix, changed.lengths = cache.prefix, np.zeros(1, np.int64)
    assert abs(changed.extend(np.array([[6]])) - h).max() > 1e-3


def test_what_all_prompts_begin_with_is_laid_out_once():
    batch = prompt_forest([[1, 2, 3, 4], [1, 2, 5], [1, 2]], prefix=2)
    assert batch.ids.tolist() == [1, 2, 3, 4, 5]
    assert batch.positions.tolist() == [0, 1, 2, 3, 2]
    assert batch.end.tolist() == [5, 5, 4, 4, 5]
    assert batch.rows.tolist() == [3, 4, 1] and batch.weights.tolist() == [1, 1, 1]


def test_prompts_that_share_nothing_are_trees_of_their_own():
    batch = prompt_forest([[1, 2], [3]], prefix=0)
    assert batch.ids.tolist() == [1, 2, 3] and batch.end.tolist() == [2, 2, 3]
    assert batch.rows.tolist() == [1, 2]


def test_prompts_without_the_prefix_are_refused():
    with pytest.raises(ValueError, match="do not share their first 2 tokens"):
        filled([[1, 2], [1, 3]], 2, 4)
