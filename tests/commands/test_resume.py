"""Resume: whole commands that are stopped and continue, and those that cannot."""

import json
import os
import shutil
import signal
from pathlib import Path
from time import sleep

import pytest
import yaml

import minigpt2
from minigpt2.commands import session
from minigpt2.commands.resume import with_notes
from minigpt2.durable import FolderLock
from minigpt2.errors import UserError
from minigpt2.outputs import hidden_name
from minigpt2.reports.run_log import RunLog
from minigpt2.signals import Stopped
from minigpt2.training import checkpoint_reader, checkpoint_writer, fingerprint
from minigpt2.training.checkpoint import checkpoint_name, checksum_of, write_checkpoint
from minigpt2.training.checkpoint_reader import STATE, Checkpoint, restore
from minigpt2.training.objective import WeightedNLL
from tests.commands.conftest import Killed, at_step, end

RUN = ("--samples", 1, "--batch-size", 4, "--micro-batch", 2, "--epochs", 2, "--dropout", 0.1)
OPTIONS = (*RUN, "--save-every", 2, "--evaluate-every", 2, "--validation", 0.2, "--log-every", 1)
TIMES = ("seconds", "rows_per_second", "supervised_per_second", "peak_memory")


@pytest.fixture
def train(run, little_model, data):
    """Train the little model on the twelve questions."""
    return lambda *options: run(
        "train", "--data", data, "--model", little_model, *OPTIONS, *options
    )


def without_times(value):
    """JSON without what depends on the clock and the folder."""
    if isinstance(value, dict):
        left = {k: v for k, v in value.items() if k not in TIMES}
        return {name: without_times(item) for name, item in left.items() if name != "run"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def results_of(folder):
    """What a run leaves, without what depends on the clock and the folder."""
    newest = max(folder.glob("checkpoint-*"))
    lines = (folder / "log.jsonl").read_text().splitlines()
    return (
        newest.name,
        (newest / "model.safetensors").read_bytes(),
        (newest / "optimizer.safetensors").read_bytes(),
        [without_times(json.loads(line)) for line in lines],
        without_times(json.loads((folder / "summary.json").read_text())),
        (folder / "answers.json").read_text(),
    )


def test_a_killed_run_continues_as_if_nothing_had_happened(train, killed, tmp_path):
    assert train("--out", "whole").code == 0
    killed(3, "--out", "broken")
    assert {p.name for p in (tmp_path / "broken").glob("check*")} == {"checkpoint-000002"}
    outcome = train("--resume", "--out", "broken")
    assert outcome.code == 0, outcome.err
    assert "resume    broken continues after 2 steps" in outcome.out
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")


def test_a_signal_in_the_last_validation_changes_nothing_in_the_end(train, monkeypatch, tmp_path):
    assert train("--out", "whole").code == 0
    validate = RunLog.add_validation

    def stopped(log, number, steps, losses):
        if number == steps:
            raise Stopped(signal.SIGTERM, at_once=False)
        validate(log, number, steps, losses)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "add_validation", stopped)
        assert train("--out", "broken").code == 128 + signal.SIGTERM
    state = tmp_path / "broken/checkpoint-000006/state.json"
    assert json.loads(state.read_text())["numbers"]["validated"] == 4
    assert train("--resume", "--out", "broken").code == 0
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")
    states = [
        json.loads((tmp_path / name / "checkpoint-000006/state.json").read_text())
        for name in ("broken", "whole")
    ]
    assert states[0]["numbers"] == states[1]["numbers"] and states[0]["numbers"]["validated"] == 6
    summaries = [without_times(state["notes"]["summary"]) for state in states]
    assert summaries[0] == summaries[1]


def test_resume_finds_the_newest_unfinished_run_that_has_these_settings(train, killed, tmp_path):
    killed(1)  # runs/data-1, before its first checkpoint
    killed(3, "--seed", 7)  # runs/data-2
    assert train("--seed", 8).code == 0  # runs/data-3
    outcome = train("--resume", "--seed", 7, "--log-every", 2, "--keep", 1)
    assert "runs/data-2 continues after 2 steps" in outcome.out
    outcome = train("--resume")
    assert "runs/data-1 has no checkpoint yet: it starts again" in outcome.out
    outcome = train("--resume", "--seed", 9)
    assert "no unfinished run has these settings, so a new one starts" in outcome.out
    assert "runs/data-4/report.html" in " ".join(outcome.out.split())


