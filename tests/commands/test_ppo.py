"""PPO: whole runs as a user starts them, stopped within a phase and continued, and refused."""

import json
import re

import numpy as np
import pytest

from minigpt2.alignment import ppo_phases
from minigpt2.commands import rewards
from minigpt2.data.template import ALPACA
from minigpt2.inference.model import Model, RewardModel, open_model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.heads import with_heads
from minigpt2.model.initialisation import initialise
from tests.commands.pairs import assert_refused, results_of
from tests.commands.policies import (
    COMMON,
    QUICK,
    Killed,
    killed_after,
    length_score,
    lines_of,
    write_questions,
)

SHAPE = ("--prompts", 4, "--epochs", 2, "--minibatches", 2, "--steps", 6)
OPTIONS = (*QUICK, *SHAPE, "--check", "equation")
PLACES = pytest.mark.parametrize("value", ["policy", "apart"])
HALVES = ("bfloat16", "float16")


def reward_model(
    folder, tokenizer, *, template=ALPACA, context=96, layers=2, width=16, scale=1.0, seed=1
):
    """A reward model in a folder, whose scores differ between answers."""
    rng = np.random.default_rng(seed)
    config = GPT2Config(tokenizer.n_vocab, context, n_embd=width, n_layer=layers, n_head=2)
    head = {"score.weight": (scale * rng.standard_normal((1, width))).astype(np.float32)}
    parameters = with_heads(initialise(config, rng), head)
    save_model(folder, RewardModel(parameters, tokenizer, template, 0.5))
    return folder


@pytest.fixture
def ppo(run, little_model, tmp_path, monkeypatch):
    """Run ppo with the little model on six sums; half of the tokens are good ones."""
    write_questions(tmp_path / "sums.json")

    def by_check(*arguments):
        return rewards.Reward("half of the tokens", length_score, {})

    monkeypatch.setattr("minigpt2.commands.policy_run.by_check", by_check)
    return lambda *options: run("ppo", "sums.json", "--model", little_model, *OPTIONS, *options)


@PLACES
def test_a_run_leaves_a_policy(ppo, tmp_path, value):
    outcome = ppo("--value", value)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "runs/sums-ppo-1"
    steps = lines_of(folder)
    names = {"loss", "reward", "kl", "entropy", "length", "ended", "beta"}
    assert names | {"policy_loss", "value_loss", "clipped"} <= steps[0].keys()
    assert [entry["reward"] for entry in steps[1:4]] == [steps[0]["reward"]] * 3
    assert steps[4]["reward"] != steps[0]["reward"] and steps[4]["kl"] != 0
    model = open_model(str(folder))
    assert not any(name.startswith("value") for name in model.parameters.shapes)
    page = (folder / "report.html").read_text()
    for text in ("Answers on the way", "half of the tokens"):
        assert text in page


@PLACES
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_killed_within_a_phase_continues_bit_for_bit(ppo, tmp_path, monkeypatch, stop, value):
    options = ("--value", value, "--save-every", 1, "--target-kl", 0.5, "--horizon", 100)
    assert ppo("--out", "whole", *options).code == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("minigpt2.reports.run_log.RunLog.add_step", killed_after(stop))
        ppo("--out", "broken", *options)
    outcome = ppo("--out", "broken", "--resume", *options)
    assert outcome.code == 0, outcome.err
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "changed",
    [("--prompts", 3), ("--answers", 4), ("--seed", 5), ("--temperature", 0.7), ("--steps", 7)],
    ids=lambda changed: changed[0],
)
def test_another_run_draws_its_answers_anew(ppo, run, monkeypatch, changed):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("minigpt2.reports.run_log.RunLog.add_step", killed_after(2))
        ppo("--out", "broken", "--save-every", 1)
    drawn_at, new_phase = [], ppo_phases.PPOData.new_phase
    monkeypatch.setattr(
        ppo_phases.PPOData,
        "new_phase",
        lambda data, number, step: drawn_at.append(step) or new_phase(data, number, step),
    )
    outcome = run("ppo", "--resume", "broken", "--resume-anyway", *changed)
    assert outcome.code == 0, outcome.err
    within = drawn_at[0] % 4 != 0  # a rollout has four steps
    assert within == (changed[0] != "--steps")


