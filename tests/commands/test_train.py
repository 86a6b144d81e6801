"""`minigpt2 train`, as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from minigpt2.inference.model import open_model
from minigpt2.model_folders import find_model
from minigpt2.signals import STOPPING
from tests.commands.conftest import in_a_process

QUICK = ("--steps", "3", "--samples", "2", "--max_new_tokens", "4")


def numbers_of(value):
    """All numbers in a JSON value."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [n for item in items for n in numbers_of(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.fixture
def trained(run, little_model, data, tmp_path):
    """A finished run's folder, and what it printed."""
    outcome = run("train", "--model", little_model, "--data", data, "--out", "first", *QUICK)
    assert outcome.code == 0, outcome.err
    return tmp_path / "first", outcome.out


def test_a_run_leaves_checkpoint_log_report_answers_settings_and_summary(trained):
    folder, _ = trained
    assert {p.name for p in folder.iterdir()} == {
        "checkpoint-000002",
        "checkpoint-000003",
        "lock",
        "log.jsonl",
        "report.html",
        "answers.json",
        "settings.json",
        "summary.json",
    }
    files = {p.name for p in (folder / "checkpoint-000003").iterdir()}
    assert files == {
        "optimizer.safetensors",
        "state.json",
        "config.json",
        "model.safetensors",
        "template.json",
        "vocab.json",
        "merges.txt",
    }


def test_the_log_has_every_step_with_loss_rate_norm_tokens_and_memory(trained):
    folder, _ = trained
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    wanted = {"loss", "learning_rate", "gradient_norm", "supervised", "rows_per_second"}
    assert all(wanted | {"peak_memory"} <= line.keys() for line in steps)


def test_the_summary_holds_every_number_that_was_printed(trained):
    folder, printed = trained
    summary = json.loads((folder / "summary.json").read_text())
    held = numbers_of(summary)
    said = printed.split("\n\n")[0]  # up to the answers, whose texts are the model's
    lines = [s for s in said.splitlines() if re.match(r"step \d|data|context|model", s)]
    assert len(lines) >= 6
    for line in lines:
        for text in re.findall(r"(?<![\w/.-])\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?(?![\w.])", line):
            number = float(text.replace(",", ""))
            close = [n for n in held for unit in (1, 1e6, 1e9) if abs(n / unit - number) <= 0.5]
            assert close, f"{text} of {line!r} is not in summary.json"


def test_the_same_seed_gives_the_same_numbers(run, trained, little_model, data, tmp_path):
    assert (
        run("train", "--model", little_model, "--data", data, "--out", "second", *QUICK).code == 0
    )
    first, second = (load_file(find_model(str(tmp_path / n)) / "model.safetensors") for n in NAMES)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    answers = [(tmp_path / name / "answers.json").read_text() for name in NAMES]
    assert answers[0] == answers[1]


NAMES = ("first", "second")


def test_another_seed_gives_other_numbers(run, trained, little_model, data, tmp_path):
    options = ("--out", "second", "--seed", "1", *QUICK)
    assert run("train", "--model", little_model, "--data", data, *options).code == 0
    first, second = (load_file(find_model(str(tmp_path / n)) / "model.safetensors") for n in NAMES)
    assert not np.array_equal(first["wte.weight"], second["wte.weight"])


def test_micro_batches_change_nothing_but_rounding(run, trained, little_model, data, tmp_path):
    options = ("--out", "second", "--micro_batch", "3", *QUICK)
    assert run("train", "--model", little_model, "--data", data, *options).code == 0
    first, second = (load_file(find_model(str(tmp_path / n)) / "model.safetensors") for n in NAMES)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=2e-5, err_msg=name)


def test_a_tuned_checkpoint_opens_again_and_gives_the_same_answers(trained, tmp_path):
    folder, _ = trained
    for row in json.loads((folder / "answers.json").read_text()):
        asked = ("--question", row["instruction"], "--input", row["input"])
        options = ("--model", folder, "--max_new_tokens", 4)
        outcome = in_a_process("answer", *asked, *options, cwd=tmp_path)
        assert outcome.out == row["after"] + "\n", outcome.err