def test_runs_of_other_commands_stay_aside(train, killed, tmp_path):
    killed(3)
    killed(1)
    path = tmp_path / "runs/data-2/settings.json"
    settings = json.loads(path.read_text())
    assert settings["command"] == "train"
    path.write_text(json.dumps({**settings, "command": "pretrain"}))
    line = refusal(train("--resume", "--out", "runs/data-2"))
    assert "runs/data-2 is a run of pretrain, not of train" in line
    assert "runs/data-1 continues after 2 steps" in train("--resume").out


def test_a_run_of_before_the_command_was_noted_continues(train, killed, tmp_path):
    killed(3, "--out", "mine")
    path = tmp_path / "mine/settings.json"
    path.write_text(path.read_text().replace('"command": "train",', ""))
    assert "mine continues after 2 steps" in train("--resume", "--out", "mine").out


def test_a_run_in_a_folder_of_its_own_is_continued_by_its_name(train, killed):
    killed(1, "--out", "mine")
    words = " ".join(train("--resume").out.split())
    assert "so a new one starts; one that is not in runs is continued by --resume and its" in words


def moved_while_written(path, *arguments, before, **options):
    """Write a checkpoint; that of step 2 gets its name when the run's folder is no longer there."""

    def wait():
        before()
        while path.name == checkpoint_name(2) and path.parent.exists():
            sleep(0.001)

    write_checkpoint(path, *arguments, before=wait, **options)


@pytest.mark.parametrize("write", [write_checkpoint, moved_while_written])
def test_a_run_whose_folder_is_moved_stops_and_continues_when_it_is_back(
    train, monkeypatch, tmp_path, write
):
    assert train("--out", "whole").code == 0
    with monkeypatch.context() as patch:
        move = lambda: (tmp_path / "mine").rename(tmp_path / "elsewhere")  # noqa: E731
        patch.setattr(RunLog, "add_step", at_step(3, move))
        patch.setattr(checkpoint_writer, "write_checkpoint", write)
        line = refusal(train("--out", "mine"))
    assert "mine was moved or removed while the run wrote it: put it back, and continue" in line
    assert not (tmp_path / "mine").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "mine")
    assert train("--resume", "--out", "mine").code == 0
    assert results_of(tmp_path / "mine") == results_of(tmp_path / "whole")


def test_a_lock_that_is_removed_is_taken_again(train, monkeypatch, tmp_path):
    def remove():
        (tmp_path / "mine/lock").unlink()

    monkeypatch.setattr(RunLog, "add_step", at_step(3, remove))
    assert train("--out", "mine").code == 0
    assert (tmp_path / "mine/lock").read_text().startswith("process ")


def test_a_run_whose_lock_another_process_took_stops(train, monkeypatch, tmp_path):
    other = FolderLock(tmp_path / "mine")

    def take():
        (tmp_path / "mine/lock").unlink()
        other.__enter__()

    monkeypatch.setattr(RunLog, "add_step", at_step(3, take))
    assert "mine is in use: process" in refusal(train("--out", "mine"))
    other.__exit__()


def test_a_run_is_resumed_in_another_folder(run, train, killed, data, monkeypatch, tmp_path):
    assert train("--data", data.name, "--out", "whole").code == 0
    killed(3, "--data", data.name, "--out", "mine")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert run("train", "--resume", "../mine").code == 0
    name, *others = results_of(tmp_path / "mine")
    assert [name, *others[:2]] == list(results_of(tmp_path / "whole")[:3])


def test_a_run_with_other_settings_is_mentioned(train, killed):
    killed(3)
    outcome = train("--resume", "--seed", 5)
    line = "in runs/data-1 seed is 5, and was 0: --resume runs/data-1 continues that one"
    assert line in " ".join(outcome.out.split())


def test_a_run_that_is_named_brings_its_settings(run, killed, tmp_path):
    killed(3, "--out", "mine")
    for name in ("mine", "mine/checkpoint-000002"):
        shutil.copytree(tmp_path / "mine", tmp_path / "copy")
        assert run("train", "--resume", name).code == 0
        settings = json.loads((tmp_path / "mine/settings.json").read_text())
        assert settings["dropout"] == 0.1 and settings["out"] == "mine"
        shutil.rmtree(tmp_path / "mine")
        shutil.move(tmp_path / "copy", tmp_path / "mine")


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(train, killed, tmp_path):
    assert train("--out", "whole").code == 0
    killed(5, "--out", "broken")
    path = tmp_path / "broken/checkpoint-000004/optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    outcome = train("--resume", "--out", "broken")
    line = "broken/checkpoint-000004 is damaged: it is now damaged-1-checkpoint-000004"
    assert line in " ".join(outcome.out.split())
    assert results_of(tmp_path / "broken") == results_of(tmp_path / "whole")


