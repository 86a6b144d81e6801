"""`minigpt2 plan`, as a user runs it."""

import json
import re
import shlex
from dataclasses import fields

import pytest
import yaml

from minigpt2.cli import settings_class
from minigpt2.commands.plan_settings import PlanSettings, batch_size_of
from minigpt2.model.config import GPT2Config
from minigpt2.outputs import json_text
from minigpt2.planning.available import Available
from minigpt2.planning.microbenchmark import StepTimes
from minigpt2.shipped import shipped
from minigpt2.wording import duration
from tests.commands.conftest import in_a_process
from tests.commands.pairs import write_pairs


@pytest.fixture(autouse=True)
def little_is_held(monkeypatch):
    """Within this process the command counts what a process of its own would hold."""
    monkeypatch.setattr("minigpt2.planning.device_memory.peak_memory", lambda: 200 << 20)


@pytest.fixture
def plan(tmp_path):
    """Run the command in a process of its own: it counts what the process has held so far."""
    return lambda *arguments: in_a_process("plan", *arguments, cwd=tmp_path)


def test_tells_memory_time_and_that_it_fits(run, little_model):
    outcome = run("plan", little_model, "--batch-size", "2")
    assert outcome.code == 0, outcome.err
    for part in ("weights", "gradients", "moments", "activations", "workspace", "together"):
        assert re.search(rf"^ {part} +[\d.,]+ [MG]B +[\d.,]+ [MG]B", outcome.out, re.MULTILINE)
    assert re.search(r"needs [\d.,]+ MB of [\d.,]+ [MG]B: fits", outcome.out)
    assert re.search(r"a step takes about [\d.]+ m?s", outcome.out)
    assert "this fits" not in outcome.out


def test_proposes_what_fits(plan):
    outcome = plan("gpt2-large", "--memory", "14.3", "--time", "false")
    assert outcome.code == 0, outcome.err
    assert "of 14.30 GB: does not fit" in outcome.out
    proposal = next(line for line in outcome.out.splitlines() if "minigpt2 train" in line)
    assert "--context 1024 --batch-size 8 --micro-batch 1 --recompute true" in proposal


def test_says_what_would_fit_where_nothing_does(plan):
    outcome = plan("gpt2-xl", "--memory", "14", "--time", "false")
    assert outcome.code == 0, outcome.err
    assert re.search(r"nothing fits: .* alone take 2\d\.\d\d GB; gpt2-large would", outcome.out)


def test_counts_the_memory_of_a_gpu_that_is_not_there(plan):
    settings = ("gpt2-large", "--device", "cuda", "--precision", "bfloat16", "--batch-size", "4")
    outcome = plan(*settings)
    assert outcome.code == 0, outcome.err
    assert re.search(r"^ copy +1\.55 GB +1\.55 GB", outcome.out, re.MULTILINE)
    assert re.search(r"needs \d+\.\d\d GB", outcome.out) and "a step takes" not in outcome.out
    outcome = plan(*settings, "--memory", "17")
    assert "of 17.00 GB: does not fit" in outcome.out
    proposal = next(line for line in outcome.out.splitlines() if "minigpt2 train" in line)
    assert proposal.endswith("--device cuda --precision bfloat16")


def test_counts_the_batches_of_a_data_set(run, little_model, data):
    outcome = run("plan", little_model, "--data", data, "--batch-size", "2")
    assert outcome.code == 0, outcome.err
    assert "an epoch has 6 steps; a micro-batch has at most" in outcome.out  # 11 to train on
    assert "an epoch takes about" in outcome.out


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("plan", "nope"), "there is no model 'nope'"),
        (("plan", "gpt2", "--context", "2000"), "longer than the model's 1024"),
        (("plan", "gpt2", "--memory", "0"), "memory must be above 0"),
        (("plan", "gpt2", "--data", "nowhere.json"), "nowhere.json"),
        (("plan", "gpt2", "--batch-size", "0"), "batch_size must be at least 1"),
        (("plan", "gpt2", "--dropout", "1"), "dropout must be"),
        (("plan", "gpt2", "--precision", "bfloat16"), "needs a GPU: add --device cuda"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(run, arguments, text):
    outcome = run(*arguments)
    assert outcome.code == 2 and text in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1 and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--memory", "1e308"), 2, "memory is in GB: 1e+308 is too large"),
        (("--memory", "1e9", "--batch-size", "1000000000", "--time", "false"), 0, ": fits"),
        (("--batch-size", "1000000000", "--micro-batch", "1", "--time", "false"), 0, ": fits"),
        (("--batch-size", "1000000000", "--memory", "1", "--time", "false"), 0, "this fits, in"),
    ],
    ids=str,
)
def test_numbers_out_of_this_world_are_planned_or_refused(run, options, code, words):
    outcome = run("plan", "tiny", *options)
    assert outcome.code == code and words in outcome.out + outcome.err


