"""Events: what TensorBoard reads is what was logged."""

import json
import struct
import sys

import pytest

from minigpt2.commands.setup import TrainSettings
from minigpt2.commands.train import train
from minigpt2.errors import UserError
from minigpt2.reports import tensorboard
from minigpt2.reports.tensorboard import Events, require_tensorboard
from tests.full_disk import nearly_full_disk

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def scalars(folder):
    """Every (tag, step, value) of the event files of a folder, read by the format's own rules."""
    found = []
    for path in folder.iterdir():
        raw, at = path.read_bytes(), 0
        while at < len(raw):
            (length,) = struct.unpack_from("<Q", raw, at)
            event = event_pb2.Event.FromString(raw[at + 12 : at + 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += 12 + length + 4
    return found


def test_every_number_stands_under_its_step(tmp_path):
    events = Events(tmp_path)
    events.add({"step": 3, "loss": 0.5, "supervised": 7, "text": "no number"})
    events.add({"step": 4, "validation_loss": 0.25})
    events.close()
    assert scalars(tmp_path) == [
        ("training/loss", 3, 0.5),
        ("training/supervised", 3, 7.0),
        ("validation/validation_loss", 4, 0.25),
    ]


def test_events_are_on_the_disk_after_a_while(tmp_path, monkeypatch):
    events = Events(tmp_path)
    events.add({"step": 1, "loss": 0.5})
    monkeypatch.setattr(tensorboard, "PAUSE", 0)
    events.add({"step": 2, "loss": 0.25})
    assert [step for _, step, _ in scalars(tmp_path)] == [1, 2]
    events.close()


def test_a_run_logs_the_same_into_both(little_model, tmp_path):
    data, out = tmp_path / "data.json", tmp_path / "run"
    data.write_text(json.dumps([{"question": f"{i}?", "answer": f"{i}!"} for i in range(9)]))
    quick = {"steps": 2, "samples": 0, "tensorboard": True}
    train(TrainSettings(model=str(little_model), data=str(data), out=out, **quick))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = {step: value for tag, step, value in scalars(out / "events") if tag[-5:] == "/loss"}
    assert losses == {e["step"]: pytest.approx(e["loss"]) for e in lines if "loss" in e}


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"minigpt2\[tensorboard\]"):
        require_tensorboard()


def test_a_full_disk_is_named(tmp_path):
    events = Events(tmp_path / "events")
    with nearly_full_disk(1000), pytest.raises(UserError, match="events cannot be written: "):
        for step in range(1000):
            events.add({"step": step, "loss": 0.5})
    events.close()