def test_a_reward_model_scores_the_answers(run, little_model, tokenizer, tmp_path):
    write_questions(tmp_path / "sums.json")
    folder = reward_model(tmp_path / "judge", tokenizer)
    common = ("sums.json", "--model", little_model, *QUICK, *SHAPE, "--reward-model", folder)
    for value in ("policy", "apart"):
        outcome = run("ppo", *common, "--value", value, "--out", value)
        assert outcome.code == 0, outcome.err
    ours, theirs = (lines_of(tmp_path / name) for name in ("policy", "apart"))
    assert ours[0]["reward"] == theirs[0]["reward"] != 0
    assert theirs[0]["value_loss"] != ours[0]["value_loss"]
    assert "the score of" in outcome.out
    model = open_model(str(tmp_path / "policy"))
    from minigpt2.alignment.log_probs import Answer
    from minigpt2.alignment.reward_model import score_answers
    from minigpt2.inference.model import open_reward_model

    drawn = json.loads((tmp_path / "policy/drawn.json").read_text())[0]
    judge = open_reward_model(str(folder))
    prompt = ALPACA_PROMPT(drawn["question"], model)
    ids = tokenizer.encode(drawn["answer"])
    tries = [[*ids], [*ids, tokenizer.end_of_text]]
    scores = [score_answers(judge.parameters, [Answer(prompt, x)], judge.bias)[0] for x in tries]
    assert min(abs(scores - np.float64(drawn["reward"]))) < 1e-4


def test_the_reward_model_and_the_values_may_be_smaller_than_the_policy(
    run, little_model, tokenizer, tmp_path, monkeypatch
):
    write_questions(tmp_path / "sums.json")
    folder = reward_model(tmp_path / "judge", tokenizer, layers=1, width=8)
    common = ("sums.json", "--model", little_model, *QUICK, *SHAPE, "--reward-model", folder)
    apart = ("ppo", *common, "--value", "apart")
    assert run(*apart, "--out", "whole").code == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("minigpt2.reports.run_log.RunLog.add_step", killed_after(3))
        run(*apart, "--save-every", 1, "--out", "broken")
    outcome = run("ppo", "--resume", "broken")
    assert outcome.code == 0, outcome.err
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")


def ALPACA_PROMPT(question, model):
    """The ids of a question's prompt."""
    from minigpt2.data.examples import encode
    from minigpt2.data.records import Record

    example = encode(Record(question, "", ""), model.tokenizer, ALPACA)
    return example.ids[: example.last_answer]


def test_tuning_data_are_learnt_from_too(ppo, tmp_path):
    assert ppo("--out", "mine", "--tuning-data", "sums.json", "--tuning-batch", 3).code == 0
    losses = [entry["tuning_loss"] for entry in lines_of(tmp_path / "mine")]
    assert len(losses) == 6 and losses[-1] < losses[0]