def test_what_this_machine_cannot_hold_is_not_timed(run, little_model, monkeypatch):
    little = Available("this machine", whole=1 << 20, free=1 << 10)
    monkeypatch.setattr("minigpt2.commands.plan_times.memory_of_machine", lambda: little)
    outcome = run("plan", little_model, "--memory", "1")
    assert outcome.code == 0, outcome.err
    assert re.search(r"not timed: a block of this micro-batch takes [\d.]+ MB here", outcome.out)
    assert "a step takes" not in outcome.out


def part_of(outcome, name):
    """The bytes of a part with recomputation, in GB."""
    line = re.search(rf"^ {name} .* ([\d.,]+) ([MG])B *$", outcome.out, re.MULTILINE)
    return float(line[1].replace(",", "")) / (1 if line[2] == "G" else 1000)


LARGE = ("gpt2-large", "--context", 256, "--batch-size", 4, "--micro-batch", 1, "--time", "false")


def test_dpo_of_large_has_no_second_model(run):
    tuned, dpo = (run("plan", *LARGE, "--run", name) for name in ("train", "dpo"))
    assert tuned.code == dpo.code == 0
    assert "pairs that fill the context of 256" in dpo.out
    assert part_of(dpo, "weights") == part_of(tuned, "weights") == 3.10
    assert part_of(dpo, "together") - part_of(tuned, "together") < 0.5


def test_ppo_of_large_by_the_place_of_its_value_function(run):
    how = ("plan", *LARGE, "--memory", 64, "--run", "ppo", "--value")  # on any machine
    head, apart = (run(*how, v) for v in ("policy", "apart"))
    check = run("plan", *LARGE, "--run", "grpo", "--check")
    assert part_of(apart, "moments") == 2 * part_of(head, "moments") == 12.38
    assert part_of(head, "reward model") == part_of(head, "reference") == 3.10
    assert "reward model" not in check.out and "reference" in check.out
    assert part_of(apart, "together") > part_of(head, "together") + 12
    assert "billion operations to draw and score a rollout" in head.out
    disks = [re.search(r"([\d.]+) GB each", o.out)[1] for o in (head, apart)]
    assert float(disks[1]) == pytest.approx(2 * float(disks[0]), abs=0.1)


@pytest.mark.parametrize(
    ("options", "drawn"),
    [(("ppo",), "64 answers of 32 tokens"), (("grpo", "--answers", 3), "24 answers of 32 tokens")],
)
def test_a_rollout_is_timed(run, options, drawn):
    outcome = run("plan", "tiny", "--context", 64, "--run", *options)
    assert outcome.code == 0, outcome.err
    assert re.search(
        rf"a rollout takes about .*: .* to draw {drawn}, .* to read prompts", outcome.out
    )
    assert "a pass over them takes about" in outcome.out and "a step takes" not in outcome.out


def test_a_value_function_apart_takes_as_much_time_as_the_policy(run, monkeypatch):
    times = StepTimes(1.0, 2.0, backward_with_recomputation=3.0, loss=6.0, adamw=5.0)
    monkeypatch.setattr("minigpt2.commands.plan_times.time_step", lambda *_: times)
    how = ("plan", "tiny", "--context", 64, "--run", "ppo", "--value")
    head, apart = (run(*how, value) for value in ("policy", "apart"))
    layers = GPT2Config.load(shipped("weights/tiny/config.json")).n_layer
    for outcome, models in ((head, 1), (apart, 2)):
        blocks, loss, adamw = (duration(s) for s in (3.0 * layers * models, 8.0, 5.0 * models))
        assert f"{blocks} in the blocks, {loss} in the loss, {adamw} in AdamW" in outcome.out


def test_the_command_that_fits_is_that_of_the_run(run):
    outcome = run("plan", *LARGE, "--run", "reward", "--memory", 12.9)
    assert "  minigpt2 reward DATA --model gpt2-large --context" in outcome.out


def test_the_command_that_fits_has_all_settings_that_were_given(run, little_model, tmp_path):
    path = tmp_path / "my questions.json"
    path.write_text(json.dumps([{"ask": "a " * 20, "output": "b " * 30}] * 20))
    given = {
        "columns": '{"instruction": "ask"}',
        "skip_bad": "true",
        "template": "qa",
        "truncate": "drop",
        "prompt_weight": 0.5,
        "loss": "example",
        "seed": 3,
        "keep": 5,
        "validation": 0.2,
        "dropout": 0.1,
    }
    options = [text for name, value in given.items() for text in (f"--{name}", value)]
    plan = ("plan", little_model, "--data", path, "--time", "false", *options)
    outcome = run(*plan, "--memory", 0.219)
    assert "this fits" in outcome.out, outcome
    line = outcome.out[outcome.out.index("  minigpt2 train") :].splitlines()[0]
    _, command, *words = shlex.split(line)
    settings = run(command, *words, "--print-config")
    assert settings.code == 0, settings
    stored = yaml.safe_load(settings.out)
    for name, value in given.items():
        assert json_text(stored[name]) == json_text(value) or str(stored[name]) == str(
            json.loads(value) if value in ("true", given["columns"]) else value
        ), name
    assert stored["data"] == str(path) and stored["model"] == str(little_model)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train", ("--answers", 3)),
        ("train", ("--value", "apart")),
        ("dpo", ("--check", "true")),
        ("reward", ("--loss", "example")),
        ("grpo", ("--value", "apart")),
        ("ppo", ("--validation", 0.2)),
    ],
)
def test_what_has_no_effect_on_a_run_is_refused(run, little_model, command, option):
    outcome = run("plan", little_model, "--run", command, *option)
    assert outcome.code == 2 and f"{option[0][2:]} has no effect on {command}" in outcome.err


