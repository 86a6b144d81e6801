"""Memory of alignment: models that are read or trained besides the policy, rollouts, pairs."""

from functools import partial

import pytest

from minigpt2.alignment.pairs import Pair
from minigpt2.alignment.rollout import CACHE_BYTES
from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, TINY
from minigpt2.planning.alignment_memory import (
    Needs,
    aligned,
    cache_row,
    counter_of,
    profile_of_answers,
    profile_of_pairs,
    rollout_numbers,
)
from minigpt2.planning.batch_profile import RunShape, choices
from minigpt2.planning.device_memory import memory_on_device
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, memory, peak

LARGE = OFFICIAL["gpt2-large"]
BATCH, OPTIONS = MicroBatch(rows=500, supervised=300), MemoryOptions()
WEIGHTS = 4 * LARGE.n_parameters


def parts(needs, parts_of=memory, batch=BATCH):
    return aligned(LARGE, batch, OPTIONS, parts_of, needs)


def test_dpo_takes_what_tuning_takes():
    assert parts(Needs()) == memory(LARGE, BATCH, OPTIONS)


def test_a_reward_model_makes_no_logits():
    assert parts(Needs(projects=False)) == memory(LARGE, MicroBatch(500, 0), OPTIONS)


@pytest.mark.parametrize("parts_of", [memory, partial(memory_on_device, precision="bfloat16")])
def test_models_besides_the_policy_are_counted(parts_of):
    alone = parts(Needs(), parts_of)
    read = parts(Needs(read=("reference", "reward model")), parts_of)
    assert peak(read) - peak(alone) == 2 * WEIGHTS
    apart = parts(Needs(read=("reference",), trained=1), parts_of)
    copy = alone.get("copy", 0)
    assert peak(apart) - peak(alone) == WEIGHTS + 4 * WEIGHTS + copy


def test_a_rollout_and_a_step_do_not_add_up():
    needs = Needs(answers=8, rows=200)
    alone, drawn = parts(Needs()), parts(needs)
    step = alone["activations"] + alone["workspace"]
    assert drawn["rollout"] == max(0, 4 * rollout_numbers(LARGE, needs) - step)
    nothing = parts(needs, batch=MicroBatch(0, 0))
    assert nothing["rollout"] > 4 * 8 * 200 * cache_row(LARGE) - nothing["workspace"]


def test_the_keys_and_values_of_a_rollout_have_a_bound():
    few, many = (rollout_numbers(LARGE, Needs(answers=n, rows=1024)) for n in (1, 10**9))
    assert few == 1024 * cache_row(LARGE) + 5 * LARGE.vocab_size
    assert 4 * many < CACHE_BYTES * 1.1
    assert rollout_numbers(LARGE, Needs(answers=1, rows=10**9)) > CACHE_BYTES


def test_pairs_are_counted_as_their_rows():
    pairs = [Pair([1] * 5, [2] * n, [3] * (n + 1)) for n in range(1, 9)]
    shape = RunShape(context=50, batch_size=4, micro_batch=2, validation=0.25, seed=1)
    counted = profile_of_pairs(shape, lambda context: pairs)
    assert counted.steps == 2 and counted.all_micro_batches == 3
    assert counted.largest.rows <= max(p.rows for p in pairs) + sorted(p.rows for p in pairs)[-2]
    with pytest.raises(UserError, match="no pair fits the context of 50"):
        profile_of_pairs(shape, lambda context: [])


def test_a_batch_of_any_size_takes_no_time():
    huge = RunShape(context=100, batch_size=10**15, micro_batch=3)
    assert profile_of_pairs(huge).all_micro_batches == -(-(10**15) // 3)
    assert profile_of_answers(huge, 50, 50, 8).largest == (3 * 450, 3 * 400)


def test_what_fits_is_found_for_pairs_too():
    shape = RunShape(context=256, batch_size=8, micro_batch=8)
    parts_of = counter_of(memory, Needs(projects=False))
    sizes = [choice.bytes for choice in choices(TINY, shape, profile_of_pairs, parts_of)]
    assert min(sizes) < sizes[0]
