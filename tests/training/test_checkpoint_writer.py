"""Checkpoint writer: in the background, in order, and no error is lost."""

import os
import sys
import threading

import numpy as np
import pytest

from minigpt2.durable import HIDDEN
from minigpt2.errors import UserError
from minigpt2.inference.model import Model
from minigpt2.model_folders import checkpoints_of
from minigpt2.training import checkpoint_writer
from minigpt2.training.checkpoint import STATE, checkpoint_name
from minigpt2.training.checkpoint_reader import open_checkpoint
from minigpt2.training.checkpoint_writer import CheckpointWriter
from minigpt2.training.state import Best
from tests.training.test_checkpoint import TOKENIZER, start


@pytest.fixture
def writer(tmp_path):
    """A writer that keeps two checkpoints, and a state."""
    state = start()
    model = Model(state.parameters, TOKENIZER, None)
    return CheckpointWriter(tmp_path, model, keep=2, before=lambda: None), state


def saved_at(writer, state, *steps, best=None):
    """Save after each of some steps; returns the names of what is left."""
    for step in steps:
        state.step = step
        state.best = Best(1.0, best) if best else None
        writer.save(state, {"step": step})
    writer.finish()
    return sorted(path.name for path in writer.folder.iterdir())


def test_the_newest_stay_and_the_best(writer):
    assert saved_at(*writer, 1, 2, 3) == ["checkpoint-000002", "checkpoint-000003"]
    names = ["checkpoint-000003", "checkpoint-000006", "checkpoint-000007"]
    assert saved_at(*writer, 4, 5, 6, 7, best=3) == names
    assert saved_at(*writer, 8, best=8) == ["checkpoint-000007", "checkpoint-000008"]


def test_all_stay_if_that_is_wanted(writer):
    writer[0].keep = 0
    assert len(saved_at(*writer, 1, 2, 3, 4, 5)) == 5


def test_the_work_goes_on_while_a_checkpoint_is_written(writer, monkeypatch):
    writer, state = writer
    may_end, write = threading.Event(), checkpoint_writer.write_checkpoint

    def slow(*arguments, **named):
        assert threading.current_thread() is not threading.main_thread()
        may_end.wait(10)
        write(*arguments, **named)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", slow)
    writer.save(state, {"a": [1]})
    assert list(writer.folder.iterdir()) == [] and writer.newest is None
    state.gradients.flat[...] = np.nan  # what a next micro-batch changes
    may_end.set()
    writer.finish()
    assert writer.newest == writer.folder / checkpoint_name(0)
    assert open_checkpoint(writer.newest).notes == {"a": [1]}


def test_in_the_middle_of_a_step_it_waits_for_the_arrays(writer, monkeypatch):
    writer, state = writer
    steps, write = [], checkpoint_writer.write_checkpoint

    def noted(*arguments, handed_over, before):
        write(*arguments, handed_over=lambda: (steps.append("arrays"), handed_over()))

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", noted)
    state.partial = [np.ones(3, np.float32)]
    writer.save(state, {})
    assert steps == ["arrays"]
    writer.finish()
    assert [path.name for path in writer.folder.iterdir()] == ["checkpoint-000000-1"]


def test_what_is_noted_is_what_it_was_when_it_was_noted(writer, monkeypatch):
    writer, state = writer
    notes, ready, write = {"lines": [1]}, threading.Event(), checkpoint_writer.write_checkpoint

    def late(*arguments, **named):
        ready.wait(10)
        write(*arguments, **named)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", late)
    writer.save(state, notes)
    notes["lines"].append(2)
    ready.set()
    writer.finish()
    assert open_checkpoint(writer.newest).notes == {"lines": [1]}


def test_an_error_is_raised_by_the_next_call_once(writer, monkeypatch):
    writer, state = writer

    def fail(*arguments, **named):
        raise UserError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "write_checkpoint", fail)
        writer.save(state, {})
        with pytest.raises(UserError, match="the disk is full"):
            writer.save(state, {})
    writer.settle()
    assert writer.newest is None and list(writer.folder.iterdir()) == []


def test_a_checkpoint_that_exists_is_left_as_it_is(writer):
    writer, state = writer
    writer.save(state, {"first": 1})
    writer.save(state, {"first": 2})
    writer.finish()
    assert open_checkpoint(writer.newest).notes == {"first": 1}


