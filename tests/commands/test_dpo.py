"""DPO: whole runs as a user starts them, stopped and continued, on devices, and refused."""

import json
from math import log

import numpy as np
import pytest

from minigpt2.alignment.dpo import pair_log_probs
from minigpt2.commands import dpo as command
from minigpt2.inference.model import Model, open_model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.reports.run_log import RunLog
from tests.commands.pairs import QUICK, assert_refused, pairs, results_of, write_pairs

OPTIONS = (*QUICK, "--samples", 1, "--max-new-tokens", 3, "--steps", 6, "--evaluate-every", 2)


@pytest.fixture
def dpo(run, little_model, tmp_path):
    """Run dpo with the little model on twelve pairs."""
    write_pairs(tmp_path / "pairs.json")
    return lambda *options: run("dpo", "pairs.json", "--model", little_model, *OPTIONS, *options)


def lines_of(folder, name):
    """The entries of a log that have a number."""
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [entry for entry in entries if name in entry]


def test_a_run_learns_the_pairs_and_leaves_a_model(dpo, tmp_path):
    outcome = dpo()
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "runs/pairs-dpo-1"
    steps, validations = (lines_of(folder, name) for name in ("loss", "validation_loss"))
    assert steps[0]["loss"] == pytest.approx(log(2), abs=1e-6)
    assert validations[0]["validation_loss"] == log(2)
    assert validations[0]["validation_chosen_log_ratio"] == 0
    assert validations[-1]["validation_loss"] < log(2) - 0.01
    assert {"validation_accuracy/padded", "validation_accuracy/cut"} <= set(validations[-1])
    assert "left out 1 pair whose two answers are equal" in outcome.out
    assert "was not tuned on questions and answers" in " ".join(outcome.out.split())
    model = open_model(str(folder))
    assert model.template is not None
    answers = json.loads((folder / "answers.json").read_text())
    assert [set(row) >= {"before", "after", "output"} for row in answers] == [True]
    page = (folder / "report.html").read_text()
    for text in ("One training pair, chosen", "log-ratio to the reference", "accuracy, validation"):
        assert text in page


def test_the_margin_is_that_of_a_second_model(dpo, little_model, tmp_path):
    assert dpo("--out", "run", "--beta", 0.5, "--evaluate-every", 6).code == 0
    last = lines_of(tmp_path / "run", "validation_loss")[-1]
    settings = command.DpoSettings(
        data=str(tmp_path / "pairs.json"), model=str(little_model), validation=0.25
    )
    start, end = (open_model(str(name)) for name in (little_model, tmp_path / "run"))
    held_out = command.setup_pairs(settings, start).validated
    now, reference = (pair_log_probs(m.parameters, held_out) for m in (end, start))
    d = np.subtract(*(0.5 * (now - reference)).T)
    assert last["validation_margin"] == pytest.approx(d.mean(), abs=1e-5)
    assert last["validation_loss"] == pytest.approx(np.log1p(np.exp(-d)).mean(), abs=1e-5)


class Killed(BaseException):
    """The end of a process that does nothing more."""


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_run_continues_bit_for_bit(dpo, tmp_path, monkeypatch, stop):
    def add_step(log, result, steps, *, printed):
        log_step(log, result, steps, printed=printed)
        if result.step == stop:
            raise Killed

    log_step = RunLog.add_step
    assert dpo("--out", "whole", "--save-every", 2).code == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunLog, "add_step", add_step)
        dpo("--out", "broken", "--save-every", 2)
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(command, "pair_log_probs", lambda *a: calls.append(a) or pair_log_probs(*a))
        outcome = dpo("--out", "broken", "--resume")
    assert outcome.code == 0, outcome.err
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")
    validations = 2 * sum(2 * k > stop - 1 or stop == 1 for k in range(4))  # of 3 pairs each
    assert len(calls) <= (5 + 2 if stop == 1 else 0) + validations


def test_what_the_run_began_with_stays_the_reference(dpo, tmp_path):
    assert dpo("--out", "mine", "--steps", 4, "--save-every", 2).code == 0
    state = json.loads((tmp_path / "mine/checkpoint-000004/state.json").read_text())
    stored = state["notes"]["extra"]["reference"]
    assert np.shape(stored["training"]) == (9, 2) and np.shape(stored["validation"]) == (3, 2)


def test_another_model_is_another_reference_and_not_another_start(
    dpo, run, tokenizer, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunLog, "add_step", lambda log, result, steps, **rest: fail_after(result, 2))
        dpo("--out", "mine", "--save-every", 1)
    other = initialise(GPT2Config(tokenizer.n_vocab, 96, 16, 2, 2), np.random.default_rng(9))
    save_model(tmp_path / "other", Model(other, tokenizer, None))
    calls = []

    def noted(*given):
        calls.append(given)
        return pair_log_probs(*given)

    monkeypatch.setattr(command, "pair_log_probs", noted)
    outcome = run("dpo", "--resume", "mine", "--resume-anyway", "--model", "other")
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    assert "model is the reference alone: the weights are those of mine/checkpoint-000001" in text
    assert any(np.array_equal(parameters.flat, other.flat) for parameters, *_ in calls)


