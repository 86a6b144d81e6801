"""Memory of alignment: models that are read or trained besides the policy, rollouts, pairs."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

from minigpt2.alignment.log_probs import Answer, batch_of_answers, log_probs, policy_gradients
from minigpt2.alignment.reward_model import batch_of_last_rows
from minigpt2.alignment.rollout import CACHE_BYTES, rollout
from minigpt2.alignment.value_function import (
    policy_and_value_gradients,
    with_value_head,
    with_value_model,
)
from minigpt2.model.config import OFFICIAL, TINY, GPT2Config
from minigpt2.model.gradients import gradients_of
from minigpt2.model.heads import SCORE, head_gradients, with_heads
from minigpt2.model.initialisation import initialise
from minigpt2.planning.alignment_memory import (
    BEYOND,
    Needs,
    aligned,
    cache_row,
    counter_of,
    rollout_numbers,
    scores_numbers,
)
from minigpt2.planning.alignment_profile import profile_of_answers, profile_of_pairs
from minigpt2.planning.batch_profile import RunShape, choices
from minigpt2.planning.device_memory import memory_on_device
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, memory, peak
from minigpt2.training.objective import Options
from tests.fake_cores import fake_core_count

LARGE = OFFICIAL["gpt2-large"]
BATCH, OPTIONS = MicroBatch(rows=500, supervised=300), MemoryOptions()
WEIGHTS = 4 * LARGE.n_parameters


def parts(needs, parts_of=memory, batch=BATCH):
    return aligned(LARGE, batch, OPTIONS, parts_of, needs)


def test_dpo_takes_what_tuning_takes():
    assert parts(Needs()) == memory(LARGE, BATCH, OPTIONS)


def test_a_reward_model_makes_no_logits():
    assert parts(Needs(projections=0)) == memory(LARGE, MicroBatch(500, 0), OPTIONS)


@pytest.mark.parametrize("parts_of", [memory, partial(memory_on_device, precision="bfloat16")])
def test_models_besides_the_policy_are_counted(parts_of):
    alone = parts(Needs(), parts_of)
    read = parts(Needs(read=("reference", "reward model")), parts_of)
    assert peak(read) - peak(alone) == 2 * WEIGHTS
    apart = parts(Needs(read=("reference",), trained=1), parts_of)
    copy = alone.get("copy", 0)
    assert peak(apart) - peak(alone) == WEIGHTS + 4 * WEIGHTS + copy


def test_a_rollout_and_a_step_do_not_add_up():
    needs = Needs(answers=8, rows=200, prompt=100)
    alone, drawn = parts(Needs()), parts(needs)
    step = alone["activations"] + alone["workspace"]
    assert drawn[BEYOND] == max(0, 4 * rollout_numbers(LARGE, needs) - step)
    nothing = parts(needs, batch=MicroBatch(0, 0))
    assert nothing[BEYOND] > 2 * 4 * 8 * 200 * cache_row(LARGE) - nothing["workspace"]


def test_the_keys_and_values_of_a_rollout_have_a_bound():
    few, many = (rollout_numbers(LARGE, Needs(answers=n, rows=1024)) for n in (1, 10**9))
    assert few == 2 * 1024 * cache_row(LARGE) + LARGE.vocab_size
    assert 4 * many < 2 * CACHE_BYTES * 1.1
    assert rollout_numbers(LARGE, Needs(answers=1, rows=10**9)) > CACHE_BYTES


def test_what_fits_is_found_for_pairs_too():
    shape = RunShape(context=256, batch_size=8, micro_batch=8)
    parts_of = counter_of(memory, Needs(projections=0))
    sizes = [
        choice.bytes for choice in choices(TINY, shape, profile_of_pairs, lambda shape: parts_of)
    ]
    assert min(sizes) < sizes[0]


# What real passes and rollouts hold.

CONFIG = GPT2Config(vocab_size=300, n_positions=256, n_embd=256, n_layer=4, n_head=4)


def bytes_at_peak(action):
    """The bytes that an action holds at its peak, besides what was there before.

    On one core: with more, it depends on which parts happen to run at the same time.
    """
    with pytest.MonkeyPatch.context() as patch:
        fake_core_count(patch, 1)
        tracemalloc.start()
        try:
            action()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.fixture(scope="module")
def policy():
    """A policy, wide enough that small things do not count."""
    return initialise(CONFIG, np.random.default_rng(0))


def answers_to(prompts, each, prompt, answer):
    """So many different answers to each of some prompts."""
    rng = np.random.default_rng(1)
    questions = [rng.integers(1, 300, prompt).tolist() for _ in range(prompts)]
    return [
        Answer(ids, rng.integers(1, 300, answer).tolist()) for ids in questions for _ in range(each)
    ]


def test_prompts_with_their_answers_have_as_many_rows_as_are_counted():
    for prompts, each, prompt, answer in ((1, 2, 9, 5), (3, 4, 7, 6), (2, 1, 5, 1)):
        batch = batch_of_answers(answers_to(prompts, each, prompt, answer))
        shape = RunShape(context=99, batch_size=prompts, micro_batch=prompts)
        counted = profile_of_answers(shape, prompt, answer, each).largest
        assert counted == (len(batch.ids), len(batch.rows))
        count = prompts * each
        needs = Needs(answers=count, rows=prompt + answer, samples=each, prompt=prompt)
        assert needs.size_of(count) == counted


@pytest.mark.parametrize(
    ("name", "recompute"),
    [("reward", False), ("dpo", False), ("dpo", True), ("ppo", False), ("apart", True)],
)
def test_a_step_takes_what_is_counted(policy, name, recompute):
    """Within a tenth; the strips of OpenBLAS are not Python's memory.

    Of a reward model's last block, a fourth of all here, few rows are read: it keeps less.
    """
    answers = answers_to(3, 2, 100, 120)
    batch = (batch_of_last_rows if name == "reward" else batch_of_answers)(answers)
    size = MicroBatch(len(batch.ids), len(batch.rows))
    needs = Needs(projections=0) if name == "reward" else Needs(trained=int(name == "apart"))
    counted = aligned(CONFIG, size, MemoryOptions(recompute), memory, needs)
    options, weights = Options(recompute=recompute), np.ones(len(batch.rows))
    if name == "reward":
        parameters = with_heads(policy, {f"{SCORE}.weight": np.ones((1, 256), np.float32)})
        arguments = batch, gradients_of(parameters), np.ones_like, SCORE
        step = partial(head_gradients, parameters, *arguments, recompute=recompute)
    elif name == "dpo":
        gradients = gradients_of(policy)
        step = partial(policy_gradients, policy, batch, gradients, lambda p: weights, options)
    else:
        whole = with_value_model(policy, policy) if needs.trained else with_value_head(policy)
        arguments = batch, gradients_of(whole), lambda p: weights, np.ones_like, options
        step = partial(policy_and_value_gradients, whole, *arguments)
    bound = 0.2 if name == "reward" else 0.1
    passing = counted["activations"] + counted["workspace"]
    assert bytes_at_peak(step) == pytest.approx(passing, rel=bound)


def test_a_block_of_scores_takes_what_is_counted(policy):
    """Within a fifth: tiles of attention are not counted, which are as large for any model."""
    needs = Needs(answers=12, rows=220, samples=2, prompt=100)
    batch = batch_of_answers(answers_to(6, 2, 100, 120))
    taken = bytes_at_peak(lambda: log_probs(policy, batch))
    assert taken == pytest.approx(4 * scores_numbers(CONFIG, needs), rel=0.2)


def many_words(width):
    """A model with so many features and the vocabulary of GPT-2."""
    config = GPT2Config(vocab_size=50257, n_positions=256, n_embd=width, n_layer=1, n_head=1)
    return initialise(config, np.random.default_rng(0))


def test_the_logits_of_scores_take_what_is_counted():
    needs = Needs(answers=12, rows=220, samples=2, prompt=100)
    batch = batch_of_answers(answers_to(6, 2, 100, 120))
    parameters = many_words(64)
    taken = bytes_at_peak(lambda: log_probs(parameters, batch))
    assert taken == pytest.approx(4 * scores_numbers(parameters.config, needs), rel=0.1)


def test_the_logits_of_a_rollout_take_what_is_counted():
    parameters = many_words(32)
    prompts = [answer.prompt for answer in answers_to(4, 1, 10, 1)]
    needs = Needs(answers=32, rows=14, samples=8, prompt=10)
    options = {"stop": 0, "max_new_tokens": 4, "rng": np.random.default_rng(2)}
    taken = bytes_at_peak(lambda: rollout(parameters, prompts, 8, **options))
    assert taken == pytest.approx(4 * rollout_numbers(parameters.config, needs), rel=0.1)


def test_a_rollout_takes_what_is_counted(policy):
    prompts = [answer.prompt for answer in answers_to(4, 1, 60, 1)]
    needs = Needs(answers=32, rows=90, samples=8, prompt=60)
    options = {"stop": 0, "max_new_tokens": 30, "rng": np.random.default_rng(2)}
    taken = bytes_at_peak(lambda: rollout(policy, prompts, 8, **options))
    assert taken == pytest.approx(4 * rollout_numbers(CONFIG, needs), rel=0.1)
