"""The demonstration: its stages run one after the other, continue, and end in tables and a page."""

import json
import shutil

import numpy as np
import pytest

from minigpt2.alignment import exam
from minigpt2.commands import align_exams, align_stages
from minigpt2.commands.align import AlignSettings, align
from minigpt2.commands.align_exams import step_of
from minigpt2.commands.resume import stored_settings
from minigpt2.commands.train_settings import TrainSettings
from minigpt2.data.almanac.preferences import preferences
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model_folders import checkpoints_of
from minigpt2.signals import Stopped

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def small(tokenizer, tmp_path_factory):
    """The settings of a demonstration with a small model, two steps a stage, and few questions."""
    folder = tmp_path_factory.mktemp("align")
    config = GPT2Config(tokenizer.n_vocab, n_positions=256, n_embd=8, n_layer=1, n_head=2)
    parameters = initialise(config, np.random.default_rng(0))
    save_model(folder / "model", Model(parameters, tokenizer, None))
    lists = {name: records[:40] for name, records in align_stages.data_sets().items()}
    lists["held_out_pairs"] = preferences().held_out_pairs[::90]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(align_stages, "data_sets", lambda: lists)
        patch.setattr(align_stages, "STEPS", dict.fromkeys(align_stages.STEPS, 2))
        patch.setattr(align_stages, "QUESTIONS", {"ppo": 8, "hacked": 8, "grpo": 2})
        patch.setattr(align_stages, "LONGEST", 6)
        patch.setattr(exam, "LONGEST", 6)
        patch.setattr(align_exams, "HELD_OUT", 2)
        patch.setattr(align_exams, "SCORED_EVERY", 90)
        yield AlignSettings(out=folder / "run", model=str(folder / "model"))


@pytest.fixture(scope="module")
def results(small):
    """What the whole demonstration returns."""
    return align(small)


def test_every_stage_is_a_finished_run(small, results):
    for name in align_stages.STEPS:
        assert "done" in json.loads((small.out / name / "summary.json").read_text()), name
    assert json.loads((small.out / "summary.json").read_text()) == json.loads(json.dumps(results))


def test_the_numbers_are_those_of_the_exams(small, results):
    assert set(results["exams"]) == {"mixture", "dpo", "ppo", "hacked", "undertuned", "grpo"}
    for marks in results["exams"].values():
        for mode in ("greedy", "sampled"):
            parts = marks[mode]
            assert [parts[name]["asked"] for name in ("all", "facts", "arithmetic")] == [4, 2, 2]
            for mark in ("direct", "right", "checked"):
                assert parts["all"][mark] == parts["facts"][mark] + parts["arithmetic"][mark]


def test_the_curves_begin_with_the_tuned_model_and_follow_the_checkpoints(small, results):
    for name in ("ppo", "hacked"):
        steps = [step_of(path) for path in checkpoints_of(small.out / name)]
        assert [step for step, _ in results["curves"][name]["right"]] == [0, *steps]
        assert [step for step, _ in results["curves"][name]["reward"]] == [1, 2]


def test_the_page_has_the_tables_the_figure_and_answers(small, results):
    page = (small.out / "report.html").read_text()
    for text in ("Reward models", "Direct answers", "Arithmetic", "hacked", "right over padded"):
        assert text in page
    assert all(row["reference"] for row in results["answers"])


def test_what_is_finished_is_not_done_again(small, results, monkeypatch, capsys):
    files = {path: path.stat().st_mtime_ns for path in small.out.rglob("*.safetensors")}
    exams = {path: path.stat().st_mtime_ns for path in small.out.rglob("exams/*.json")}
    assert align(small) == results
    assert files == {path: path.stat().st_mtime_ns for path in small.out.rglob("*.safetensors")}
    assert exams == {path: path.stat().st_mtime_ns for path in small.out.rglob("exams/*.json")}
    assert "Direct answers" in capsys.readouterr().out


def test_a_demonstration_continues_with_the_stage_that_lacks(small, results, tmp_path):
    again = AlignSettings(out=tmp_path / "again", model=small.model)
    shutil.copytree(small.out, again.out)
    shutil.rmtree(again.out / "grpo")
    for path in (again.out / "exams").glob("grpo*"):
        path.unlink()
    repeated = align(again)
    assert repeated["exams"] == results["exams"]


def test_other_settings_need_another_folder(small, results):
    with pytest.raises(UserError, match="holds a demonstration whose seed is 0, not 1"):
        align(AlignSettings(out=small.out, model=small.model, seed=1))


@pytest.mark.parametrize(
    "content",
    [{"command": "train", "out": None, "model": "tiny", "seed": 0}, {"seed": 0, "steps": 3}],
)
def test_a_run_of_another_command_is_left_alone(tmp_path, content):
    (tmp_path / "settings.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="holds a run of another command: choose another --out"):
        align(AlignSettings(out=tmp_path))
    assert json.loads((tmp_path / "settings.json").read_text()) == content


def test_a_demonstration_is_no_run(small, results):
    with pytest.raises(UserError, match="is a run of align, not of train"):
        stored_settings(small.out, TrainSettings)


def test_a_demonstration_that_is_stopped_says_how_it_continues(
    small, tmp_path, monkeypatch, capsys
):
    def stopped(stage):
        raise Stopped(15)

    monkeypatch.setattr("minigpt2.commands.align.run_stage", stopped)
    with pytest.raises(Stopped):
        align(AlignSettings(out=tmp_path / "mine", model=small.model, seed=2))
    line = f"to continue: minigpt2 align --out {tmp_path / 'mine'} --model {small.model} --seed 2"
    assert line in " ".join(capsys.readouterr().out.split())


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="already holds something"):
        align(AlignSettings(out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