@pytest.mark.parametrize("value", ["policy", pytest.param("apart", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "precision", ["float32", *(pytest.param(p, marks=pytest.mark.long) for p in HALVES)]
)
def test_the_same_run_on_the_emulated_device(ppo, tmp_path, value, precision):
    options = ("--steps", 1, "--samples", 0, "--max-new-tokens", 2, "--prompts", 2)
    options = (*options, "--minibatches", 1, "--epochs", 2, "--value", value)
    assert ppo("--out", "cpu", *options).code == 0
    outcome = ppo("--out", "device", *options, "--device", "emulated", "--precision", precision)
    assert outcome.code == 0, outcome.err
    (cpu,), (device,) = (lines_of(tmp_path / name) for name in ("cpu", "device"))
    assert device["reward"] == cpu["reward"]
    assert device["loss"] == pytest.approx(cpu["loss"], abs=1e-4)
    for name in ("value_loss", "entropy", "gradient_norm"):
        assert device[name] == pytest.approx(cpu[name], rel=1e-3), name


BAD = COMMON | {
    "beta of 0": (None, ("--beta", 0), "beta must be above 0, not 0"),
    "beta below 0": (None, ("--beta", -1), "beta must be above 0, not -1"),
    "too many minibatches": (None, ("--minibatches", 5), "minibatches must be at most 4"),
    "a lambda above 1": (None, ("--gae-lambda", 2), "gae_lambda must be from 0 to 1, not 2"),
    "no clip": (None, ("--ratio-clip", 0), "ratio_clip must be above 0"),
    "a horizon without a target": (None, ("--horizon", 9), "horizon has no effect without target"),
    "nothing to tune on": (None, ("--tuning-batch", 2), "tuning_batch has no effect without tuni"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, little_model, tmp_path, case):
    entries, options, words = BAD[case]
    write_questions(tmp_path / "sums.json", entries)
    common = ("sums.json", "--model", little_model, *OPTIONS, "--out", "mine")
    assert_refused(run("ppo", *common, *options), words)
    assert not (tmp_path / "mine").exists()


@pytest.fixture
def judged(run, little_model, tokenizer, tmp_path):
    """Run ppo with a reward model in a folder."""
    write_questions(tmp_path / "sums.json")
    common = ("sums.json", "--model", little_model, *QUICK, *SHAPE, "--out", "mine")
    return lambda folder, *options: run("ppo", *common, "--reward-model", folder, *options)


def test_a_policy_as_reward_model_is_refused(judged, little_model, tmp_path):
    outcome = judged(little_model)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "score" in outcome.err and not (tmp_path / "mine").exists()


def test_a_reward_model_as_policy_is_refused(judged, tokenizer, tmp_path):
    folder = reward_model(tmp_path / "judge", tokenizer)
    assert_refused(judged(folder, "--model", folder), "is a reward model")


def test_a_reward_model_that_does_not_fit_is_refused(judged, tokenizer, tmp_path):
    other = type(ALPACA)(question="Q: {instruction}\nA:")
    cases = {
        "another template": reward_model(tmp_path / "a", tokenizer, template=other),
        "the reward model reads 20 tokens": reward_model(tmp_path / "b", tokenizer, context=20),
    }
    for words, folder in cases.items():
        assert_refused(judged(folder), words)
    assert_refused(judged(tmp_path / "b"), "set context to 19")  # which leaves a row for the end
    assert not (tmp_path / "mine").exists()


def test_another_vocabulary_is_refused(judged, tmp_path):
    from minigpt2.data.tokenizer import gpt2_tokenizer

    folder = reward_model(tmp_path / "judge", gpt2_tokenizer())
    assert_refused(judged(folder), "another vocabulary")


def test_prompts_alone_are_answered_for_a_reward_model(run, little_model, tokenizer, tmp_path):
    folder = reward_model(tmp_path / "judge", tokenizer)
    prompts = [{"instruction": f"What is {n} + 2?"} for n in range(6)]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    command = ("ppo", "prompts.json", "--model", little_model, *QUICK, *SHAPE)
    outcome = run(*command, "--reward-model", folder)
    assert outcome.code == 0, outcome.err
    assert "6 prompts with a mean length of" in outcome.out and "  right" not in outcome.out
    without = [option for option in command if option != "--max-new-tokens"]
    without.remove(command[command.index("--max-new-tokens") + 1])
    assert_refused(run(*without, "--reward-model", folder), "has no answers, so max_new_tokens is")
    checked = run(*command, "--check", "number")
    assert_refused(checked, "has no field 'output'")


def test_a_reward_that_is_not_a_number_names_the_answer(judged, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "score_answers", lambda p, both, bias: np.full(len(both), np.nan))
    outcome = judged(reward_model(tmp_path / "judge", tokenizer))
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "the reward of an answer is nan, not a number: " in outcome.err


def test_a_kl_over_its_bound_saves_and_stops_the_run(ppo, run, tmp_path):
    outcome = ppo("--max-kl", 0.01, "--learning-rate", 0.05, "--steps", 60, "--out", "bound")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "the policy has left its reference" in outcome.err
    step = int(re.search(r"step (\d+): the policy has left", outcome.err)[1])
    assert (tmp_path / "bound" / f"checkpoint-{step - 1:06d}").is_dir()
    again = run("ppo", "--resume", "bound")
    assert again.code == 2 and f"step {step}: the policy has left" in again.err
    more = ("--max-kl", 0, "--resume-anyway", "--steps", step + 1)
    outcome = run("ppo", "--resume", "bound", *more)
    assert outcome.code == 0, outcome.err


def test_a_model_with_a_value_is_no_model_of_the_folder(ppo, tmp_path):
    assert ppo("--out", "mine").code == 0
    assert isinstance(open_model(str(tmp_path / "mine")), Model)
