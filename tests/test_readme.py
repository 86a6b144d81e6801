"""The README is true: its numbers are computed here, its commands, paths and snippets work.

Scores, answers, times and speeds depend on the machine that made them.  They are held by the goals
of `make prove-train`, and by the tables of tests/benchmarks/README.md.
"""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import yaml

from book.parse import contents_of, read_sources
from minigpt2.cli import COMMANDS, main, read_all, read_command, settings_class, settings_of
from minigpt2.commands.plan import PlanSettings, open_config, shape_of
from minigpt2.commands.plan_settings import needs_of
from minigpt2.commands.pretrain import PretrainSettings
from minigpt2.commands.setup import setup
from minigpt2.commands.train import TrainSettings, describe_losses, model_line
from minigpt2.data.almanac import questions
from minigpt2.data.formats import FORMATS
from minigpt2.data.loading import load_data
from minigpt2.model.adapters import LoRA
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.planning import memory_and_flops
from minigpt2.planning.alignment_memory import TRAINED, aligned
from minigpt2.planning.batch_profile import profile
from minigpt2.planning.disk_space import disk_need
from minigpt2.planning.memory_and_flops import MemoryOptions, MicroBatch, memory
from minigpt2.reports.metrics import step_line
from minigpt2.reports.run_log import RunLog
from minigpt2.shipped import shipped
from minigpt2.training.losses import Losses
from minigpt2.training.step import StepResult
from minigpt2.wording import shorten, size
from tests.gradcheck import CHAPTERS, cases_of, check
from tests.gradients import CAUGHT, EXACT, bugs_of
from tests.parity.cases import CASES as PARITY_CASES
from tests.train_goals import SECONDS, TUNED, missed_goals

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INDENTED = [line.strip() for line in README.splitlines() if line.startswith("    ")]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMAND_LINES = [
    *(line for line in INDENTED if line.startswith("minigpt2 ")),
    *(code for code in re.findall(r"`(minigpt2 [^`]+)`", README) if "..." not in code),
]
MAKE_LINES = [
    *(line for line in INDENTED if line.startswith("make ")),
    *re.findall(r"`(make [^`]+)`", README),
]


def section(title):
    """The text below a heading, up to the next one."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table_rows(text):
    """The cells of each row of the first table in a text, without its head."""
    table = re.search(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def boxed_rows(text):
    """The cells of the rows that a terminal drew with │."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def number(text):
    """A number as people write it."""
    return float(text.replace(",", ""))


# The gradient check.

GRADCHECK = README.split("`make gradcheck` compares")[1].split("**")[0]
GRADCASES = list(chain.from_iterable(map(cases_of, CHAPTERS)))


@pytest.mark.parametrize("cells", boxed_rows(GRADCHECK)[1:], ids=lambda cells: ", ".join(cells[:2]))
def test_a_row_of_the_gradient_check_is_what_the_check_says(cells):
    name, argument, exact, *central, order, bugs = cells
    row = check(next(case for case in GRADCASES if case.name == name), argument)
    assert row.passed
    assert bugs == f"{row.caught}/{row.planted}"
    assert order == ("exact" if row.linear else "h²")
    assert max(float(exact), row.exact.error) <= EXACT
    assert [float(error) for error in central] == pytest.approx(
        [one.error for one in row.central[1:]], rel=0.5
    )


def test_the_last_line_of_the_gradient_check_counts_its_gradients_and_bugs():
    pairs = [(case, argument) for case in GRADCASES for argument in case.arguments]
    planted = sum(len(bugs_of(case, argument)) for case, argument in pairs)
    assert (
        f"{len(pairs)} of {len(pairs)} gradients are right.  {planted} of {planted} planted bugs, "
        f"and a gradient of zeros for each row, show an error above {CAUGHT:g}."
    ) in INDENTED


# `make train`.

TRAINING = README.split("`make train` prints this")[1].split("**GPT-2 Large")[0]
SCORE = re.compile(r"(before|after) +(held-out \w+): (\d+) of (\d+) exactly right \((.*)%\)")


@pytest.fixture(scope="module")
def shipped_run():
    """The values of the run of `make train`."""
    values = yaml.safe_load((ROOT / "weights/tiny/tune.yaml").read_text())
    return setup(TrainSettings(**values, device="cpu"))


def test_the_line_about_the_model_is_that_of_the_run(shipped_run):
    assert f"model     {model_line(shipped_run)}" in INDENTED