def test_fewer_answers_are_advised_where_they_are_too_many(run, little_model):
    plan = ("plan", "tiny", "--run", "grpo", "--check", "true", "--answers", 4, "--time", "false")
    few = (*plan, "--max-new-tokens", 10, "--memory", 0.5)
    assert "and drawing or scoring the answers" in run(*few, "--batch-size", 64).out
    assert ": fits" in run(*few, "--batch-size", 8).out


def test_pairs_are_counted(run, little_model, tmp_path):
    write_pairs(tmp_path / "pairs.json")
    outcome = run("plan", little_model, "--run", "dpo", "--data", "pairs.json", "--batch-size", 4)
    assert outcome.code == 0 and "an epoch has 3 steps" in outcome.out, outcome
    plain = write_pairs(tmp_path / "plain.json", [{"instruction": "a", "output": "b"}])
    outcome = run("plan", little_model, "--run", "dpo", "--data", plain)
    assert outcome.code == 2 and "no field 'rejected'" in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--run", "dpo", "--dropout", 0.1), "dropout must be 0 for dpo: there is no dropout"),
        (("--run", "ppo", "--data", "x.json"), "data is not counted for ppo"),
        (("--run", "grpo", "--max-new-tokens", 96), "max_new_tokens 96 leaves no room"),
    ],
)
def test_what_a_run_cannot_have_is_one_line(run, little_model, options, words):
    outcome = run("plan", little_model, *options)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and words in outcome.err


def test_what_is_proposed_has_the_rollout_of_its_own_context(run):
    plan = ("plan", "gpt2-large", "--run", "grpo", "--batch-size", 1, "--memory")
    proposed = run(*plan, 19.86, "--time", "false")
    context = re.search(r"--context (\d+) .*--recompute (\w+)", proposed.out)
    taken = re.search(r"this fits, in ([\d.]+) GB", proposed.out)[1]
    how = ("--context", context[1], "--recompute", context[2], "--time", "false")
    assert f"needs {taken} GB of 19.86 GB: fits" in run(*plan, 19.86, *how).out
    nothing = run(*plan, 14, "--time", "false")
    assert "nothing fits: weights, gradients, moments and models that are only read" in nothing.out
    held = float(re.search(r"alone take ([\d.]+) GB", nothing.out)[1])
    assert held == pytest.approx(4 * 3.1 + 2 * 3.1, abs=0.3)  # and what the program takes


def test_a_rollout_is_proposed_as_its_command_takes_it(run):
    plan = (
        "plan",
        "gpt2-large",
        "--time",
        "false",
        "--context",
        128,
        "--batch-size",
        8,
        "--memory",
    )
    ppo = run(*plan, 21, "--run", "ppo", "--answers", 2)
    assert re.search(
        r"minigpt2 ppo DATA --model gpt2-large --context \d+ --reward-model FOLDER --value policy "
        r"--prompts 8 --answers 2 --max-new-tokens \d+ --micro-batch (2|4|8|16) "
        r"--recompute (true|false)$",
        ppo.out,
        re.MULTILINE,
    )
    assert re.search(r"drawing answers takes [\d.]+ GB .* scoring them [\d.]+ MB", ppo.out)
    grpo = run(*plan, 99, "--run", "grpo")
    assert "prompts with 8 answers each" in grpo.out and ": fits" in grpo.out
    wrong = run(*plan, 99, "--run", "grpo", "--answers", 1)
    assert wrong.code == 2 and "answers must be at least 2 for grpo" in wrong.err


@pytest.mark.parametrize("name", ["train", "reward", "dpo", "ppo", "grpo"])
def test_a_step_is_planned_as_large_as_its_command_makes_it(name):
    planned = batch_size_of(PlanSettings(model="tiny", run=name))
    defaults = {field.name: field.default for field in fields(settings_class(name))}
    assert planned == defaults["prompts" if "prompts" in defaults else "batch_size"]
    assert batch_size_of(PlanSettings(model="tiny", run=name, batch_size=3)) == 3


def test_a_single_file_is_planned_as_its_folder(run, little_model):
    plan = ("--time", "false", "--run", "dpo", "--memory", 20)  # what is free may change
    file, folder = (
        run("plan", f"{little_model}{end}", *plan) for end in ("/model.safetensors", "")
    )
    assert file.code == 0, file.err
    assert file.out.splitlines()[2:] == folder.out.splitlines()[2:]
