"""Run log: what is printed fits a terminal, and every number is kept."""

import json
from errno import EIO
from pathlib import Path

import pytest

from minigpt2.commands.train import describe_losses
from minigpt2.errors import UserError
from minigpt2.reports import run_log
from minigpt2.reports.metrics import results_of, step_line
from minigpt2.reports.plots import run_curves
from minigpt2.reports.run_log import RunLog, claim_folder, is_entry
from minigpt2.training.losses import Losses
from minigpt2.training.step import StepResult

METRICS = {"loss": 10.8249, "token_loss": 10.8, "example_loss": 10.9, "answer_tokens": 790}


def result(**changes):
    """A step with large numbers."""
    values = {
        "step": 10_000,
        "metrics": METRICS,
        "learning_rate": 2.84e-3,
        "gradient_norm": 12.3456,
        "updated": True,
        "loss_scale": 1.0,
        "supervised": 790,
        "rows": 141_000,
        "seconds": 1.25,
    }
    return StepResult(**(values | changes))


def test_the_step_line_fits_a_terminal_and_says_the_loss_once():
    line = step_line(result(), 10_000, 13_900_000_000)
    assert len(line) <= 80
    assert line == (
        "step 10000/10000  loss 10.8249  lr 2.8e-03  norm 12.35  112,800 tok/s  13.90 GB"
    )
    assert line.count("loss") == 1


def test_a_step_that_overflowed_says_that_it_is_taken_again(tmp_path, capsys):
    nothing = {"loss": float("nan"), "token_loss": float("inf")}
    changes = {"updated": False, "metrics": nothing, "gradient_norm": float("inf")}
    with RunLog(tmp_path) as log:
        log.add_step(result(**changes, loss_scale=2.0**15), 10_000, printed=True)
        log.add_step(result(**changes, loss_scale=2.0**14), 10_000, printed=True)
        log.add_step(result(), 10_000, printed=True)
    first, *_ = capsys.readouterr().out.splitlines()
    line = "step 10000/10000  overflowed in float16: again with loss scale 32,768"
    assert first == line and len(line) <= 80
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["float16"] == {"overflows": 2, "loss_scale": 2.0**14}


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        (b'{"step": 1, "loss": null, "overflowed": true, "norm": 0.5}\n', True),
        (b'{"step": 1}', False),
        (b'{"step": 1\n', False),
        (b'{"step": "1"}\n', False),
        (b'{"step": [1]}\n', False),
        (b'["step", 1]\n', False),
        (b'{"a": "\xff"}\n', False),
        (b"\0\0\n", False),
        (b"[" * 100_000 + b"\n", False),
        (b"9" * 5000 + b"\n", False),
    ],
)
def test_a_line_of_the_log_has_numbers_alone(line, is_one):
    assert is_entry(line) == is_one


def test_a_log_that_is_a_link_changes_no_other_file(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "log.jsonl").symlink_to("precious")
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written: "):
        RunLog(tmp_path, resumed=True)
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["..", ".", "", "../../x", "/etc/passwd", "a/..", "~", "x.json"])
def test_a_runs_folder_is_in_runs_whatever_the_data_is_called(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = claim_folder(None, Path(name).stem)
    assert folder.is_dir() and folder.resolve().parent == tmp_path / "runs"


def test_what_is_written_is_json_whatever_the_numbers(tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    odd = {"loss": float("nan"), "token_loss": -float("inf"), "pair": (1, float("inf"))}
    with RunLog(tmp_path) as log:
        log.add_step(result(metrics=odd), 9, printed=True)
        log.say("text", "numbers", worst=float("nan"), folder=tmp_path)
    text = (tmp_path / "log.jsonl").read_text()
    entry = json.loads(text, parse_constant=refuse)
    assert [entry[name] for name in odd] == [None, None, [1, None]]
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert summary["text"] == {"worst": None, "folder": str(tmp_path)}
    assert run_curves([entry]) is not None and results_of([entry]) == []


def test_a_step_and_a_validation_are_logged_with_their_numbers(tmp_path, capsys):
    losses = Losses()
    losses.nll, losses.tokens, losses.means, losses.examples = 8.0, 4, 3.0, 1
    with RunLog(tmp_path) as log:
        log.add_step(result(step=1), 9, printed=True)
        log.add_step(result(step=2), 9, printed=False)
        log.add_validation(2, 9, describe_losses(losses))
        entries = log.entries()
    assert [entry["step"] for entry in entries] == [1, 2, 2]
    assert entries[0]["loss"] == 10.8249 and entries[0]["rows_per_second"] == 112_800
    assert entries[2]["validation_token_loss"] == 2 and entries[2]["validation_example_loss"] == 3
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0:2] for line in printed] == [["step", "1/9"], ["step", "2/9"]]
    assert printed[1] == "step 2/9  validation loss 2.0000  by example 3.0000"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["printed_steps"] == [entries[0], entries[2]]