def test_a_later_train_starts_from_a_checkpoint(run, trained, data):
    outcome = run("train", "--model", "first", "--data", data, "--out", "second", *QUICK)
    assert outcome.code == 0, outcome.err


def test_settings_come_from_a_file_and_the_command_line_goes_before(run, little_model, data):
    settings = f"model: {little_model}\ndata: {data}\nsteps: 5\nsamples: 0\nlog_every: 1\n"
    Path("settings.yaml").write_text(settings)
    outcome = run("train", "--config", "settings.yaml", "--steps", "2", "--out", "run")
    assert outcome.code == 0, outcome.err
    settings = json.loads(Path("run/settings.json").read_text())
    assert (settings["steps"], settings["log_every"], settings["model"]) == (
        2,
        1,
        str(little_model),
    )
    assert "step 2/2" in outcome.out
    again = run("train", "--config", "run/settings.json", "--out", "again")
    assert again.code == 0, again.err
    assert json.loads(Path("again/settings.json").read_text()) == {**settings, "out": "again"}


def test_a_test_file_is_answered_before_and_after(run, little_model, data, tmp_path):
    questions = tmp_path / "questions.json"
    questions.write_text(data.read_text())
    options = ("--test", f"[{questions}]", "--out", "run", *QUICK)
    outcome = run("train", "--model", little_model, "--data", data, *options)
    assert "before    questions: 0 of 12 exactly right" in outcome.out
    assert "after     questions:" in outcome.out
    assert len(json.loads((tmp_path / "run/answers.json").read_text())) == 12


def test_over_the_context_is_counted_and_reported(run, little_model, tmp_path):
    entries = [
        {"instruction": "Say " + "much " * 200, "output": "yes"},
        {"instruction": "Say", "output": "much " * 200},
    ]
    (tmp_path / "long.json").write_text(json.dumps(entries))
    options = ("--data", "long.json", "--out", "run", "--validation", "0", *QUICK)
    outcome = run("train", "--model", little_model, *options)
    cuts = json.loads((tmp_path / "run/summary.json").read_text())["context"]
    counts = {name: cuts[name] for name in ("examples", "answers", "prompts", "instructions")}
    assert counts == {"examples": 2, "answers": 1, "prompts": 1, "instructions": 1}
    text = (
        f"over 96 tokens: 1 answer cut ({cuts['answer_tokens']:,} tokens), 1 prompt cut "
        f"({cuts['prompt_tokens']:,} tokens; inputs: 0, instructions: 1)"
    )
    assert (
        text in outcome.out
        and text.partition(": ")[2] in (tmp_path / "run/report.html").read_text()
    )
    assert "warning" not in outcome.out


def test_questions_that_the_context_has_no_room_for_are_warned_of(
    run, little_model, data, tmp_path
):
    options = ("--data", data, "--context", "8", "--validation", "0", "--out", "run", *QUICK)
    outcome = run("train", "--model", little_model, *options)
    warning = "12 examples have no question left: use a longer --context"
    assert f"warning   {warning}" in outcome.out
    assert warning in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize("loss", ["token", "example"])
@pytest.mark.parametrize("weight", ["0", "0.5"])
def test_the_log_counts_the_tokens_of_the_data(run, little_model, data, tmp_path, weight, loss):
    options = ("--data", data, "--out", "run", "--validation", "0", "--samples", "0")
    loss_weights = ("--prompt-weight", weight, "--loss", loss, "--epochs", "2", "--batch-size", "3")
    assert run("train", "--model", little_model, *options, *loss_weights).code == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())["data"]
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert sum(line["answer_tokens"] for line in log) == 2 * summary["answer_tokens"]
    if weight == "0":
        assert all(line["supervised"] == line["answer_tokens"] for line in log)


def test_template_columns_and_truncation_are_taken_to_the_model(run, little_model, tmp_path):
    entries = [{"ask": f"Count to {n}.", "reply": "1 " * n} for n in (1, 2, 3, 4, 99)]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    (tmp_path / "mine.yaml").write_text("question: 'Ask: {instruction} '")
    columns = '{"question": "ask", "answer": "reply"}'
    options = ("--data", "data.json", "--columns", columns, "--out", "run", *QUICK)
    how = ("--template", "mine.yaml", "--truncate", "drop", "--validation", "0")
    outcome = run("train", "--model", little_model, *options, *how)
    assert outcome.code == 0, outcome.err
    assert "1 example dropped" in outcome.out and "question/answer" in outcome.out
    stored = json.loads((find_model(str(tmp_path / "run")) / "template.json").read_text())
    assert stored["question"] == "Ask: {instruction} "
    model = open_model(str(tmp_path / "run"))
    assert model.template.first_prompt("Hi.") == "Ask: Hi. "