def test_the_lines_of_steps_are_as_they_are_printed(shipped_run):
    pattern = r"step (\d+)/(\d+)  loss (\S+)  lr (\S+)  norm (\S+)  (\S+) tok/s  (\d+) MB"
    lines = re.findall(f"    ({pattern})\n", TRAINING)
    assert lines
    for line, step, steps, loss, rate, norm, speed, peak in lines:
        metrics = {"loss": float(loss)}
        rows = int(number(speed))
        result = StepResult(
            int(step), metrics, float(rate), float(norm), True, rows, rows, 1.0, 1.0
        )
        assert line == step_line(result, int(steps), int(peak) * 10**6)
        assert int(steps) == shipped_run.config.steps


def test_the_lines_of_validation_are_as_they_are_printed(tmp_path, capsys):
    pattern = r"step (\d+)/(\d+)  validation loss (\S+)  by example (\S+)"
    lines = re.findall(f"    ({pattern})\n", TRAINING)
    assert [int(step) for _, step, *_ in lines] == [0, int(lines[0][2])]
    for line, step, steps, tokens, examples in lines:
        losses = Losses()
        losses.nll, losses.tokens = float(tokens), 1
        losses.means, losses.examples = float(examples), 1
        (folder := tmp_path / step).mkdir()
        with RunLog(folder) as log:
            log.add_validation(int(step), int(steps), describe_losses(losses))
        assert capsys.readouterr().out == f"{line}\n"


def test_the_scores_reach_the_goals_of_prove_train():
    almanac = questions(0)
    asked = {
        "held-out facts": len(almanac.held_out_facts),
        "held-out arithmetic": len(almanac.held_out_arithmetic),
    }
    summary = {"before": {}, "after": {}}
    for when, name, right, of, share in SCORE.findall(TRAINING):
        assert int(of) == asked[name]
        assert share == f"{100 * int(right) / int(of):.1f}"
        summary[when][name] = {"exact_match": int(right) / int(of)}
    (seconds,) = re.findall(r"done {6}(\d+) s in all; see runs/almanac-1/report.html", TRAINING)
    assert missed_goals({**summary, "done": {"seconds": int(seconds)}}) == []


def test_the_answers_are_to_held_out_questions_and_right():
    almanac = questions(0)
    held_out = {
        shorten(" / ".join(filter(None, (q["instruction"], q["input"])))): shorten(q["output"])
        for q in (*almanac.held_out_facts, *almanac.held_out_arithmetic)
    }
    samples = re.findall(r"    (.+)\n +before +.+\n +after +(.+)\n +right +(.+)\n", TRAINING)
    assert len(samples) == 2
    for question, after, right in samples:
        assert held_out[question] == right == after


def test_the_goals_are_those_of_prove_train():
    text = " ".join(section("Two commands").split())
    facts, arithmetic = TUNED["held-out facts"], TUNED["held-out arithmetic"]
    assert SECONDS == 5 * 60
    assert (
        f"answers {100 * facts:.0f} % of the facts and {100 * arithmetic:.0f} % of the arithmetic "
        "within five minutes"
    ) in text


# `minigpt2 plan`.


def test_the_memory_of_large_is_what_plan_says(monkeypatch):
    monkeypatch.setattr(memory_and_flops, "cores", lambda: 2)
    settings = PlanSettings(model="gpt2-large", micro_batch=1, recompute=True)
    config = open_config(settings.model)
    largest = profile(shape_of(settings, config), []).largest
    rows = re.findall(r"^     (\w+) +([\d.]+ [GM]B) +([\d.]+ [GM]B)$", README, flags=re.MULTILINE)
    shown = {name: columns for name, *columns in rows}
    program = int(shown["program"][0].split()[0]) * 10**6  # of the machine that printed it
    parts = [memory(config, largest, MemoryOptions(kept), program) for kept in (False, True)]
    assert shown.pop("together") == [size(sum(column.values())) for column in parts]
    assert list(shown) == list(parts[0])
    for name, columns in shown.items():
        assert columns == [size(column[name]) for column in parts]
    assert sum(parts[1].values()) < 14e9
    disk = disk_need(config, keep=settings.keep, validates=True, accumulates=True)
    assert f"     Disk: {disk}\n" in README
    assert f"{config.n_parameters / 1e6:.0f} million" in README