def refusal(outcome):
    """The one line with which a command ends."""
    assert outcome.code == 2 and outcome.err.count("\n") == 1, outcome
    return outcome.err


def test_other_data_or_another_schedule_is_another_run(run, killed, data, tmp_path):
    killed(3, "--out", "mine")
    before = results_of_checkpoint(tmp_path)
    line = refusal(run("train", "--resume", "mine", "--learning-rate", "1e-3"))
    assert "mine cannot continue as the same run: learning_rate is 0.001, and was 5e-05" in line
    assert "--resume-anyway continues with what is now" in line
    data.write_text(data.read_text().replace("Count to 3", "Count to 4"))
    assert "the examples are not those that the run began with" in refusal(
        run("train", "--resume", "mine")
    )
    assert results_of_checkpoint(tmp_path) == before
    outcome = run("train", "--resume", "mine", "--resume-anyway")
    assert outcome.code == 0 and "it continues as another run: the examples" in outcome.out


def test_every_setting_that_changed_is_named(run, killed):
    killed(3, "--out", "mine")
    changed = ("--learning-rate", "1e-3", "--seed", 5)
    line = refusal(run("train", "--resume", "mine", *changed))
    assert "learning_rate is 0.001, and was 5e-05; seed is 5, and was 0" in line


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--steps", 3), "mine has taken 4 steps already, and the run would end after 3: let it"),
        (("--model", "tiny"), 'model is "tiny", and was '),
        (("--model", "tiny"), "but a run continues from its own weights, mine/checkpoint"),
    ],
)
def test_what_no_run_can_continue_with_changes_nothing(run, killed, tmp_path, changed, words):
    killed(5, "--out", "mine")
    before = results_of_checkpoint(tmp_path)
    assert words in refusal(run("train", "--resume", "mine", "--resume-anyway", *changed))
    assert results_of_checkpoint(tmp_path) == before
    assert run("train", "--resume", "mine").code == 0


def stopped_within(step, train, monkeypatch, folder):
    """Train with an accumulated step in two parts, and stop between them."""
    add = WeightedNLL.add_gradients
    count = 0

    def added(*arguments):
        nonlocal count
        count += 1
        result = add(*arguments)
        if count == 2 * step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(WeightedNLL, "add_gradients", added)
        assert train("--out", folder).code == 128 + signal.SIGTERM
    assert [p.name for p in Path(folder).glob("checkpoint-*-1")]


@pytest.mark.parametrize(
    "changed", [("--batch-size", 6), ("--batch-size", 2), ("--seed", 4), ("--prompt-weight", 1)]
)
def test_what_a_step_has_added_up_is_dropped_where_another_run_continues(
    run, train, monkeypatch, changed, tmp_path
):
    monkeypatch.chdir(tmp_path)
    stopped_within(2, train, monkeypatch, "mine")
    shutil.copytree("mine", "whole")
    (partial,) = Path("whole").glob("checkpoint-*-1")
    steps = checkpoint_reader.open_checkpoint(partial)
    assert steps.numbers.partial
    outcome = run("train", "--resume", "mine", "--resume-anyway", *changed)
    assert outcome.code == 0, outcome.err
    with monkeypatch.context() as patch:  # as if the step had not begun
        patch.setattr(session, "restore", lambda c, s, partial: restore(c, s, partial=False))
        assert run("train", "--resume", "whole", "--resume-anyway", *changed).code == 0
    assert results_of(Path("mine"))[1] == results_of(Path("whole"))[1]


def test_fewer_examples_go_on_with_the_next_epoch(run, killed, data):
    killed(3, "--out", "mine")  # after two steps of 4 examples
    entries = json.loads(data.read_text())
    data.write_text(json.dumps(entries[:6]))
    outcome = run("train", "--resume", "mine", "--resume-anyway", "--steps", 6)
    assert outcome.code == 0, outcome.err