def test_a_validation_after_a_checkpoint_replaces_what_it_says_of_the_state(writer):
    writer, state = writer
    writer.save(state, {"lines": 1})
    writer.finish()
    arrays = {p.name: p.stat().st_mtime_ns for p in writer.newest.iterdir() if p.name != STATE}
    state.add_validation(2.5)
    synced, beside = [], []

    def before():
        synced.append(open_checkpoint(writer.newest).notes)
        beside.extend(path.name for path in writer.folder.iterdir() if path != writer.newest)

    writer.before = before
    writer.save(state, {"lines": 2})
    writer.finish()
    checkpoint = open_checkpoint(writer.newest)
    assert checkpoint.notes == {"lines": 2} and synced == [{"lines": 1}]
    assert len(beside) == 1 and HIDDEN.fullmatch(beside[0])  # which the next session removes
    assert (checkpoint.numbers.validated, checkpoint.numbers.best_loss) == (0, 2.5)
    names = {p.name: p.stat().st_mtime_ns for p in writer.newest.iterdir() if p.name != STATE}
    assert names == arrays and [path.name for path in writer.folder.iterdir()] == [
        "checkpoint-000000"
    ]


def test_what_cannot_be_replaced_stays(writer, monkeypatch):
    writer, state = writer
    writer.save(state, {"lines": 1})
    writer.finish()
    state.add_validation(2.5)

    def fail():
        raise UserError("the log is gone")

    writer.before = fail
    writer.save(state, {"lines": 2})
    with pytest.raises(UserError, match="the log is gone"):
        writer.finish()
    assert open_checkpoint(writer.newest).notes == {"lines": 1}
    assert len(list(writer.folder.iterdir())) == 1


def test_what_the_notes_name_is_on_the_disk_before_the_checkpoint(tmp_path):
    state, names = start(), []
    model = Model(state.parameters, TOKENIZER, None)

    def before():
        names.extend(path.name for path in tmp_path.iterdir() if path.name[0] != ".")

    writer = CheckpointWriter(tmp_path, model, keep=2, before=before)
    writer.save(state, {})
    writer.finish()
    assert names == [] and (tmp_path / checkpoint_name(0)).is_dir()


def test_the_seconds_that_updates_waited_add_up(writer, monkeypatch):
    writer, state = writer
    monkeypatch.setattr(checkpoint_writer, "perf_counter", iter([10.0, 10.5, 20.0, 21.0]).__next__)
    assert writer.seconds == 0
    writer.settle()  # nothing is written
    for state.step, seconds in ((1, 0.5), (2, 1.5)):
        writer.save(state, {})
        writer.settle()
        assert writer.seconds == seconds
    writer.finish()


def test_a_run_that_was_killed_removes_what_it_had_no_time_to_remove(writer):
    writer, state = writer
    for step in (2, 4, 6, 8):
        (writer.folder / checkpoint_name(step)).mkdir()

    def names():
        return [path.name for path in checkpoints_of(writer.folder)]

    state.best = Best(1.0, 4)
    writer.remove_old(state)
    assert names() == [checkpoint_name(step) for step in (4, 6, 8)]
    state.best = None
    writer.remove_old(state)
    assert names() == [checkpoint_name(step) for step in (6, 8)]


@pytest.mark.parametrize(("platform", "behind"), [("linux", [10]), ("darwin", [])])
def test_the_thread_that_writes_stands_behind_those_that_compute(
    writer, monkeypatch, platform, behind
):
    """Where that can be said of one thread; nor does it keep a process alive that is to end."""
    writer, state = writer
    calls, threads, daemons = [], [], []

    def nice(increment):
        calls.append(increment)
        threads.append(threading.get_ident())

    def write(*arguments, handed_over, before):
        daemons.append(threading.current_thread().daemon)
        assert threads in ([], [threading.get_ident()])

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "nice", nice)
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", write)
    writer.save(state, {})
    writer.finish()
    assert calls == behind and daemons == [True]


def test_an_update_waits_for_the_arrays_and_not_for_the_disk(writer, monkeypatch):
    writer, state = writer
    steps, may_end = [], threading.Event()

    def write(path, snapshot, notes, *, handed_over, before):
        steps.append("arrays")
        handed_over()
        may_end.wait(10)
        steps.append("disk")

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", write)
    writer.save(state, {})
    writer.settle()
    assert steps == ["arrays"] and writer.newest is None
    may_end.set()
    writer.finish()
    assert steps == ["arrays", "disk"] and writer.newest


def test_an_update_that_waits_hears_of_the_error(writer, monkeypatch):
    writer, state = writer

    def fail(*arguments, **named):
        raise UserError("the disk is full")

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", fail)
    writer.save(state, {})
    with pytest.raises(UserError, match="the disk is full"):
        writer.settle()
    writer.settle()
