"""A forest and the same examples run one by one: the same loss, the same gradients."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.data.forest import Branch, Segment, build_prefix_trees, lay_out, prepend_prompt
from minigpt2.model import block as block_module
from minigpt2.model.batch import Batch
from minigpt2.model.config import GPT2Config
from minigpt2.model.gpt2 import loss_and_gradients
from minigpt2.model.gradients import gradients_of
from minigpt2.model.parameters import Parameters
from minigpt2.ops.attention import attention
from tests.model.cases import SHAPES, V, parameters_of, random_parameters

quick = settings(deadline=None, max_examples=20)
tokens = partial(st.lists, st.integers(0, V - 1))


def run(parameters, batches):
    """Loss and gradients of several batches."""
    gradients = gradients_of(parameters)
    loss = sum(loss_and_gradients(parameters, batch, gradients)[0] for batch in batches)
    return loss, gradients


def assert_same(found, expected, bound=1e-12):
    """Loss and every tensor's gradient agree, relative to their size."""
    assert abs(found[0] - expected[0]) <= bound * abs(expected[0])
    for name, gradient in expected[1].views.items():
        error = np.linalg.norm(found[1][name] - gradient)
        assert error <= bound * np.linalg.norm(gradient), f"{name}: {error}"
    assert np.linalg.norm(expected[1].flat) > 1e-3


def weighed(ids, rng):
    """A segment whose tokens have random weights, some of them 0."""
    return Segment(ids, [float(w) for w in rng.choice([0, 0.5, 1, 2], len(ids))])


def paths(segment, above=()):
    """Each segment as an example of its own: all that leads up to it, and its own weights."""
    prompt = [token for one in above for token in one.ids]
    yield lay_out([prepend_prompt(Branch(prompt, Segment(segment.ids, segment.weights)))])
    for child in segment.children:
        yield from paths(child, (*above, segment))


def forest_and_examples(roots):
    """The forest's batch, and the batches of its examples."""
    return [lay_out(roots)], [one for root in roots for one in paths(root)]


PROMPT, CHOSEN, REJECTED = [3, 1, 4, 1, 5], [9, 2, 6, 22], [5, 3, 22]


def root(*ids):
    """A root whose tokens, but for the first, are targets."""
    return Segment(list(ids), [0.0, *[1.0] * (len(ids) - 1)])


def below(segment, *children):
    """A segment with children."""
    return Segment(segment.ids, segment.weights, list(children))


def answer(*ids):
    """A segment all of whose tokens are targets."""
    return Segment(list(ids), [1.0] * len(ids))


FORESTS = {
    "packed roots": [root(1, 2, 3), root(4, 5), root(1, 2, 3, 4, 5, 6, 7), root(9, 9, 9)],
    "pairs": [
        Segment(PROMPT, [0.0] * 5, [answer(*CHOSEN), Segment(REJECTED, [-0.7, -0.2, -1.0])]),
        Segment([7, 7], [0.0] * 2, [answer(22), answer(8, 22)]),
    ],
    "a prompt with several answers": [
        Segment(PROMPT, [0.0] * 5, [answer(k, 22 - k, k) for k in range(6)])
    ],
    "depth three": [
        below(
            root(1, 2, 3),
            below(answer(4, 5), below(answer(6), answer(7, 8), answer(9)), answer(6, 6)),
            answer(10, 11, 12),
        ),
        below(root(1, 2), below(answer(3), below(answer(4), answer(5, 6)))),
    ],
    "a prefix without rows of its own": [
        below(root(5, 6), below(Segment([], []), answer(7, 8), answer(9)))
    ],
}


@pytest.mark.parametrize("name", FORESTS)
def test_a_forest_is_its_examples_one_by_one(name):
    together, apart = forest_and_examples(FORESTS[name])
    parameters = random_parameters()
    assert_same(run(parameters, together), run(parameters, apart))


