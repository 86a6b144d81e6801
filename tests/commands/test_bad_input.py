"""Bad input gets one clear line and exit code 2, and nothing that existed is lost."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt2.training.objective import WeightedNLL
from tests.commands.conftest import in_a_process
from tests.strict_json import strict_json, strict_lines

GOOD = {"instruction": "Say yes.", "input": "", "output": "yes"}
LITTLE = ("--steps", "1", "--samples", "0")

FILES = {
    "missing file": (None, "there is no file data.json"),
    "not JSON": ("[{]", "data.json is not JSON"),
    "not UTF-8": (b"\xff[]", "data.json is not UTF-8"),
    "not UTF-16": (b"\xff\xfe[", "data.json is not UTF-16"),
    "not a list": ('{"a": 1}', "not a list of entries"),
    "an empty data set": ("[]", "data.json is an empty list"),
    "an entry that is no object": ([GOOD, 3], "entry 1 of data.json is a number"),
    "an entry without a field": (
        [GOOD, {"instruction": "a", "input": ""}],
        "entry 1 of data.json has no field 'output'",
    ),
    "a field that is no text": ([{**GOOD, "input": 3}], "entry 0 of data.json: field 'input'"),
    "an answer that is empty": (
        [GOOD, GOOD, {**GOOD, "output": " \n"}],
        "entry 2 of data.json: field 'output' is empty",
    ),
}


def assert_refused(outcome, words):
    """One line, on the error stream alone, with these words; exit code 2."""
    assert outcome.code == 2
    assert outcome.err.startswith("minigpt2: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert words in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("case", FILES)
def test_a_data_set(run, little_model, case):
    content, words = FILES[case]
    if content is not None:
        raw = content if isinstance(content, str | bytes) else json.dumps(content)
        Path("data.json").write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    outcome = run("train", "--model", little_model, "--data", "data.json", "--out", "run", *LITTLE)
    assert_refused(outcome, words)
    assert not Path("run").exists()


OPTIONS = {
    "an unknown model": (("--model", "gpt7"), "there is no model 'gpt7'"),
    "weights that are not there": (
        ("--model", "gpt2-xl"),
        "`minigpt2 download gpt2-xl` fetches them",
    ),
    "a word for a number": (("--epochs", "many"), "epochs"),
    "a negative number": (("--learning_rate", "-1"), "learning_rate must be above 0"),
    "a share above 1": (("--dropout", "1.5"), "dropout must be at least 0 and below 1"),
    "no steps": (("--steps", "0"), "steps must be at least 1"),
    "endless epochs": (("--epochs", "1e308"), "epochs is too large: 1e+308"),
    "an unknown schedule": (("--schedule", "square"), "schedule"),
    "an unknown option": (("--speed", "9"), "--speed"),
    "too long a context": (("--context", "4000"), "context 4000 is longer than"),
    "a settings file that is not there": (("--config", "no.yaml"), "no.yaml"),
    "a test file that is not there": (("--test", "[no.json]"), "there is no file no.json"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option(run, little_model, data, case):
    options, words = OPTIONS[case]
    start = () if "--model" in options else ("--model", little_model)
    outcome = run("train", *start, "--data", data, "--out", "run", *options)
    assert_refused(outcome, words)
    assert not Path("run").exists()


def test_a_settings_file_that_is_not_there(run):
    assert_refused(run("train", "--config", "no.yaml"), "there is no settings file '")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("batch-sise: 4", "line 1: train has no setting 'batch-sise'; did you mean 'batch_size'?"),
        ("seed: 1\nsteps: many", "line 2: steps must be a whole number, not many"),
        ("truncate: all", "line 1: truncate must be answer, prompt or drop, not all"),
        ("tensorboard: maybe", "line 1: tensorboard must be true or false, not maybe"),
        ("epochs: .inf", "line 1: epochs must be a number, not .inf"),
        ("batch_size:", "line 1: batch_size has no value: give one, or leave it out"),
        ("data: ''", "line 1: data is empty: give a file or folder"),
    ],
)
def test_an_error_in_a_settings_file_is_in_the_words_of_the_help(run, settings, words):
    Path("settings.yaml").write_text(settings)
    outcome = run("train", "--config", "settings.yaml")
    assert_refused(outcome, f"settings.yaml, {words}")
    assert outcome.err.endswith("(see minigpt2 train --help)\n")


def test_an_empty_settings_file(run):
    Path("settings.yaml").write_text("")
    words = (
        "settings.yaml is empty: it must hold settings, such as batch_size: 4 (see minigpt2 train"
    )
    assert_refused(run("train", "--config", "settings.yaml"), words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("seed: 1\nepochs: -1", "settings.yaml, line 2: epochs must be above 0, not -1"),
        ("context: 0", "settings.yaml, line 1: context must be at least 1, not 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_line(run, settings, words):
    Path("settings.yaml").write_text(settings)
    assert_refused(run("train", "--config", "settings.yaml"), words)
    option = words.split(": ")[1].split(" ")[0]
    assert_refused(
        run("train", "--config", "settings.yaml", f"--{option}", "-2"), f"minigpt2: {option} must"
    )


def test_hyphens_in_a_settings_file_are_as_good_as_underscores(run):
    Path("settings.yaml").write_text("batch-size: 4\n")
    outcome = run("train", "--config", "settings.yaml", "--print-config")
    assert outcome.code == 0 and "\nbatch_size: 4\n" in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        *(("train", f"--{name}", "") for name in ("data", "out", "model", "template", "test")),
        ("stats", ""),
        ("show", "--html", "", "--data", "a.json"),
        ("imbalance", "--figure", "", "--data", "a.json"),
        ("evaluate", "--data", ""),
        ("plan", "--data", ""),
        ("almanac", "--out", ""),
        ("chat", ""),
        ("download", "gpt2", "--out", " "),
        ("pretrain", "--out", ""),
        ("train", "--config", ""),
    ],
    ids=str,
)
def test_an_empty_name_as_of_an_unset_variable_is_refused(run, arguments):
    outcome = run(*arguments)
    assert_refused(outcome, " is empty: give a " if "--config" not in arguments else "config")
    assert list(Path().iterdir()) == []


def test_an_error_on_the_command_line_is_in_the_words_of_the_help(run):
    assert_refused(
        run("train", "--context", "x"), "context must be a whole number, not x (see minigpt2 train"
    )
    assert_refused(run("answer"), "answer needs question (text) (see minigpt2 answer --help)")
    assert_refused(run("show"), "show needs data (file or folder) (see minigpt2 show --help)")


def test_an_unknown_key_of_a_settings_file(run):
    Path("settings.yaml").write_text("stepps: 3\n")
    assert_refused(run("train", "--config", "settings.yaml"), "stepps")


def test_an_unknown_command_and_none(run):
    assert_refused(run("tune"), "tune")
    assert_refused(run(), "a command is missing")


def test_an_output_folder_that_already_holds_a_run_is_left_alone(run, little_model, data):
    Path("run").mkdir()
    Path("run/summary.json").write_text("precious")
    outcome = run("train", "--model", little_model, "--data", data, "--out", "run", *LITTLE)
    assert_refused(outcome, "run already holds something")
    assert [p.name for p in Path("run").iterdir()] == ["summary.json"]
    assert Path("run/summary.json").read_text() == "precious"


def test_an_output_folder_that_is_a_file(run, little_model, data):
    Path("run").write_text("precious")
    outcome = run("train", "--model", little_model, "--data", data, "--out", "run", *LITTLE)
    assert_refused(outcome, "run cannot be made")
    assert Path("run").read_text() == "precious"


def test_the_default_output_folder_is_a_fresh_one(run, little_model, data):
    for _ in range(2):
        assert run("train", "--model", little_model, "--data", data, *LITTLE).code == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["data-1", "data-2"]


def break_tensors(folder, change):
    """Write a model's tensors again, changed."""
    tensors = dict(load_file(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def poison(tensors):
    """Put a number that is none into a tensor."""
    tensors["h.1.mlp.c_fc.bias"][3] = np.nan


MODELS = {
    "a truncated file": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:5000]
        ),
        "cannot be read as safetensors",
    ),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), "there is no file"),
    "a missing tensor": (
        lambda f: break_tensors(f, lambda t: t.pop("h.0.ln_1.bias")),
        "no tensor h.0.ln_1.bias",
    ),
    "a wrong shape": (
        lambda f: break_tensors(f, lambda t: t.update({"ln_f.bias": np.zeros(7, np.float32)})),
        "ln_f.bias has shape (7,)",
    ),
    "numbers that are none": (lambda f: break_tensors(f, poison), "h.1.mlp.c_fc.bias"),
    "no vocabulary": (lambda f: (f / "vocab.json").unlink(), "vocab.json"),
    "a damaged vocabulary": (lambda f: (f / "vocab.json").write_text("{}"), "vocab.json"),
    "a config that is none": (lambda f: (f / "config.json").write_text("[]"), "config.json"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_damaged_model(run, little_model, data, tmp_path, case):
    damage, words = MODELS[case]
    folder = tmp_path / "model"
    shutil.copytree(little_model, folder)
    damage(folder)
    outcome = run("train", "--model", folder, "--data", data, "--out", "run", *LITTLE)
    assert_refused(outcome, words)
    assert not Path("run").exists()


def test_a_learning_rate_that_blows_up_is_said_in_one_line(run, little_model, data):
    options = ("--learning_rate", "1e30", "--clip", "0", "--steps", "9", "--samples", "0")
    options += ("--evaluate_every", "0")  # so the next gradient is the first to notice
    with np.errstate(all="ignore"):
        outcome = run("train", "--model", little_model, "--data", data, "--out", "run", *options)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1 and "the gradient is not finite" in outcome.err


@pytest.fixture
def spoilt(monkeypatch):
    """Let the loss of the n-th micro-batch of a run be infinite; a list gets its batch."""
    calls, batches = [], []
    add_gradients = WeightedNLL.add_gradients

    def spoil(number):
        def spoiling(objective, parameters, batch, *rest):
            calls.append(batch)
            result = add_gradients(objective, parameters, batch, *rest)
            if len(calls) != number:
                return result
            batches.append(batch)
            return result * np.inf

        monkeypatch.setattr(WeightedNLL, "add_gradients", spoiling)
        return batches

    return spoil


def test_a_loss_that_is_not_finite_names_the_entries_and_the_last_good_checkpoint(
    run, little_model, data, spoilt, tokenizer
):
    entries = json.loads(data.read_text())
    entries.insert(4, {"instruction": "No answer."})
    data.write_text(json.dumps(entries))  # its number is counted, though it is left out
    batches = spoilt(8)
    options = ("--batch-size", 3, "--micro-batch", 1, "--save-every", 1, "--validation", 0.2)
    options += ("--skip-bad", "true", "--samples", 0, "--evaluate-every", 0)
    outcome = run("train", "--data", data, "--model", little_model, "--out", "run", *options)
    text = tokenizer.decode(batches[0].ids.tolist())
    (place,) = (k for k, entry in enumerate(entries) if f"{entry['instruction']}\n" in text)
    step = "step 3: the loss is not finite: lower the learning rate"
    its = f"its examples: entry {place} of {data} (minigpt2 show --first {place})"
    last = "the last good checkpoint: run/checkpoint-000002"
    *_, line = outcome.err.splitlines()
    assert (outcome.code, line) == (2, f"minigpt2: {step}; {its}; {last}")
    assert strict_lines(Path("run/log.jsonl").read_text())
    assert strict_json(Path("run/summary.json").read_text())


def test_a_run_that_has_saved_nothing_says_so(run, little_model, data, spoilt):
    spoilt(1)
    outcome = run("train", "--data", data, "--model", little_model, "--samples", 0, "--steps", 1)
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("; the last good checkpoint: none yet\n")


def test_an_empty_question(run, little_model):
    assert_refused(run("answer", "--question", " ", "--model", little_model), "question is empty")


def test_no_traceback_reaches_a_user(tmp_path):
    outcome = in_a_process("train", "--data", "no.json", cwd=tmp_path)
    assert_refused(outcome, "there is no file no.json")


def test_a_learning_rate_that_ruins_the_last_step_saves_no_checkpoint(run, little_model, data):
    options = ("--learning_rate", "1e38", "--out", "run", *LITTLE)
    outcome = run("train", "--model", little_model, "--data", data, *options)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "step 1: " in outcome.err and "not finite: lower the learning rate" in outcome.err
    assert not Path("run/checkpoint").exists()


@pytest.mark.parametrize("name", ["batch_size", "model", "learning_rate", "seed"])
def test_a_setting_without_value_in_a_settings_file(run, name):
    Path("settings.json").write_text(json.dumps({name: None}))
    assert_refused(run("train", "--config", "settings.json"), f"{name} has no value")


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_a_number_that_is_not_finite_in_a_settings_file(run, value):
    Path("settings.yaml").write_text(f"epochs: {value}\n")
    assert_refused(
        run("train", "--config", "settings.yaml"), f"epochs must be a number, not {value}"
    )


@pytest.mark.parametrize(
    "options",
    [
        ("pretrain", "--steps", "0"),
        ("pretrain", "--seed", "-1"),
        ("pretrain", "--rows", "0"),
        ("answer", "--question", "Why?", "--seed", "-1"),
        ("answer", "--question", "Why?", "--temperature", "-1"),
    ],
)
def test_settings_of_other_commands_are_checked_too(run, options):
    assert_refused(run(*options), "must be at least")
    assert list(Path().iterdir()) == []


def test_half_a_surrogate_pair_is_no_text(run):
    Path("data.json").write_text('[{"instruction": "a\\ud800", "output": "b"}]')
    assert_refused(run("train", "--data", "data.json"), "entry 0 of data.json: field 'instruction'")


def test_nesting_without_end(run):
    Path("data.json").write_text("[" * 100_000)
    assert_refused(run("train", "--data", "data.json"), "cannot be read as JSON")


def test_the_questions_are_written_all_or_not_at_all(run):
    Path("out").mkdir()
    Path("out/held_out_facts.json").write_text("precious")
    assert_refused(run("almanac", "--out", "out"), "held_out_facts.json exists already")
    assert [p.name for p in Path("out").iterdir()] == ["held_out_facts.json"]


def test_a_folder_that_cannot_be_made(run):
    Path("file").write_text("precious")
    assert_refused(run("almanac", "--out", "file/below"), "file/below")


@pytest.mark.parametrize("command", ["stats", "imbalance"])
def test_a_figure_that_is_no_picture_is_refused_before_anything_is_measured(
    run, little_model, data, command
):
    outcome = run(command, data, "--model", little_model, "--figure", "x.txt")
    assert_refused(outcome, "figure must end in .png")
    assert not outcome.out


def test_a_weight_decay_that_blows_up_is_named(run, little_model, data):
    options = ("--weight_decay", "1e30", "--steps", "9", "--samples", "0", "--out", "run")
    with np.errstate(all="ignore"):
        outcome = run("train", "--model", little_model, "--data", data, *options)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "not finite: lower weight_decay" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "data.json", "--epochs", "1e308", "--out", "run"), "epochs is too large"),
        (("plan", "--memory", "1e308", "--time", "false"), "memory is in GB"),
    ],
)
def test_numbers_out_of_this_world(run, data, arguments, words):
    assert_refused(run(*arguments), words)
    assert [path.name for path in Path().iterdir()] == ["data.json"]