def fail_after(result, step):
    """End a run after a step, as if it were killed."""
    if result.step == step:
        raise Killed


def test_the_reference_is_computed_of_the_pairs_that_a_short_run_takes(dpo, little_model, tmp_path):
    assert dpo("--out", "short", "--steps", 2, "--batch-size", 3).code == 0
    state = json.loads((tmp_path / "short/checkpoint-000002/state.json").read_text())
    stored = state["notes"]["extra"]["reference"]["training"]
    first, second = lines_of(tmp_path / "short", "loss")[:2]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-6) and np.isfinite(second["loss"])
    settings = command.DpoSettings(
        data=str(tmp_path / "pairs.json"),
        model=str(little_model),
        validation=0.25,
        steps=2,
        batch_size=3,
    )
    run = command.setup_pairs(settings, open_model(str(little_model)))
    taken = sorted({i for k in (0, 3) for part in run.batches().indices_at(0, k) for i in part})
    assert len(taken) == 6 < len(run.trained)
    pairs_taken = [run.trained[i] for i in taken]
    expected = pair_log_probs(run.model.parameters, pairs_taken)
    np.testing.assert_allclose(stored, expected, rtol=0, atol=1e-5)


def test_a_run_of_another_command_is_not_continued(run, dpo, data, little_model):
    options = ("--data", data, "--model", little_model, "--samples", 0, "--steps", 1)
    assert run("train", *options, "--out", "tuned").code == 0
    assert_refused(dpo("--resume", "tuned"), "tuned is a run of train, not of dpo")


@pytest.mark.parametrize(
    ("precision", "bound"),
    [("float32", 1e-5), ("bfloat16", 1e-2)],
)
def test_the_same_run_on_the_emulated_device(dpo, tmp_path, precision, bound):
    write_pairs(tmp_path / "pairs.json", pairs()[:4])
    options = ("--steps", 1, "--samples", 0, "--evaluate-every", 0, "--batch-size", 2)
    assert dpo("--out", "cpu", *options).code == 0
    device = ("--device", "emulated", "--precision", precision)
    assert dpo("--out", "device", *options, *device).code == 0
    losses = [
        [entry["validation_loss"] for entry in lines_of(tmp_path / name, "validation_loss")]
        for name in ("cpu", "device")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=bound)


LONG = {"instruction": "Count.", "chosen": "1 2 3 " * 90, "rejected": "1 2 3 " * 91}
EQUAL = [{**entry, "rejected": entry["chosen"]} for entry in pairs()]
PLAIN = [{"instruction": "Count.", "output": "1"}]
DIALOGUES = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}]
BAD = {
    "data without rejected": (PLAIN, (), "no field 'rejected'"),
    "prompts that differ": (DIALOGUES, (), "entry 0 of pairs.json"),
    "equal answers": (EQUAL, (), "the two answers of every pair are equal"),
    "pairs equal when cut": ([LONG], (), "have equal answers when cut to the context of 96"),
    "pairs too long": ([LONG], ("--truncate", "drop"), "no pair is left"),
    "beta of 0": (None, ("--beta", 0), "beta must be above 0, not 0"),
    "beta below 0": (None, ("--beta", -0.1), "beta must be above 0"),
    "beta that is no number": (None, ("--beta", "nan"), "beta must be"),
    "smoothing of a half": (None, ("--label-smoothing", 0.5), "below 0.5, not 0.5"),
    "dropout": (None, ("--dropout", 0.1), "there is no dropout in alignment: the probabilities"),
    "a rate that diverges": (None, ("--learning-rate", 1e30, "--clip", 0), "is not finite"),
    "a context too long": (None, ("--context", 999), "context 999 is longer than the 96"),
    "a precision without a GPU": (None, ("--precision", "float16"), "float16"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(dpo, tmp_path, case):
    entries, options, words = BAD[case]
    if entries is not None:
        write_pairs(tmp_path / "pairs.json", entries)
    outcome = dpo("--out", "mine", *options)
    if words == "is not finite":
        assert outcome.code == 2 and outcome.err.count("\n") == 1
        assert "step " in outcome.err and "of pairs.json" in outcome.err, outcome.err
        return
    assert_refused(outcome, words)
    assert not (tmp_path / "mine").exists()


def test_dropout_in_a_file_is_refused_with_the_line(dpo, tmp_path):
    (tmp_path / "settings.yaml").write_text("beta: 0.2\ndropout: 0.1\n")
    outcome = dpo("--config", "settings.yaml", "--out", "mine")
    assert_refused(outcome, "settings.yaml, line 2: there is no dropout in alignment")
