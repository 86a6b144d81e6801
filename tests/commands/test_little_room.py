"""Little room: a run that fits neither the disk nor the memory says so before its first step."""

import shutil

import pytest

from minigpt2.planning import room
from minigpt2.planning.available import Available

LITTLE = (
    "--steps",
    "1",
    "--samples",
    "0",
    "--validation",
    "0",
    "--batch-size",
    "2",
    "--out",
    "run",
)


@pytest.fixture
def machine(monkeypatch):
    """A function that gives this machine so many bytes, so many of them free."""

    def has(whole, free):
        available = Available("this machine", whole, free)
        monkeypatch.setattr(room, "memory_of_device", lambda library: available)

    return has


@pytest.mark.parametrize(
    "command",
    [("train", "data.json", *LITTLE), ("pretrain", "--steps", "1", "--out", "run")],
    ids=["train", "pretrain"],
)
def test_a_disk_that_cannot_hold_the_checkpoints_is_told_and_nothing_is_written(
    run, little_model, data, tmp_path, monkeypatch, command
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**9, 10**9, 2_450_000))
    start = "--model" if command[0] == "train" else "--start"
    outcome = run(*command, start, little_model)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "but run has 2 MB free: use --keep 1, which takes" in outcome.err
    assert not (tmp_path / "run").exists()


def test_memory_that_is_too_small_or_scarce_is_told(run, little_model, data, tmp_path, machine):
    machine(10**6, 10**6)
    outcome = run("train", data, "--model", little_model, *LITTLE)
    assert outcome.code == 2 and "but this machine has 1 MB: " in outcome.err
    assert not (tmp_path / "run").exists()
    machine(10**12, 10**3)
    outcome = run("train", data, "--model", little_model, *LITTLE)
    assert outcome.code == 0, outcome.err
    assert "warning   a step takes" in outcome.out and "free for it: " in outcome.out
    assert "disk      checkpoints take up to 3 MB, 1 MB each, in run; " in outcome.out
