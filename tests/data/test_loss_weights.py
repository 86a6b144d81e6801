"""Loss weights: the weights of (26.1) and (26.2), and what they make of a batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.data.batches import batch_of
from minigpt2.data.examples import Example, encode
from minigpt2.data.loss_weights import RESPONSE_ONLY, LossWeights
from tests.data.small import RECORDS, small_tokenizer

BYTES = small_tokenizer()
EXAMPLE = Example([1, 2, 3, 4, 5], [False, False, False, True, True])
TALK = Example([1, 2, 3, 4, 5], [False, False, True, False, True])
any_loss_weights = st.builds(LossWeights, st.sampled_from([0.0, 0.1, 1.0]), st.booleans())


@pytest.mark.parametrize(
    ("loss_weights", "weights"),
    [
        (LossWeights(), [0, 0, 0, 1, 1]),
        (LossWeights(1.0), [0, 1, 1, 1, 1]),
        (LossWeights(0.5), [0, 0.5, 0.5, 1, 1]),
        (LossWeights(0.0, True), [0, 0, 0, 0.5, 0.5]),
        (LossWeights(0.5, True), [0, 1 / 6, 1 / 6, 1 / 3, 1 / 3]),
        (LossWeights(1.0, True), [0, 0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_weights_spelled_out(loss_weights, weights):
    assert loss_weights.of(EXAMPLE) == pytest.approx(weights)


def test_later_prompts_of_a_conversation_are_prompts():
    assert LossWeights(0.5).of(TALK) == [0, 0.5, 1, 0.5, 1]
    assert RESPONSE_ONLY.of(TALK) == [0, 0, 1, 0, 1]


def triples(examples, loss_weights):
    """The summed weight of every (path of tokens up to the row, target), as a dictionary."""
    batch = batch_of(examples, loss_weights)
    weights_in_batch = {}
    for row, target, weight in zip(batch.rows, batch.targets, batch.weights, strict=True):
        seen = [j for j in range(row + 1) if batch.end[j] > row]
        key = (*batch.ids[seen], int(target))
        weights_in_batch[key] = weights_in_batch.get(key, 0) + weight
    return weights_in_batch


@given(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=5), any_loss_weights)
@settings(deadline=None, max_examples=40)
def test_a_batch_weighs_every_token_as_the_examples_one_by_one_do(records, loss_weights):
    examples = [encode(record, BYTES) for record in records]
    expected = {}
    for example in examples:
        for n, weight in enumerate(loss_weights.of(example)):
            if weight:
                key = tuple(example.ids[: n + 1])
                expected[key] = expected.get(key, 0) + weight
    weights_in_batch = triples(examples, loss_weights)
    assert weights_in_batch.keys() == expected.keys()
    for key, weight in weights_in_batch.items():
        np.testing.assert_allclose(weight, expected[key], rtol=1e-12)


@given(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=5), any_loss_weights)
@settings(deadline=None, max_examples=40)
def test_a_batch_knows_which_answer_a_target_belongs_to(records, loss_weights):
    examples = [encode(record, BYTES) for record in records]
    batch = batch_of(examples, loss_weights)
    for number, example in enumerate(examples):
        answer = [i for i, part in zip(example.ids, example.is_answer, strict=True) if part]
        assert batch.targets[batch.answers == number].tolist() == answer
    assert (batch.answers >= 0).sum() == sum(sum(e.is_answer) for e in examples)
    if not loss_weights.prompt_weight:
        assert (batch.answers >= 0).all()