def test_a_preamble_that_examples_share_is_computed_once_and_its_gradient_summed():
    rng = np.random.default_rng(0)
    preamble = [int(i) for i in rng.integers(V, size=5)]
    examples = [([*preamble, k, 2 * k], answer(20 - k, k, 22)) for k in range(8)]
    trees = build_prefix_trees(examples, min_saving=1)
    assert len(trees) == 1 and trees[0].ids == preamble and len(trees[0].children) == 8
    together = [lay_out(trees)]
    apart = [lay_out([prepend_prompt(Branch(prompt, rest))]) for prompt, rest in examples]
    assert len(together[0].ids) == sum(len(b.ids) for b in apart) - 7 * 5
    parameters = random_parameters()
    assert_same(run(parameters, together), run(parameters, apart))


@st.composite
def trees(draw, depth=3, position=0):
    """A segment with up to three segments below it, that fits the context."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    ids = draw(tokens(min_size=1, max_size=3))
    segment = weighed(ids, rng)
    if position == 0:
        segment.weights[0] = 0.0
    if depth:
        below = trees(depth=depth - 1, position=position + len(ids))
        segment.children = draw(st.lists(below, max_size=3))
    return segment


@given(st.lists(trees(), min_size=1, max_size=3))
@quick
def test_any_forest_is_its_examples_one_by_one(roots):
    roots.append(root(1, 2, 3))  # something to learn
    together, apart = forest_and_examples(roots)
    parameters = random_parameters()
    assert_same(run(parameters, together), run(parameters, apart))


@st.composite
def example_lists(draw):
    """Prompts that begin alike, some of them equal or one the beginning of another; answers."""
    beginnings = draw(st.lists(tokens(min_size=1, max_size=5), min_size=1, max_size=3))
    ends = tokens(max_size=2)
    prompts = st.builds(lambda start, end: start + end, st.sampled_from(beginnings), ends)
    answers = tokens(min_size=1, max_size=4).map(lambda ids: answer(*ids))
    return draw(st.lists(st.tuples(prompts, answers), min_size=1, max_size=8))


@given(example_lists(), st.integers(0, 6))
@quick
def test_examples_built_into_a_forest_are_the_examples_one_by_one(examples, min_saving):
    together = [lay_out(build_prefix_trees(examples, min_saving))]
    apart = [lay_out([prepend_prompt(Branch(prompt, rest))]) for prompt, rest in examples]
    parameters = random_parameters()
    assert_same(run(parameters, together), run(parameters, apart))


def test_attention_in_other_blocks_gives_the_same(monkeypatch):
    n = 120
    config = GPT2Config(vocab_size=V, n_positions=n, n_embd=10, n_layer=2, n_head=2)
    rng = np.random.default_rng(0)
    parameters = Parameters(config, 0.3 * rng.standard_normal(config.n_parameters))
    i = np.arange(n)
    batch = Batch(rng.integers(V, size=n), i, np.full(n, n), i[:-1], i[1:] % V, np.ones(n - 1))
    expected = run(parameters, [batch])
    for size in (7, 50, 119, 1000):
        monkeypatch.setattr(block_module, "attention", partial(attention, block=size))
        assert_same(run(parameters, [batch]), expected)


def test_the_check_notices_a_leak_between_examples():
    parameters = random_parameters()
    [together], apart = forest_and_examples(FORESTS["packed roots"])
    leaking = together._replace(end=np.full_like(together.end, len(together.end)))
    with pytest.raises(AssertionError):
        assert_same(run(parameters, [leaking]), run(parameters, apart))


def test_the_check_notices_a_small_error_in_one_tensor():
    parameters = random_parameters()
    loss, gradients = run(parameters, [lay_out(FORESTS["pairs"])])
    for name in SHAPES:
        other = parameters_of(list(gradients.views.values()))
        other[name][...] *= 1 + 1e-10
        with pytest.raises(AssertionError, match=name):
            assert_same((loss, other), (loss, gradients))