def test_other_questions_are_asked_anew(run, train, killed, tmp_path):
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps([{"instruction": "Say a.", "output": "a"}]))
    killed(3, "--out", "mine", "--test", "asked.json")
    asked.write_text(json.dumps([{"instruction": "Say b.", "output": "b"}]))
    outcome = run("train", "--resume", "mine", "--resume-anyway")
    assert outcome.code == 0, outcome.err
    assert "what is called before are the answers of the model as it continues" in outcome.out
    (row,) = json.loads((tmp_path / "mine/answers.json").read_text())
    assert row["instruction"] == "Say b."


def test_what_fails_while_it_is_restored_leaves_the_settings(run, killed, monkeypatch, tmp_path):
    killed(3, "--out", "mine")
    before = (tmp_path / "mine/settings.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(session, "restore", lambda *a, **b: fail("no tensor"))
        outcome = run("train", "--resume", "mine", "--resume-anyway", "--seed", 9)
    assert "no tensor" in refusal(outcome)
    assert (tmp_path / "mine/settings.json").read_text() == before


def fail(text):
    """Raise the error of a user."""
    raise UserError(text)


def results_of_checkpoint(folder):
    """The bytes of everything in a run."""
    return {p: p.read_bytes() for p in (folder / "mine").rglob("*") if p.is_file()}


def test_other_rounding_is_stated(train, killed, monkeypatch):
    killed(3)
    monkeypatch.setattr(fingerprint, "cores", lambda: 99)
    outcome = train("--resume")
    assert outcome.code == 0
    assert "it continues, but not bit for bit (cores: 99, was " in " ".join(outcome.out.split())


def test_another_micro_batch_continues_too(train, killed):
    killed(3)
    outcome = train("--resume", "--micro-batch", 3)
    assert "not bit for bit (micro_batch: 3, was 2)" in " ".join(outcome.out.split())


def test_what_cannot_be_resumed_is_refused_in_one_line(run, train, killed, little_model, tmp_path):
    killed(5, "--out", "mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/settings.json").write_text('{"steps": 3, "rows": 5}')
    (tmp_path / "read").mkdir()
    (tmp_path / "read/settings.json").write_text('{"command": "pretrain", "steps": 3}')
    newest = {"checkpoint-000002": "checkpoint-000004"}
    cases = {
        "nowhere": "there is no folder nowhere: --resume needs the folder of a run",
        "data.json": "data.json is a file: --resume needs the folder of a run, or comes last",
        "empty": "empty holds no run, as it has no settings.json",
        "other": "other/settings.json holds the settings of another command: it has 'rows'",
        "read": "read is a run of pretrain, not of train",
        str(little_model): "to train a model further, use --model",
        "mine/checkpoint-000002": f"to go back to it, move {newest['checkpoint-000002']}",
    }
    for name, message in cases.items():
        assert message in refusal(run("train", "--resume", name)), name
    line = refusal(run("train", "--resume", "mine", "--out", "elsewhere"))
    assert "a run continues in its own folder, mine: leave out --out" in line
    with FolderLock(tmp_path / "mine"):
        assert "mine is in use: process" in refusal(run("train", "--resume", "mine"))
    assert run("train", "--resume", "mine").code == 0
    finished = "the run mine is finished: to train its model further, start a run with --model mine"
    assert finished in refusal(train("--resume", "mine"))


def test_the_line_that_started_a_run_may_be_repeated_when_it_is_finished(train, tmp_path):
    line = ("--resume", "--out", "mine", "--steps", 1)
    assert train(*line).code == 0
    before = results_of_checkpoint(tmp_path)
    outcome = train(*line)
    assert outcome.code == 0 and not outcome.out
    assert outcome.err.startswith("the run mine is finished: ") and outcome.err.count("\n") == 1
    assert results_of_checkpoint(tmp_path) == before


def test_a_checkpoint_of_another_version_is_not_taken_for_a_damaged_one(run, killed, tmp_path):
    killed(5, "--out", "mine")
    path = tmp_path / "mine/checkpoint-000004/state.json"
    content = json.loads(path.read_text()) | {"format": 2}
    path.write_text(json.dumps(content | {"checksum": checksum_of(content)}))
    before = results_of_checkpoint(tmp_path)
    assert "has format 2, and this program knows 1" in refusal(run("train", "--resume", "mine"))
    assert results_of_checkpoint(tmp_path) == before


def test_without_a_whole_checkpoint_nothing_is_begun(run, killed, tmp_path):
    killed(3, "--out", "mine")
    (tmp_path / "mine/checkpoint-000002/state.json").write_text("{}")
    before = results_of_checkpoint(tmp_path)
    line = refusal(run("train", "--resume", "mine"))
    assert "mine has no whole checkpoint" in line and "remove the checkpoints" in line
    assert results_of_checkpoint(tmp_path) == before


def test_a_run_that_was_killed_before_it_began_leaves_its_folder_free(train, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    hidden_name(folder / "settings.json").write_text("{")
    (folder / "lock").write_text("my notes")
    assert "mine already holds something" in refusal(train("--out", "mine"))
    assert (folder / "lock").read_text() == "my notes"
    (folder / "lock").write_text("process 7 on")
    assert train("--out", "mine", "--resume").code == 0
    assert not list(folder.glob(".*"))


def test_what_a_killed_run_had_no_time_to_remove_goes_when_it_continues(train, killed, tmp_path):
    killed(5, "--out", "mine", "--keep", 3)
    assert train("--resume", "--out", "mine", "--keep", 1, "--save-every", 0).code == 0
    names = sorted(path.name for path in (tmp_path / "mine").glob("checkpoint-*"))
    assert names == ["checkpoint-000006"]


def test_a_damaged_log_is_mentioned(train, killed, tmp_path):
    killed(3, "--out", "mine")
    (tmp_path / "mine/log.jsonl").unlink()
    outcome = train("--resume", "--out", "mine")
    assert outcome.code == 0
    assert "warning   mine/log.jsonl is not what was written: the lines" in outcome.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"log_bytes": "12"}, "log_bytes must be a whole number"),
        ({"summary": [1]}, "summary must be a dict"),
        ({"summary": {"data": 3}}, "summary must be a dict"),
        ({"contents": {"the examples": None}}, "contents must be a dict"),
        ({"more": 1}, "has no argument 'more'"),
        ({"extra": None}, "extra must be a dict"),
        ({"extra": {"before": 3}}, "before must be a dict"),
        ({"extra": {"before": {"test": [["an answer", True], [{}]]}}}, "before must be a dict"),
    ],
)
def test_notes_that_no_run_has_are_refused(tmp_path, change, words):
    notes = {
        "log_bytes": 12,
        "log_checksum": 5,
        "overflows": 0,
        "seconds": 1.0,
        "summary": {"a": {}, "b": []},
    }
    notes |= {"settings": {}, "contents": {}, "rounding": {}, "extra": {}} | change
    checkpoint = Checkpoint(tmp_path, None, notes)
    if not words:
        assert with_notes(checkpoint) == checkpoint
        return
    with pytest.raises(UserError, match=words) as refused:
        with_notes(checkpoint)
    assert str(tmp_path / STATE) in str(refused.value)


