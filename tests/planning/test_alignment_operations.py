"""Operations of alignment: what rows see, and what passes over them take."""

import numpy as np
import pytest

from minigpt2.alignment.log_probs import Answer, batch_of_answers
from minigpt2.model.config import OFFICIAL
from minigpt2.planning.alignment_memory import ALIGNED, Needs
from minigpt2.planning.alignment_operations import (
    forward_operations,
    length_of,
    rollout_operations,
    step_operations,
)
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, operations

LARGE = OFFICIAL["gpt2-large"]


@pytest.mark.parametrize(
    ("prompt", "answers"), [(5, [4, 7]), (1, [1]), (30, [2, 2, 2]), (3, [9, 1, 4, 6])]
)
def test_rows_of_answers_see_as_many_as_those_of_packed_sequences(prompt, answers):
    ids = iter(range(1, 1000))
    question = [next(ids) for _ in range(prompt)]
    batch = batch_of_answers([Answer(question, [next(ids) for _ in range(n)]) for n in answers])
    rows = np.arange(len(batch.ids))
    pairs = int((batch.end - rows).sum())  # row j is seen by the rows from j to end[j]
    assert len(rows) * (length_of(prompt, answers) + 1) / 2 == pytest.approx(pairs)


def test_operations_are_thirds_of_a_step_and_what_is_read_again():
    batch = MicroBatch(640, 640)
    step = operations(LARGE, batch, 128, recompute=False)
    thirds = step["products"] / 3 + step["attention"] * 4 / 14 + step["projection"] / 3
    assert forward_operations(LARGE, batch, 128) == pytest.approx(thirds)
    dpo, reward, apart = (
        sum(step_operations(LARGE, batch, 128, MemoryOptions(), needs).values())
        for needs in (
            Needs(projections=ALIGNED),
            Needs(projections=0),
            Needs(projections=ALIGNED, trained=1),
        )
    )
    assert dpo - sum(step.values()) == pytest.approx(2 * LARGE.vocab_size * LARGE.n_embd * 640)
    assert reward == step["products"] + step["attention"]
    assert apart == pytest.approx(dpo + reward)
    needs = Needs(answers=64, rows=128, samples=8, prompt=64)
    length = length_of(64, [64] * 8)
    alone = rollout_operations(LARGE, needs, values=False)
    assert alone == forward_operations(LARGE, needs.size_of(64), length)
    read = needs._replace(read=("reference", "reward model"))
    score = forward_operations(LARGE, MicroBatch(needs.size_of(64).rows, 64), length, logits=False)
    value = forward_operations(LARGE, needs.size_of(64), length, logits=False)
    expected = 2 * alone + score + value
    assert rollout_operations(LARGE, read, values=True) == pytest.approx(expected)