def test_the_numbers_of_lora_are_those_of_the_code():
    large, tiny = OFFICIAL["gpt2-large"], GPT2Config.load(shipped("weights/tiny") / "config.json")
    rank_8 = LoRA(8, 16.0)
    share = 100 * rank_8.n_parameters(large) / large.n_parameters
    assert f"that is {share:.2f} % of the numbers" in README
    found = re.search(r"takes ([\d.]+) GB where tuning all weights takes (\d+[.]\d+)", README)
    batch, program = MicroBatch(1024, 1024), 44_000_000
    for lora, said in zip((rank_8, None), found.groups(), strict=True):
        options = MemoryOptions(recompute=True, lora=lora)
        counted = sum(memory(large, batch, options, program).values())
        assert float(said) * 1e9 == pytest.approx(counted, rel=0.03)
    assert f"({4 * rank_8.n_parameters(large) / 1e6:.0f} MB for Large" in README
    for rank in (16, 4):
        assert f"| LoRA, rank {rank} | {LoRA(rank, 16.0).n_parameters(tiny):,} |" in README
    assert f"| all weights | {tiny.n_parameters:,} |" in README


def test_the_models_of_alignment_are_what_plan_says():
    def held(run, **options):
        settings = PlanSettings(model="gpt2-large", run=run, **options)
        needs, nothing = needs_of(settings, 1024), (MicroBatch(0, 0), MemoryOptions())
        parts = aligned(open_config("gpt2-large"), *nothing, memory, needs)
        return size(sum(parts.get(name, 0) for name in (*TRAINED, *needs.read)))

    apart = held("ppo", value="apart")
    assert held("reward") == held("dpo")
    assert (
        f"take {held('dpo')} for `reward`\nand `dpo`, {held('grpo', check=True)} for `grpo` with a "
        f"check, {held('ppo')} for `ppo`, and {apart} with its value function apart."
    ) in README


# Commands, targets, paths, settings.


def test_every_command_is_shown():
    assert {line.split()[1] for line in COMMAND_LINES} - {"--help"} == set(COMMANDS)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_is_one_that_the_parser_knows(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    shutil.copytree(ROOT / "weights/tiny", tmp_path / "weights/tiny")
    setting = re.search(r"--config settings.yaml.*\((\w+: \d+)\)", line)
    (tmp_path / "settings.yaml").write_text(setting[1] if setting else "")
    (tmp_path / "runs/questions-1").mkdir(parents=True)
    (tmp_path / "runs/questions-1/settings.json").write_text("{}")
    words = shlex.split(line, comments=True)[1:]
    command, pairs = read_command(words)
    if "help" in dict(pairs):
        assert main(words) == 0
        assert "usage: minigpt2" in capsys.readouterr().out
        return
    assert settings_of(command, read_all(command, pairs))


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = {line.split()[1] for line in MAKE_LINES}
    assert shown and shown <= targets


def test_every_path_exists():
    paths = re.findall(r"`((?:minigpt2|kernels|tests|weights)/[\w/.-]*)`", README)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_option_in_the_text_is_a_setting_of_train_show_or_dpo():
    commands = ("train", "show", "dpo")
    names = {field.name for name in commands for field in fields(settings_class(name))}
    options = re.findall(r"`--([a-z-]+)", README)
    assert {option.replace("-", "_") for option in options} <= names


def test_the_default_learning_rate_is_that_of_train():
    (rate,) = re.findall(r"default learning\s+rate \((.*?)\)", README)
    assert float(rate) == TrainSettings.learning_rate


def test_the_formats_are_those_that_are_read():
    rows = {name: (text, template) for name, text, template in table_rows(README)}
    assert list(rows) and set(rows) == {f.name for f in FORMATS}
    for data_format in FORMATS:
        text, template = rows[data_format.name]
        assert template == data_format.template
        for field in (*data_format.fields, *data_format.optional):
            assert re.search(rf"\b{field}\b", text)


def test_the_official_models_are_those_that_can_be_downloaded():
    assert "# {}, {}, {} or {}, into weights/".format(*OFFICIAL) in README


def test_extras_and_the_version_of_python_are_those_of_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert extras == {"cuda12", "cuda13", "plot", "tensorboard"}
    assert extras <= set(config["options.extras_require"])
    version = config["options"]["python_requires"].removeprefix(">=")
    assert f"Python {version} or newer" in README


def test_the_parts_are_those_of_the_table_of_contents():
    parts = contents_of(read_sources()).parts
    names = [row[0] for row in table_rows(section("Read it"))]
    numbered = [f"{part.name} {part.title}" for part in parts if part.name != "Appendix"]
    assert names == [*numbered, "Appendix"]


# Snippets.


def test_the_entry_of_a_data_set_is_read(tmp_path):
    (entry,) = (line for line in INDENTED if line.startswith("{"))
    (tmp_path / "questions.json").write_text(f"[{entry}]")
    data = load_data(tmp_path / "questions.json")
    assert data.format.name == "Alpaca" and data.records[0].output.startswith("Copenhagen")


@pytest.fixture
def questions_folder(tmp_path, monkeypatch):
    """A current folder with two files of questions."""
    monkeypatch.chdir(tmp_path)
    entries = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}."} for n in range(8)]
    for name in ("questions.json", "more.json"):
        (tmp_path / name).write_text(json.dumps(entries))
    return tmp_path