def test_a_note_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path / STATE}: it has no note contents"):
        with_notes(Checkpoint(tmp_path, None, {}))


def test_pretraining_continues_too(run, little_model, monkeypatch, tmp_path):
    options = ("--start", little_model, "--steps", 5, "--rows", 100, "--save-every", 2)
    assert run("pretrain", *options, "--out", "whole").code == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunLog, "add_step", at_step(3, end))
        run("pretrain", *options, "--out", "broken")
    outcome = run("pretrain", "--resume", "broken")
    assert outcome.code == 0 and "broken continues after 2 steps" in outcome.out
    for name in ("checkpoint-000005/optimizer.safetensors", "base/model.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_python_resumes_as_the_command_does(killed, tmp_path):
    killed(3, "--out", "mine")
    with pytest.raises(minigpt2.UserError, match="there is no folder nowhere"):
        minigpt2.train(resume="nowhere")
    assert minigpt2.train(resume="mine")["done"]
    assert json.loads((tmp_path / "mine/settings.json").read_text())["dropout"] == 0.1


def test_the_settings_of_a_run_are_printed_as_those_it_continues_with(run, killed):
    killed(3, "--out", "mine")
    outcome = run("train", "--resume", "mine", "--print-config", "--seed", 7)
    stored = yaml.safe_load(outcome.out[outcome.out.index("\ndata: ") :])
    assert stored["batch_size"] == 4 and stored["dropout"] == 0.1 and stored["seed"] == 7


def test_a_folder_that_is_taken_is_told_with_what_differs_there(train, killed):
    killed(3, "--out", "mine")
    line = refusal(train("--out", "mine", "--resume", "--learning-rate", "1e-3"))
    assert "mine already holds something" in line
    assert "learning_rate is 0.001, and was 5e-05: --resume mine continues that one" in line
