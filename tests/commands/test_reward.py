"""Reward: whole runs as a user starts them, their result, stopped and continued, and refused."""

import json
import shutil
from math import log

import numpy as np
import pytest

from minigpt2.alignment.pairs import read_pairs
from minigpt2.alignment.reward_model import score_pairs
from minigpt2.data.loading import load_data
from minigpt2.errors import UserError
from minigpt2.inference.model import open_model, open_reward_model
from minigpt2.reports.run_log import RunLog
from tests.commands.pairs import QUICK, assert_refused, results_of, write_pairs

OPTIONS = (*QUICK, "--steps", 6, "--evaluate-every", 2)


@pytest.fixture
def reward(run, little_model, tmp_path):
    """Run reward with the little model on twelve pairs."""
    write_pairs(tmp_path / "pairs.json")
    return lambda *options: run("reward", "pairs.json", "--model", little_model, *OPTIONS, *options)


@pytest.fixture
def trained(reward, tmp_path):
    """The folder of a finished run, and what it printed."""
    outcome = reward("--test", "pairs.json")
    assert outcome.code == 0, outcome.err
    return tmp_path / "runs/pairs-reward-1", outcome.out


def test_a_run_learns_the_pairs_and_prints_each_kind(trained):
    folder, printed = trained
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [entry["validation_loss"] for entry in entries if "validation_loss" in entry]
    assert losses[0] == pytest.approx(log(2)) and losses[-1] < log(2) - 0.01
    result = json.loads((folder / "summary.json").read_text())["after"]["pairs"]
    assert result["asked"] == 12 and set(result["kinds"]) == {"padded", "cut"}
    assert f"pairs: {result['right']} of 12 pairs right" in printed
    assert "validation loss" in printed and ": " in printed.split("accuracy", 1)[1]
    page = (folder / "report.html").read_text()
    assert "pairs, accuracy" in page and "<h2>Answers</h2>" not in page


def test_the_result_is_a_reward_model_of_mean_0_and_variance_1(trained, tmp_path):
    folder, _ = trained
    model = open_reward_model(str(folder))
    same = open_reward_model(str(folder / "reward-model"))
    assert model.bias == same.bias != 0
    newest = open_reward_model(str(max(folder.glob("checkpoint-*"))))
    assert newest.bias == 0
    records = load_data(tmp_path / "pairs.json").records
    pairs = read_pairs(records, model.tokenizer, model.template, 96).pairs
    before, after = (score_pairs(m.parameters, pairs, m.bias) for m in (newest, model))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] == pytest.approx(1)
    settings = json.loads((folder / "summary.json").read_text())["data"]
    assert settings["training"] == 9
    assert abs(after.mean()) < 0.5 and 0.5 < after.std() < 1.5


def test_a_reward_model_is_no_policy_and_a_policy_no_reward_model(trained, run, little_model):
    folder, _ = trained
    with pytest.raises(UserError, match="is a reward model: it scores answers"):
        open_model(str(folder))
    with pytest.raises(UserError, match="is no reward model"):
        open_reward_model(str(little_model))
    outcome = run("dpo", "pairs.json", "--model", folder, "--out", "mine")
    assert_refused(outcome, "is a reward model: it scores answers and cannot write them")
    assert_refused(run("answer", "Why?", "--model", folder), "is a reward model")


class Killed(BaseException):
    """The end of a process that does nothing more."""


@pytest.mark.parametrize("stop", [1, 3])
def test_a_killed_run_continues_bit_for_bit(reward, tmp_path, monkeypatch, stop):
    def add_step(log, result, steps, *, printed):
        log_step(log, result, steps, printed=printed)
        if result.step == stop:
            raise Killed

    log_step = RunLog.add_step
    assert reward("--out", "whole", "--save-every", 2).code == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunLog, "add_step", add_step)
        reward("--out", "broken", "--save-every", 2)
    outcome = reward("--out", "broken", "--resume")
    assert outcome.code == 0, outcome.err
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")


def test_the_newest_run_with_these_settings_continues(reward, tmp_path):
    assert reward().code == 0
    run = tmp_path / "runs/pairs-reward-1"
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({k: v for k, v in summary.items() if k != "done"}))
    shutil.rmtree(run / "reward-model")
    outcome = reward("--resume")
    assert "runs/pairs-reward-1 continues after 6 steps" in outcome.out
    assert (run / "reward-model").is_dir()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_run_on_the_emulated_device(reward, tmp_path, precision):
    options = ("--steps", 1, "--evaluate-every", 0, "--batch-size", 2, "--validation", 0.1)
    assert reward("--out", "cpu", *options).code == 0
    device = ("--device", "emulated", "--precision", precision)
    assert reward("--out", "device", *options, *device).code == 0
    heads = [
        open_reward_model(str(max((tmp_path / name).glob("check*")))).parameters["score.weight"]
        for name in ("cpu", "device")
    ]
    assert heads[1] == pytest.approx(heads[0], abs=1e-5 if precision == "float32" else 1e-3)


BAD = {
    "data without rejected": ([{"instruction": "a", "output": "b"}], (), "no field 'rejected'"),
    "a test without rejected": (None, ("--test", "plain.json"), "no field 'rejected'"),
    "a centre below 0": (None, ("--centre", -1), "centre must be at least 0"),
    "dropout": (None, ("--dropout", 0.1), "there is no dropout in alignment"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(reward, tmp_path, case):
    entries, options, words = BAD[case]
    write_pairs(tmp_path / "plain.json", [{"instruction": "a", "output": "b"}])
    if entries is not None:
        write_pairs(tmp_path / "pairs.json", entries)
    assert_refused(reward("--out", "mine", *options), words)
    assert not (tmp_path / "mine").exists()