def test_the_api_does_what_the_snippet_shows(questions_folder, little_model, capsys):
    snippet = next(text for text in SNIPPETS if "import minigpt2" in text)
    assert snippet.count('"tiny"') == 2
    names = {}
    exec(snippet.replace('"tiny"', repr(str(little_model))), names)
    assert isinstance(names["text"], str)
    (tensor,) = re.findall(r'`gradients\["(.*?)"\]` is an array', README)
    assert names["gradients"][tensor].shape == names["model"].parameters[tensor].shape
    assert names["numbers"]["asked"] == 8
    run = Path(names["summary"]["run"]["folder"])
    assert run == Path("runs/questions-1")
    text = section("Tune on your own questions")
    names = {re.sub(r"^checkpoint-\d+$", "checkpoint-", path.name) for path in run.iterdir()}
    assert all(f"`{name}" in text for name in names) and "checkpoint-" in names


@pytest.mark.skipif(not find_spec("transformers"), reason="transformers is not installed")
def test_transformers_opens_a_run_as_the_snippet_shows(questions_folder, little_model):
    snippet = next(text for text in SNIPPETS if "import AutoModel" in text)
    shutil.copytree(little_model, questions_folder / "runs/questions-1/checkpoint-000060")
    program = f"""{snippet}
ids = tokenizer("1 + 1", return_tensors="pt")
print(model.generate(**ids, max_new_tokens=4).shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1," in done.stdout


# Other tables.


def test_the_differences_from_pytorch_are_within_the_bounds_of_parity():
    source = (ROOT / "tests/parity/__main__.py").read_text()
    bounds = dict(re.findall(r'^    "(.*)": ([\d.e-]+),$', source, flags=re.MULTILINE))
    rows = boxed_rows(section("Proofs"))
    assert len(rows) == 6
    for _, quantity, worst, bound, *_ in rows:
        assert float(worst) <= float(bound) == float(bounds[quantity])
    count = (len(PARITY_CASES) + 1) * source.count("    yield worst_of(") + 5  # tokenizers, answers
    count += 20  # losses and gradients of GRPO, four kinds with and without β, and of PPO
    count += 15  # those of DPO and of reward models, and scores
    count += 18  # three kinds of adapters: ten steps, files, merged weights
    assert re.search(rf"    {count} of {count} agree", README)


def test_the_speeds_are_in_the_tables_of_the_benchmarks():
    page = (ROOT / "tests/benchmarks/README.md").read_text()
    slower, job = {}, ""
    for first, contender, _, _, times, *_ in table_rows(page[page.index("| job |") :]):
        job = first or job
        slower[job, contender] = times
    tuning = ("short, batch 8", "short, batch 32", "long, batch 8")
    *padded, long = (slower[job, "PyTorch and transformers, padded"] for job in tuning)
    packed = [slower[job, "PyTorch, packed, answers only"] for job in tuning]
    text = " ".join(section("Speed").split())
    assert f"{min(padded)} to {max(padded)} times as long" in text
    assert f"{long} times on long ones" in text
    assert f"takes {min(packed)} to {max(packed)} times as long" in text


def test_the_page_of_the_benchmarks_names_equations_that_exist():
    page = (ROOT / "tests/benchmarks/README.md").read_text()
    first, last, path = re.search(r"equations \((.*?)\) to \((.*?)\), `(.*?)`", page).groups()
    text = (ROOT / path).read_text()
    assert f"({first})\n" in text and f"({last})\n" in text
    assert all((ROOT / path).exists() for path in re.findall(r"`(minigpt2/[\w/.]+)`", page))


def test_the_page_of_the_small_base_has_its_shape_and_the_size_of_its_text():
    text = " ".join((ROOT / "weights/tiny/README.md").read_text().split())
    config = json.loads((ROOT / "weights/tiny/config.json").read_text())
    assert (
        f"({config['n_layer']} blocks, {config['n_embd']} features, {config['n_head']} heads, "
        f"context {config['n_positions']}, a vocabulary of {config['vocab_size']:,})"
    ) in text
    settings = PretrainSettings()
    (millions,) = re.findall(r"([\d.]+) million tokens", text)
    assert float(millions) == pytest.approx(settings.steps * settings.rows / 1e6, rel=0.05)