def test_numbers_are_kept_under_a_key_that_is_not_the_label(tmp_path):
    with RunLog(tmp_path) as log:
        log.say("text", "3 [bold]things[/bold]", key="things", count=3)
    assert json.loads((tmp_path / "summary.json").read_text()) == {"things": {"count": 3}}


@pytest.fixture
def stopped(tmp_path):
    """The notes of a log with two lines, after which a third was written."""
    with RunLog(tmp_path) as log:
        for number in (1, 2, 3):
            if number == 3:
                notes = log.notes()
            log.add({"step": number}, None)
    return notes


def test_a_log_continues_where_the_checkpoint_was_saved(tmp_path, stopped):
    with RunLog(tmp_path, resumed=True) as log:
        assert log.continue_from(stopped) == ""
        log.add({"step": 30}, None)
        assert [entry["step"] for entry in log.entries()] == [1, 2, 30]
        notes = log.notes()
    with RunLog(tmp_path, resumed=True) as log:
        assert log.continue_from(notes) == ""


@pytest.mark.parametrize(
    ("damaged", "left"),
    [
        ('{"step": 7}\n{"step": 2}\n{"step": 3}\n', [7, 2]),
        ('{"step"; 1}\n{"step": 2}\n{"step": 3}\n', [2]),
        ('{"step": 1}\n{"step": 2}', [1]),
        ('1          \n{"step": 2}\n', [2]),
        ("\0" * 24, []),
        ("", []),
    ],
)
def test_a_damaged_log_keeps_the_lines_that_can_be_read(tmp_path, stopped, damaged, left):
    (tmp_path / "log.jsonl").write_text(damaged)
    with RunLog(tmp_path, resumed=True) as log:
        assert "log.jsonl is not what was written: the lines" in log.continue_from(stopped)
        log.add({"step": 30}, None)
        assert [entry["step"] for entry in log.entries()] == [*left, 30]
        notes = log.notes()
    with RunLog(tmp_path, resumed=True) as log:
        assert log.continue_from(notes) == ""


def test_a_run_that_fails_at_once_leaves_no_empty_log(tmp_path):
    with pytest.raises(UserError, match="no such"), RunLog(tmp_path):
        raise UserError("no such device")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_log_whose_name_is_not_on_the_disk_is_none(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(EIO, "Input/output error")

    monkeypatch.setattr(run_log, "fsync_folder", fail)
    with pytest.raises(UserError, match=r"log.jsonl cannot be written: Input/output error"):
        RunLog(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_failed_first_is_the_error(tmp_path, monkeypatch):
    def fail(texts, **options):
        raise UserError("summary.json cannot be written")

    monkeypatch.setattr(run_log, "write_texts", fail)
    with pytest.raises(UserError, match=r"^the disk is full"), RunLog(tmp_path) as log:
        log.add({"step": 1}, None)
        raise UserError("the disk is full")
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(UserError, match=r"^summary.json cannot"), RunLog(tmp_path) as log:
        log.add({"step": 1}, None)


def test_a_folder_that_holds_something_is_not_claimed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert claim_folder(None, "data").name == "data-1"
    assert claim_folder(None, "data").name == "data-2"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with pytest.raises(UserError, match="already holds something"):
        claim_folder(tmp_path / "full", "data")
