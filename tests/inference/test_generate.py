"""Generation: many prompts at once give what each gives alone."""

import numpy as np
import pytest

from minigpt2.inference import generate as module
from minigpt2.inference.generate import generate
from minigpt2.inference.sampling import Sampling
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import gpt2
from minigpt2.model.parameters import Parameters

CONTEXT = 14
CONFIG = GPT2Config(vocab_size=23, n_positions=CONTEXT, n_embd=10, n_layer=2, n_head=2)
PARAMETERS = Parameters(CONFIG, np.random.default_rng(5).standard_normal(CONFIG.n_parameters) * 0.7)
RNG = np.random.default_rng(1)
PROMPTS = [[3, 1, 4, *RNG.integers(23, size=length).tolist()] for length in RNG.integers(0, 9, 30)]
PROMPTS += [[7], [3], PROMPTS[0], [3, 1, 4, 1, 5], list(range(CONTEXT))]


def logits_after(sequence):
    """The logits after one sequence that stands alone."""
    n = len(sequence)
    nothing = np.empty(0, int)
    i = np.arange(n)
    batch = Batch(np.array(sequence), i, np.full(n, n), nothing, nothing, np.empty(0))
    h, _ = gpt2(PARAMETERS, batch)
    return h[-1] @ PARAMETERS["wte.weight"].T


def naive(prompt, stop, max_new):
    """Greedy decoding of one prompt, a token at a time."""
    result = []
    while len(result) < max_new and len(prompt) + len(result) <= CONTEXT:
        token = int(logits_after(prompt + result).argmax())
        if token == stop:
            break
        result.append(token)
    return result


@pytest.fixture(scope="module")
def stop():
    """A token that some of the prompts come to, not at once and not all of them."""
    continuations = [naive(prompt, -1, 6) for prompt in PROMPTS]
    later = [token for tokens in continuations for token in tokens[1:]]
    return max(set(later), key=later.count)


@pytest.mark.parametrize("group_size", [1, 4, 64])
@pytest.mark.parametrize("max_new", [1, 6, 100])
def test_prompts_together_give_what_each_gives_alone_in_their_order(
    stop, max_new, group_size, monkeypatch
):
    monkeypatch.setattr(module, "GROUP_SIZE", group_size)
    expected = [naive(prompt, stop, max_new) for prompt in PROMPTS]
    assert generate(PARAMETERS, PROMPTS, stop=stop, max_new_tokens=max_new) == expected
    assert len({tuple(tokens) for tokens in expected}) >= 3  # not all the same


def test_the_prompts_show_every_way_to_end(stop):
    results = generate(PARAMETERS, PROMPTS, stop=stop, max_new_tokens=6)
    lengths = [(len(p), len(r)) for p, r in zip(PROMPTS, results, strict=True)]
    assert any(new == 6 for _, new in lengths)
    assert any(old + new == CONTEXT + 1 for old, new in lengths)
    assert any(new < 6 and old + new <= CONTEXT for old, new in lengths)


def test_the_stop_token_ends_a_sequence_and_is_left_out(stop):
    results = generate(PARAMETERS, PROMPTS, stop=stop, max_new_tokens=100)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert stop not in result
        if len(prompt) + len(result) <= CONTEXT:
            assert logits_after(prompt + result).argmax() == stop


def test_a_sequence_ends_at_the_contexts_limit():
    results = generate(PARAMETERS, PROMPTS, stop=-1, max_new_tokens=100)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert len(prompt) + len(result) == CONTEXT + 1  # the last token is nobody's context


@pytest.mark.parametrize("group_size", [1, 7, 64])
@pytest.mark.parametrize("max_new", [0, 1, 6, 100])
def test_progress_adds_up_to_the_number_of_prompts(stop, max_new, group_size, monkeypatch):
    monkeypatch.setattr(module, "GROUP_SIZE", group_size)
    counts = []
    generate(PARAMETERS, PROMPTS, stop=stop, max_new_tokens=max_new, progress=counts.append)
    assert sum(counts) == len(PROMPTS) and min(counts) >= 0


def test_progress_tells_when_a_sequence_finishes(stop):
    counts = []
    results = generate(
        PARAMETERS, PROMPTS[:20], stop=stop, max_new_tokens=100, progress=counts.append
    )
    steps = [len(r) + (len(p) + len(r) <= CONTEXT) for p, r in zip(PROMPTS, results, strict=False)]
    expected = [steps.count(step) for step in range(1, max(steps) + 1)]
    assert counts[: len(expected)] == expected and sum(counts[len(expected) :]) == 0


def test_no_prompts_give_no_results():
    assert generate(PARAMETERS, [], stop=0, max_new_tokens=5) == []


def test_prompts_are_not_modified(stop):
    before = [list(prompt) for prompt in PROMPTS]
    generate(PARAMETERS, PROMPTS, stop=stop, max_new_tokens=3)
    assert before == PROMPTS


def test_a_temperature_draws_from_the_model():
    firsts = generate(
        PARAMETERS,
        [[3, 1, 4]] * 2000,
        stop=-1,
        max_new_tokens=1,
        sampling=Sampling(1.0),
        rng=np.random.default_rng(0),
    )
    drawn = np.bincount([tokens[0] for tokens in firsts], minlength=23)
    logits = logits_after([3, 1, 4])
    p = np.exp(logits - logits.max())
    p /= p.sum()
    error = abs(drawn / 2000 - p)
    assert (error <= 5 * np.sqrt(p * (1 - p) / 2000) + 1e-3).all() and (drawn > 20).sum() >= 2


def test_the_seed_fixes_what_is_drawn():
    first, same, other = (
        generate(
            PARAMETERS,
            PROMPTS,
            stop=-1,
            max_new_tokens=5,
            sampling=Sampling(1.5),
            rng=np.random.default_rng(seed),
        )
        for seed in (0, 0, 1)
    )
    assert first == same != other