def test_from_python_in_a_few_lines(little_model, data, tmp_path):
    from minigpt2.commands.setup import TrainSettings
    from minigpt2.commands.train import train

    settings = TrainSettings(
        model=str(little_model), data=str(data), out=tmp_path / "run", steps=2, samples=0
    )
    summary = train(settings)
    assert summary["printed_steps"][-1]["step"] == 2


def test_samples_of_equal_questions_keep_their_own_references(run, little_model, data, tmp_path):
    entries = [{"instruction": "Q", "output": word} for word in ("first", "second", "third")]
    (tmp_path / "same.json").write_text(json.dumps(entries))
    options = ("--test", "same.json", "--out", "run", "--steps", "1", "--samples", "3")
    assert run("train", "--model", little_model, "--data", data, *options).code == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert {row["output"] for row in summary["samples"]} == {"first", "second", "third"}


def test_a_run_that_is_told_to_terminate_keeps_its_records(little_model, data, tmp_path):
    command = [sys.executable, "-m", "minigpt2", "train", "--model", str(little_model)]
    options = ["--data", str(data), "--out", "run", "--steps", "100000", "--samples", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *options], cwd=tmp_path, **pipes) as process:
        while not process.stdout.readline().startswith("step 10/"):
            pass
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 143  # 128 and the number of SIGTERM
    assert said == f"minigpt2: {STOPPING}\nminigpt2: stopped\n"
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["printed_steps"][-1]["step"] >= 10


def test_a_run_is_validated_ten_times_unless_it_is_told_otherwise(
    run, little_model, data, tmp_path
):
    how = ("--model", little_model, "--data", data, "--samples", "0", "--steps", "23")
    for name, more, expected in (
        ("default", (), [0, 3, 6, 9, 12, 15, 18, 21, 23]),
        ("ends", ("--evaluate-every", "0"), [0, 23]),
    ):
        assert run("train", *how, *more, "--out", name).code == 0
        lines = map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
        assert [line["step"] for line in lines if "validation_token_loss" in line] == expected


def test_questions_for_validation_that_are_trained_on_are_told(run, little_model, data):
    entries = json.loads(data.read_text())
    data.write_text(json.dumps(entries * 2))
    how = ("--model", little_model, "--data", data, "--steps", 1, "--samples", 0)
    outcome = run("train", *how, "--validation", 0.3)
    warned = re.search(r"(\d+) of 7 questions for validation are also trained on", outcome.out)
    assert warned and int(warned[1]) > 0
    data.write_text(json.dumps(entries))
    assert "also trained on" not in run("train", *how, "--validation", 0.3).out


def test_a_run_that_stops_early_says_so_and_names_its_best_step(run, little_model, data, tmp_path):
    how = ("--learning-rate", "30", "--steps", "90", "--evaluate-every", "1", "--patience", "2")
    outcome = run("train", "--model", little_model, "--data", data, "--out", "run", *how)
    assert outcome.code == 0, outcome.err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    best, step = summary["best"], summary["stopped_early"]["step"]
    assert step == best["step"] + 2 < 90
    lines = list(map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines()))
    losses = {e["step"]: e["validation_token_loss"] for e in lines if "validation_token_loss" in e}
    assert best["loss"] == min(losses.values()) == losses[best["step"]]
    assert [*losses] == list(range(step + 1))
    early = f"after step {step} of 90: 2 validations without an improvement (--patience)"
    named = f"validation loss {best['loss']:.4f}, after step {best['step']}"
    assert f"best      {named}\nstopped   {early}\n" in outcome.out
    page = (tmp_path / "run/report.html").read_text()
    assert f"<p>Best: {named}.</p>" in page and f"<p>Stopped {early}.</p>" in page
