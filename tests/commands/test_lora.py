"""`minigpt2 train --lora-rank`, as a user runs it, and what opens the adapters."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

import minigpt2
from minigpt2 import backend
from minigpt2.inference.model import open_model
from tests.commands.test_resume import without_times
from tests.kernels.support import emulated_only, needs_device

HOW = ("--batch-size", 4, "--micro-batch", 2, "--epochs", 2, "--samples", 1, "--max-new-tokens", 4)
HOW += ("--lora-rank", 3, "--learning-rate", 0.05, "--validation", 0.2, "--save-every", 2)


@pytest.fixture
def train(run, little_model, data):
    """Tune adapters of the little model."""
    return lambda *options: run("train", data, "--model", little_model, *HOW, *options)


@pytest.fixture(scope="module")
def once(little_model, tmp_path_factory):
    """A finished run of adapters, with the template qa."""
    folder = tmp_path_factory.mktemp("once")
    entries = [{"question": f"Count to {n}.", "answer": f"1 to {n}"} for n in range(12)]
    (folder / "data.json").write_text(json.dumps(entries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minigpt2.reports.run_page.run_curves", lambda log: "")
        how = {"lora_rank": 3, "learning_rate": 0.05, "samples": 0, "steps": 4}
        data, out = folder / "data.json", folder / "run"
        minigpt2.train(data, model=str(little_model), out=out, **how)
    return out


@pytest.fixture
def finished(once, tmp_path):
    """The same run, in the folder of the test."""
    shutil.copytree(once, tmp_path / "run")
    return tmp_path / "run"


def bytes_of(folder):
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors_of(folder):
    """The adapters in a checkpoint."""
    return load_file(folder / "adapter_model.safetensors")


def test_a_run_trains_adapters_and_leaves_the_model_as_it_is(train, little_model, tmp_path):
    before = bytes_of(little_model)
    outcome = train("--out", "run")
    assert outcome.code == 0, outcome.err
    assert "adapters  LoRA of rank 3 in 8 layers" in outcome.out and "%" in outcome.out
    assert "merged    run/merged" in outcome.out
    assert bytes_of(little_model) == before
    newest = max((tmp_path / "run").glob("checkpoint-*"))
    assert {path.name for path in newest.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "template.json",
        "vocab.json",
        "merges.txt",
    }
    config = json.loads((newest / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(little_model) and config["r"] == 3
    tensors = tensors_of(newest)
    assert len(tensors) == 16 and all(tensor.any() for tensor in tensors.values())
    sizes = {path.name: path.stat().st_size for path in newest.iterdir()}
    assert sizes["optimizer.safetensors"] < 50_000  # of adapters alone
    losses = [line for line in outcome.out.splitlines() if "validation loss" in line]
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (losses[0], losses[-2]))
    assert last < first


def test_the_run_its_checkpoint_and_the_merged_model_are_one_model(train, run, data, tmp_path):
    assert train("--out", "run").code == 0
    newest = max((tmp_path / "run").glob("checkpoint-*"))
    models = [open_model(str(tmp_path / name)) for name in ("run", newest, "run/merged")]
    for other in models[1:]:
        np.testing.assert_array_equal(models[0].parameters.flat, other.parameters.flat)
        assert models[0].template == other.template is not None
    base = open_model(json.loads((newest / "adapter_config.json").read_text())[BASE])
    assert (models[0].parameters.flat != base.parameters.flat).any()
    answers = [
        run("answer", "Count to 3.", "--model", name, "--max-new-tokens", 5).out
        for name in ("run", newest, "run/merged")
    ]
    assert answers[0] and answers == answers[:1] * 3
    scores = [run("evaluate", data, "--model", name).out for name in ("run", "run/merged")]
    assert scores[0] == scores[1].replace("run/merged", "run")


BASE = "base_model_name_or_path"


def results_of(folder):
    """What a run leaves, without what depends on the clock and the folder."""
    newest = max(folder.glob("checkpoint-*"))
    lines = (folder / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return (
        (newest / "adapter_model.safetensors").read_bytes(),
        (newest / "optimizer.safetensors").read_bytes(),
        (folder / "merged/model.safetensors").read_bytes(),
        [without_times(e) for e in entries if e.get("key", "") not in ("run", "merged")],
    )


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_killed_run_continues_with_the_same_bits(train, killed, step, tmp_path):
    options = "--dropout", 0.1
    assert train("--out", "whole", *options).code == 0
    killed(step, "--out", "broken", *options)
    outcome = train("--resume", "--out", "broken", *options)
    assert outcome.code == 0, outcome.err
    whole, broken = (results_of(tmp_path / name) for name in ("whole", "broken"))
    assert broken[:3] == whole[:3]
    of_steps = [[e for e in results[3] if "loss" in e] for results in (whole, broken)]
    assert of_steps[0] == of_steps[1]


@pytest.mark.parametrize(
    "change",
    [
        ("--lora-alpha", 64),
        ("--lora-rank", 2),
        ("--lora-layers", "[attn.c_attn]"),
        ("--lora-rslora",),
        ("--lora-rank", 0),
    ],
)
def test_a_run_continues_with_its_own_adapters(train, killed, change, tmp_path):
    killed(3, "--out", "run")
    before = bytes_of(tmp_path / "run/checkpoint-000002")
    outcome = train("--resume", "run", *change, "--resume-anyway")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert change[0].removeprefix("--").replace("-", "_") in outcome.err
    assert "continues from its own weights" in outcome.err
    assert bytes_of(tmp_path / "run/checkpoint-000002") == before
    assert train("--resume", "run").code == 0


def test_a_run_of_all_weights_gets_no_adapters_on_its_way(train, killed):
    killed(3, "--out", "run", "--lora-rank", 0)
    outcome = train("--resume", "run", "--resume-anyway")
    assert outcome.code == 2 and "lora_rank is 3, and was 0" in outcome.err


def test_the_model_below_may_move(train, killed, run, little_model, tmp_path):
    shutil.copytree(little_model, tmp_path / "old")
    killed(3, "--model", "old", "--out", "run")
    (tmp_path / "old").rename(tmp_path / "new")
    outcome = train("--model", "new", "--resume", "run")
    assert outcome.code == 0, outcome.err
    newest = max((tmp_path / "run").glob("checkpoint-*"))
    assert json.loads((newest / "adapter_config.json").read_text())[BASE] == str(tmp_path / "new")
    assert run("answer", "Count to 3.", "--model", "run").code == 0
    (tmp_path / "new").rename(tmp_path / "newer")
    outcome = run("answer", "Count to 3.", "--model", "run")
    assert outcome.code == 2 and "if it has moved, name its folder in" in outcome.err


def test_a_merged_model_of_an_earlier_end_is_written_again(train, killed, tmp_path):
    assert train("--out", "whole").code == 0
    killed(5, "--out", "run")
    shutil.copytree(tmp_path / "run/checkpoint-000004", tmp_path / "run/merged")
    assert train("--resume", "run").code == 0
    assert bytes_of(tmp_path / "run/merged") == bytes_of(tmp_path / "whole/merged")


def test_merged_is_not_written_where_it_is_not_wanted(train, tmp_path):
    outcome = train("--out", "run", "--lora-merge", "false")
    assert outcome.code == 0 and "\nmerged " not in outcome.out
    assert not (tmp_path / "run/merged").exists()


def test_the_file_of_adapters_stands_for_its_folder(finished, run, tmp_path):
    newest = max((tmp_path / "run").glob("checkpoint-*"))
    one, other = (run("answer", "Count to 3.", "--model", m).out for m in (newest, newest / FILE))
    assert one == other


FILE = "adapter_model.safetensors"


def test_adapters_on_an_adapted_model(train, run, data, tmp_path):
    assert train("--out", "first").code == 0
    outcome = run("train", data, "--model", "first", *HOW, "--steps", 2, "--out", "second")
    assert outcome.code == 0, outcome.err
    newest = max((tmp_path / "second").glob("checkpoint-*"))
    base = json.loads((newest / "adapter_config.json").read_text())[BASE]
    assert base == str(max((tmp_path / "first").glob("checkpoint-*")))
    merged, opened = (open_model(str(tmp_path / n)) for n in ("second/merged", "second"))
    np.testing.assert_array_equal(merged.parameters.flat, opened.parameters.flat)
    shutil.rmtree(tmp_path / "first")
    outcome = run("answer", "Count to 3.", "--model", "second")
    assert outcome.code == 2
    assert "has adapters of" in outcome.err and outcome.err.count("\n") == 1


def test_the_model_may_be_named_from_the_folder_of_the_run(train, run, little_model, tmp_path):
    name = os.path.relpath(little_model, tmp_path)
    assert ".." in name
    outcome = train("--model", name, "--out", "run")
    assert outcome.code == 0, outcome.err
    assert run("answer", "Count to 3.", "--model", "run").code == 0


def test_a_model_that_was_changed_is_not_adapted(train, run, little_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(little_model, copy)
    assert train("--model", copy, "--out", "run").code == 0
    merged = tmp_path / "run/merged"
    shutil.copy(merged / "model.safetensors", copy / "model.safetensors")
    outcome = run("answer", "Count to 3.", "--model", "run")
    assert outcome.code == 2 and "adapters of other weights" in outcome.err


@pytest.mark.parametrize(
    "command",
    [
        ("show", "data.json"),
        ("stats", "data.json"),
        ("plan", "--data", "data.json", "--time", "false"),
        ("imbalance", "data.json", "--count", 2),
        ("generate", "hello", "--max-new-tokens", 2),
        ("train", "data.json", "--from-scratch", "--steps", 1, "--samples", 0),
        ("reward", "pairs.json", "--steps", 1),
    ],
    ids=lambda command: command[0],
)
def test_every_command_opens_a_run_of_adapters(finished, run, data, command, tmp_path):
    pairs = [{"prompt": f"p {n}", "chosen": "yes", "rejected": "no"} for n in range(12)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    outcome = run(*command, "--model", "run")
    assert outcome.code == 0, outcome.err
    if command[0] == "show":
        assert "Question:" in outcome.out  # the template of the adapters


def test_full_tuning_takes_an_adapted_model_on(train, run, data, tmp_path):
    assert train("--out", "first").code == 0
    outcome = run("train", data, "--model", "first", "--steps", 1, "--samples", 0, "--out", "all")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "all/checkpoint-000001/model.safetensors").is_file()


def test_a_low_learning_rate_is_told(train):
    assert "is low for adapters" in train("--learning-rate", 5e-5).out
    assert "is low for adapters" not in train().out


def test_from_python(little_model, data, tmp_path, no_curves):
    settings = {"lora_rank": 2, "lora_layers": ["attn.c_attn"], "steps": 2, "samples": 0}
    summary = minigpt2.train(data, model=str(little_model), out=tmp_path / "run", **settings)
    tensors = tensors_of(max((tmp_path / "run").glob("checkpoint-*")))
    assert len(tensors) == 4 and all(".attn.c_attn." in name for name in tensors)
    assert summary["merged"]["folder"] == str(tmp_path / "run/merged")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lora-rank", -1], ["lora_rank", "at least 0"]),
        (["--lora-alpha", 0], ["lora_alpha", "above 0"]),
        (["--lora-rank", 17], ["lora_rank is 17", "16"]),
        (["--lora-layers", "[wte]"], ["lora_layers", "wte", "attn.c_attn"]),
        (["--lora-layers", "[]"], ["lora_layers is empty"]),
        (["--lora-rank", 0, "--lora-alpha", 8], ["lora_alpha has no effect without lora_rank"]),
        (["--lora-rank", 0, "--lora-rslora"], ["lora_rslora has no effect"]),
        (["--lora-rank", 0, "--lora-layers", "[mlp.c_fc]"], ["lora_layers has no effect"]),
        (["--from-scratch"], ["lora_rank", "from_scratch"]),
    ],
)
def test_bad_settings_are_refused_in_one_line(train, options, words, tmp_path):
    outcome = train(*options, "--out", "run")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert all(word in outcome.err for word in words), outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["dpo", "reward", "ppo", "grpo", "pretrain"])
def test_other_commands_have_no_adapters(run, command):
    outcome = run(command, "--lora-rank", 8)
    assert outcome.code == 2 and "lora-rank" in outcome.err


def test_plan_counts_adapters(run):
    how = "plan", "gpt2-large", "--micro-batch", 1, "--batch-size", 1, "--time", "false"
    whole, adapted = (run(*how, *more).out for more in ([], ["--lora-rank", 8]))
    gb = [float(out.split("needs ")[1].split()[0]) for out in (whole, adapted)]
    assert gb[1] < gb[0] / 2
    assert "the merged model 3.10 GB" in adapted
    outcome = run("plan", "gpt2", "--run", "dpo", "--lora-rank", 8)
    assert outcome.code == 2 and "no effect on dpo" in outcome.err


def test_what_plan_proposes_has_the_adapters(run):
    out = run("plan", "gpt2-large", "--memory", 5.5, "--lora-rank", 8, "--time", "false").out
    assert "--lora-rank 8" in out.split("this fits")[1]
    layers = "--lora-rank", 256, "--lora-layers", "[attn.c_attn]"
    out = run("plan", "gpt2-large", "--memory", 6, *layers, "--time", "false").out
    assert "--lora-layers '[\"attn.c_attn\"]'" in out.split("this fits")[1]
    out = run("plan", "gpt2-xl", "--memory", 4, "--lora-rank", 8, "--time", "false").out
    assert "gpt2-large would" in out
    tight = "plan", "gpt2-large", "--memory", 6, "--time", "false"
    out = run(*tight).out
    assert re.search(r"nothing fits: .*; with --lora-rank 8 they take [34]\.\d\d GB$", out, re.M)
    assert "--lora-rank" not in run(*tight, "--run", "dpo").out
    outcome = run("plan", "gpt2", "--lora-rank", 2000)
    assert outcome.code == 2 and "lora_rank is 2,000" in outcome.err


@pytest.fixture
def as_before(monkeypatch):
    """Leave no device in use."""
    monkeypatch.setattr(backend, "LIBRARIES", [])
    monkeypatch.setattr(backend, "FUSED", {})


@needs_device
@emulated_only
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_on_a_device_follows_that_on_the_cpu(train, as_before, precision, tmp_path):
    short = "--steps", 4, "--samples", 0
    assert train("--out", "cpu", "--device", "cpu", *short).code == 0
    outcome = train("--out", "gpu", "--device", "emulated", "--precision", precision, *short)
    assert outcome.code == 0, outcome.err
    one, other = (tensors_of(tmp_path / name / "checkpoint-000004") for name in ("cpu", "gpu"))
    assert all(tensor.any() for tensor in other.values())
    if precision == "float32":  # AdamW's first steps are signs: in 16 bits some are others
        for name in one:
            np.testing.assert_allclose(other[name], one[name], atol=1e-4)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("cpu", "gpu")]
    losses = [[json.loads(x)["loss"] for x in log if '"loss"' in x] for log in logs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4 if precision == "float32" else 0.05)
