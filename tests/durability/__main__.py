"""The whole: every crash point, power cut, omitted fsync, fault and full disk, in numbers.

python -m tests.durability
"""

import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.durability import direct
from tests.durability.calls import Call
from tests.durability.crashes import crash_points
from tests.durability.disk import Disk, Recorder, read_tree
from tests.durability.faults import failing_calls, full_disks
from tests.durability.power import cuts, omissions

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
STEP = 4096  # bytes that one disk has more than the one before


class Table:
    """Rows of what was done, how often, and how often all was well."""

    def __init__(self):
        self.faults = []

    def row(self, name, outcomes):
        """Print a row; `outcomes` has the faults of each try."""
        started, good, total = perf_counter(), 0, 0
        for faults in outcomes:
            total, good = total + 1, good + (not faults)
            self.faults += [f"{name}: {fault}" for fault in faults]
        seconds = perf_counter() - started
        text = f"{good:,} of {total:,}" if total else "not possible here"
        print(f"{name:<52} {text:>18} {seconds:>7.0f} s", flush=True)


def record(work, folder):
    """The calls of a run, in a folder that it makes."""
    folder.mkdir()
    with Recorder(folder) as recorder:
        work.write(folder, recorder.relies_on)
    disk = Disk(recorder.root)
    for call in recorder.calls:
        if isinstance(call, Call):
            disk.do(call)
    assert disk.tree() == read_tree(folder), "a call was not recorded"
    return recorder.calls, recorder.root


def power_cuts(calls, root):
    """The promises that each state that a power cut may leave breaks."""
    for number, label, tree, promises in cuts(calls, root):
        yield [f"after call {number}, {label}: {fault}" for fault in promises.faults(tree)]


def noticed(outcomes):
    """What was to be noticed, and was not."""
    for name, violation in outcomes:
        yield [] if violation else [f"{name} was not noticed"]
