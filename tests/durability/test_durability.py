"""Durability, the quick part: the smallest program that writes checkpoints, and wrong ones.

`python -m tests.durability` has the whole.
"""

import os
from errno import EIO

import pytest

from minigpt2.errors import UserError
from tests.durability import direct
from tests.durability.calls import Call
from tests.durability.child import Failing
from tests.durability.disk import Disk, Recorder, read_tree, write_tree
from tests.durability.faults import empty_files
from tests.durability.power import cuts, omissions, violations

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


def record(folder):
    """The calls of a run, and its folder; the simulated disk has what the real one has."""
    folder.mkdir()
    with Recorder(folder) as recorder:
        direct.write(folder, recorder.relies_on)
    disk = Disk(recorder.root)
    for call in recorder.calls:
        if isinstance(call, Call):
            disk.do(call)
    assert disk.tree() == read_tree(folder)
    return recorder.calls, recorder.root


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The calls of a run, and its folder."""
    return record(tmp_path_factory.mktemp("power") / "run")


def test_no_power_cut_breaks_a_promise(recorded):
    assert next(violations(*recorded), None) is None
    assert sum(1 for _ in cuts(*recorded)) > 1000


def test_every_fsync_is_needed(recorded):
    outcomes = list(omissions(*recorded))
    assert len(outcomes) > 20 and all(violation for _, violation in outcomes)


@pytest.mark.parametrize("name", direct.PLANTED)
def test_a_wrong_program_is_noticed(name, tmp_path):
    with direct.planted(name):
        calls, root = record(tmp_path / "run")
    assert next(violations(calls, root), None)


def test_a_run_continues_from_where_it_was_killed(recorded, tmp_path):
    calls, root = recorded
    folder = tmp_path / "run"
    trees = []
    for _, label, tree, _ in cuts(calls, root):
        if label in ("everything", "all names, all data") and tree not in trees:
            trees.append(tree)
    assert len(trees) > 30
    for tree in trees[::7]:
        folder = tmp_path / f"run-{trees.index(tree)}"
        write_tree(tree, folder)
        assert not list(direct.faults(folder))
        direct.write(folder)
        assert not list(direct.differences(folder))


def test_a_call_that_fails_leaves_whole_checkpoints(tmp_path, recorded):
    calls = [call for call in recorded[0] if isinstance(call, Call)]
    for n in [n for n in range(0, len(calls), 5) if calls[n].name != "link"]:
        folder = tmp_path / f"run-{n}"
        folder.mkdir()
        with (
            Failing(folder, n, EIO, lasting=False),
            pytest.raises(UserError, match=f"^{folder}/runs/.*: Input/output error"),
        ):
            direct.write(folder)
        assert not list(direct.faults(folder)) and not list(empty_files(folder))
        direct.write(folder)
        assert not list(direct.differences(folder))
