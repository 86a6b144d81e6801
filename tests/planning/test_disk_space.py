"""Disk space: what the checkpoints of a run take is counted, and less is refused."""

import shutil
from types import SimpleNamespace

import pytest

from minigpt2.errors import UserError
from minigpt2.model.config import OFFICIAL, TINY
from minigpt2.planning.disk_space import disk_need, free_bytes, require_disk

P = OFFICIAL["gpt2"].n_parameters
FILES = 32 * 50257  # the tokenizer's


@pytest.fixture
def disk(monkeypatch):
    """A function that gives the disk so many free bytes."""

    def has(free, total=10**12):
        usage = SimpleNamespace(total=total, used=0, free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: (usage.total, 0, usage.free))

    return has


@pytest.mark.parametrize(
    ("options", "each", "at_once"),
    [
        ({"keep": 2, "validates": False, "accumulates": False}, 12, 36),
        ({"keep": 2, "validates": True, "accumulates": False}, 12, 48),
        ({"keep": 2, "validates": True, "accumulates": True}, 16, 60),
        ({"keep": 1, "validates": True, "accumulates": False}, 12, 36),
        ({"keep": 0, "validates": False, "accumulates": False}, 12, 24),
    ],
    ids=str,
)
def test_a_checkpoint_is_weights_and_moments_and_those_that_stay_are_counted(
    options, each, at_once
):
    need = disk_need(OFFICIAL["gpt2"], **options)
    assert need.each == each * P + FILES
    assert need.at_once == pytest.approx(at_once * P, rel=0.01)


def test_a_disk_with_room_is_told(disk, tmp_path):
    need = disk_need(OFFICIAL["gpt2"], keep=2, validates=False, accumulates=False)
    disk(12_100_000_000)
    line = require_disk(need, tmp_path / "x")
    assert (
        line
        == f"checkpoints take up to 4.48 GB, 1.49 GB each, in {tmp_path / 'x'}; 12.10 GB are free"
    )
    line = require_disk(need._replace(keep=0), tmp_path)
    assert line.startswith("each checkpoint takes up to 1.49 GB, and all of them stay, in")


def test_a_disk_without_room_is_refused_with_what_helps(disk, tmp_path):
    need = disk_need(OFFICIAL["gpt2"], keep=2, validates=False, accumulates=False)
    disk(3 * 10**9)
    text = (
        r"take up to 4\.48 GB, but .*x has 3\.00 GB free: use --keep 1, which takes 2\.99 GB, or "
        r"choose an --out on another disk$"
    )
    with pytest.raises(UserError, match=text):
        require_disk(need, tmp_path / "x")
    disk(10**9)  # too little for that, too, unless some of it is there already
    for keep in (0, 1, 2):
        with pytest.raises(UserError, match="free: choose an --out on another disk"):
            require_disk(need._replace(keep=keep), tmp_path / "x")
    with pytest.raises(UserError, match="use --keep 1, which takes"):
        require_disk(need, tmp_path / "x", held=2 * 10**9)


def test_what_is_there_already_is_not_needed_again(disk, tmp_path):
    need = disk_need(TINY, keep=2, validates=False, accumulates=False)
    disk(need.each)
    with pytest.raises(UserError):
        require_disk(need, tmp_path)
    assert require_disk(need, tmp_path, held=2 * need.each)


def test_a_file_system_that_does_not_tell_refuses_nothing(disk, tmp_path, monkeypatch):
    need = disk_need(TINY, keep=2, validates=False, accumulates=False)
    disk(0, total=0)
    assert require_disk(need, tmp_path).endswith(f"in {tmp_path}")
    monkeypatch.undo()
    assert free_bytes(tmp_path / "not" / "yet" / "there") == pytest.approx(
        free_bytes(tmp_path), rel=0.5
    )


def test_a_second_model_that_is_trained_has_its_weights_and_moments_in_a_checkpoint():
    options = {"keep": 2, "validates": True, "accumulates": True}
    one, two = (disk_need(TINY, **options, models=n) for n in (1, 2))
    assert two.each - one.each == 16 * TINY.n_parameters
