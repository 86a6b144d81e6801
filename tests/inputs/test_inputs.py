"""A few of the inputs, the table itself, and what its check notices."""

from collections import Counter

import pytest

from minigpt2.cli import COMMANDS
from tests.inputs.row import refused, works
from tests.inputs.rows import rows_by_kind
from tests.inputs.run import CONTROL, MEMORY, Outcome, check, faults_of, timed

TABLE = rows_by_kind()
ROWS = [(kind, row) for kind, rows in TABLE.items() for row in rows]
SAMPLE = {
    "data": ("half a file", "UTF-16"),
    "formats": ("a role that is an object",),
    "settings": ("a tag that runs a program",),
    "templates": ("a stored list",),
    "configs": ("a thousand million layers",),
    "weights": ("half a file",),
    "vocabularies": ("no special token",),
    "values": ("an unknown option",),
    "names": ("brackets in stats",),
    "streams": ("no stream at all",),
    "sizes": ("data without end", "a pipe that nobody writes to"),
    "outputs": ("show: a missing folder",),
    "alignment": ("equal answers", "one answer"),
}


@pytest.fixture(scope="module")
def control():
    """The seconds that a command takes here and now."""
    return timed(CONTROL)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in SAMPLE.items() for name in names]
)
def test_a_sample_of_the_inputs(kind, name, control):
    (row,) = [row for row in TABLE[kind] if row.name == name]
    faults = check(row, control) and check(row, timed(CONTROL))
    assert not faults, "\n".join(faults)


def test_the_table_has_every_command_and_no_row_twice():
    assert len(ROWS) >= 300
    words = {word for _, row in ROWS for word in row.command.split(" ")[:1]}
    assert words >= set(COMMANDS)
    names = Counter((kind, row.name) for kind, row in ROWS)
    assert [name for name, count in names.items() if count > 1] == []
    commands = Counter(
        (row.command, repr(row[3:]))
        for _, row in ROWS
        if not any(map(callable, row.files.values()))
    )
    assert [command for command, count in commands.items() if count > 1] == []


GOOD = Outcome(2, "", "minigpt2: no\n", seconds=1, memory=1, is_stopped=False, left=False)
REFUSED = refused("", "", "no")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"code": 1}, "exit code 1 instead of 2"),
        ({"is_stopped": True}, "not over"),
        ({"left": True}, "left processes"),
        ({"memory": MEMORY + 1}, "took 700 MB"),
        ({"out": "a result"}, "standard output"),
        ({"err": "minigpt2: yes\n"}, "does not print 'no'"),
        ({"err": "minigpt2: no\nmore\n"}, "2 lines"),
        ({"err": "no\n"}, "1 lines"),
        ({"err": "minigpt2: no Traceback\n"}, "prints 'Traceback'"),
        ({"err": "minigpt2: no \x1b[2J\n"}, "control characters"),
        ({"err": "minigpt2: no \udce9\n"}, "control characters"),
    ],
)
def test_the_check_notices(changes, fault):
    assert list(faults_of(REFUSED, GOOD, {}, {})) == []
    faults = list(faults_of(REFUSED, GOOD._replace(**changes), {}, {}))
    assert any(fault in text for text in faults), faults


def test_the_check_compares_files():
    done = GOOD._replace(code=0, out="done")
    row = works("", "", "done", makes="run")
    assert list(faults_of(row, done, {"a": "1"}, {"a": "1", "run": "", "run/b": "2"})) == []
    faults = set(faults_of(row, done, {"a": "1", "c": "1"}, {"a": "2", "x/y": ""}))
    assert faults == {"changed a", "changed c", "leaves x", "does not leave run"}


def test_lines_of_progress_are_no_fault():
    lines = "opening tiny: 2.1 s so far\nencoding: 1,200 of 52,000, 3 s left\n"
    assert list(faults_of(REFUSED, GOOD._replace(err=lines + GOOD.err), {}, {})) == []
