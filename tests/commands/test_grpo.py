"""GRPO: whole runs as a user starts them, stopped and continued, on a device, and refused."""

import json

import pytest

from minigpt2.commands import rewards
from minigpt2.inference.model import open_model
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

OPTIONS = (*QUICK, "--check", "equation", "--prompts", 2, "--answers", 3, "--steps", 5)


@pytest.fixture
def grpo(run, little_model, tmp_path, monkeypatch):
    """Run grpo with the little model on six sums; half of the tokens are good ones."""
    write_questions(tmp_path / "sums.json")

    def by_check(*arguments):
        return rewards.Reward("half of the tokens", length_score, {})

    monkeypatch.setattr("minigpt2.commands.policy_run.by_check", by_check)
    return lambda *options: run("grpo", "sums.json", "--model", little_model, *OPTIONS, *options)


def test_a_run_leaves_a_model_and_a_report(grpo, tmp_path):
    outcome = grpo("--steps", 14)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "runs/sums-grpo-1"
    steps = lines_of(folder)
    assert len(steps) == 14
    names = {"loss", "reward", "kl", "entropy", "length", "ended", "alike", "ratio_error"}
    assert names <= steps[0].keys()
    assert abs(steps[0]["kl"]) < 1e-5
    assert max(entry["ratio_error"] for entry in steps) < 1e-4
    assert steps[-1]["kl"] != 0
    assert "reward" in outcome.out and "6 prompts" in outcome.out
    assert "was not tuned on questions and answers" in " ".join(outcome.out.split())
    assert open_model(str(folder)).template is not None
    page = (folder / "report.html").read_text()
    for text in ("Answers on the way", "Add 2 and 1.", "half of the tokens"):
        assert text in page
    drawn = json.loads((folder / "drawn.json").read_text())
    assert {row["step"] for row in drawn} == {1, 3, 5, 7, 9, 11, 13, 14}


@pytest.fixture
def always(run, little_model, tmp_path, monkeypatch):
    """Run grpo where each answer has the same reward."""
    write_questions(tmp_path / "sums.json")
    command = ("grpo", "sums.json", "--model", little_model, *OPTIONS, "--steps", 60)

    def grpo(reward, *options):
        def by_check(*arguments):
            return rewards.Reward("the same", lambda both, prompts: [reward] * len(both), {})

        monkeypatch.setattr("minigpt2.commands.policy_run.by_check", by_check)
        return run(*command, "--out", "mine", *options)

    return grpo


def test_a_run_that_has_learnt_its_task_ends(always, tmp_path):
    outcome = always(1.0)
    assert outcome.code == 0, outcome.err
    line = (
        "stopped   after step 19 of 60: no group of answers has had a difference in reward for 20"
    )
    assert line in outcome.out and "see mine/report.html" in outcome.out
    assert open_model(str(tmp_path / "mine")).template is not None
    assert "Stopped after step 19 of 60" in (tmp_path / "mine/report.html").read_text()


def test_a_task_that_is_too_hard_saves_the_run(always, run, tmp_path, monkeypatch):
    again = ("grpo", "--resume", "mine")
    for step, outcome in (
        (20, always(0.0, "--keep", 0)),
        (20, run(*again)),
        (39, run(*again, "--resume-anyway", "--answers", 4)),
    ):
        assert outcome.code == 2 and outcome.err.count("\n") == 1, outcome
        assert f"step {step}: no group of answers has had a difference" in outcome.err
        assert (tmp_path / f"mine/checkpoint-{step - 1:06}").is_dir()


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_killed_run_continues_bit_for_bit(grpo, tmp_path, monkeypatch, stop):
    assert grpo("--out", "whole").code == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("minigpt2.reports.run_log.RunLog.add_step", killed_after(stop))
        grpo("--out", "broken")
    outcome = grpo("--out", "broken", "--resume")
    assert outcome.code == 0, outcome.err
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")
    drawn = [(tmp_path / name / "drawn.json").read_text() for name in ("broken", "whole")]
    assert drawn[0] == drawn[1]


def test_the_options_of_the_advantage_reach_the_run(grpo, tmp_path):
    norms = []
    for k, options in enumerate(
        [(), ("--divide-by-sigma",), ("--normaliser", "sample"), ("--baseline", "leave-one-out")]
    ):
        assert grpo("--out", f"run{k}", "--steps", 1, *options).code == 0
        norms.append(lines_of(tmp_path / f"run{k}")[0]["gradient_norm"])
    assert len(set(norms)) == 4
    assert norms[3] == pytest.approx(1.5 * norms[0], rel=1e-4)  # K / (K − 1)


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_the_same_run_on_the_emulated_device(grpo, tmp_path, precision, bound):
    options = ("--steps", 1, "--samples", 0, "--max-new-tokens", 2)
    assert grpo("--out", "cpu", *options).code == 0
    outcome = grpo("--out", "device", *options, "--device", "emulated", "--precision", precision)
    assert outcome.code == 0, outcome.err
    (cpu,), (device,) = (lines_of(tmp_path / name) for name in ("cpu", "device"))
    if precision == "float32":
        assert device["reward"] == cpu["reward"]
        assert device["gradient_norm"] == pytest.approx(cpu["gradient_norm"], rel=bound)
    assert device["entropy"] == pytest.approx(cpu["entropy"], rel=bound)


BAD = COMMON | {
    "one answer": (None, ("--answers", 1), "answers must be at least 2, not 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, little_model, tmp_path, case):
    entries, options, words = BAD[case]
    write_questions(tmp_path / "sums.json", entries)
    common = ("sums.json", "--model", little_model, *OPTIONS, "--out", "mine")
    assert_refused(run("grpo", *common, *options), words)
    assert not (tmp_path / "mine").exists()


def test_a_run_needs_a_reward(run, little_model, tmp_path):
    write_questions(tmp_path / "sums.json")
    outcome = run("grpo", "sums.json", "--model", little_model)
    assert_refused(outcome, "what are answers rewarded by? Give reward_model")


def test_groups_that_never_differ_stop_the_run(run, little_model, tmp_path):
    write_questions(tmp_path / "sums.json")
    common = ("sums.json", "--model", little_model, *OPTIONS, "--out", "mine", "--steps", 30)
    outcome = run("grpo", *common)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "step 20: no group of answers has had a difference in reward for 20 steps" in outcome.err
