"""The whole: every crash point, power cut, omitted fsync, fault and full disk, in numbers.

python -m tests.durability
"""

import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.durability import direct, train
from tests.durability.calls import Call
from tests.durability.crashes import continued, crash_points
from tests.durability.disk import Disk, Recorder, read_tree, write_tree
from tests.durability.faults import failing_calls, full_disks
from tests.durability.flips import flips, flips_of_run
from tests.durability.power import cuts, omissions, violations

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
SAMPLE = 300  # states after power cuts from which a run continues


class Table:
    """Rows of what was tried, how often, and how often all was well."""

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
        print(f"  {name:<46} {text:>20} {seconds:>6.0f} s", flush=True)


def record(work, folder, **options):
    """The calls of a run, and the folder that it makes."""
    folder.mkdir()
    with Recorder(folder) as recorder, redirect_stdout(StringIO()):
        work.write(folder, recorder.relies_on, **options)
    disk = Disk(recorder.root)
    for call in recorder.calls:
        if isinstance(call, Call):
            disk.do(call)
    assert disk.tree() == read_tree(folder), "a call was not recorded"
    return recorder.calls, recorder.root


def power_cuts(calls, root):
    """The promises that are broken by each state that a power cut may leave."""
    for number, label, tree, promises in cuts(calls, root):
        yield [f"after call {number}, {label}: {fault}" for fault in promises.faults(tree)]


def opened(work, calls, root, folder):
    """What is wrong with states that power cuts leave, on a real disk: all are opened."""
    for number, tree in distinct(calls, root):
        place = folder / "cut"
        write_tree(tree, place)
        yield [f"after call {number}: {fault}" for fault in work.faults(place)]
        shutil.rmtree(place)


def resumed(work, calls, root, folder):
    """What is wrong with runs that continue after power cuts: SAMPLE of them, evenly."""
    states = list(distinct(calls, root))
    count = min(SAMPLE, len(states))
    for i in range(count):
        number, tree = states[i * len(states) // count]
        place = folder / "cut"
        write_tree(tree, place)
        yield [f"after call {number}: {fault}: {tree}" for fault in continued(work, place)]
        shutil.rmtree(place)


def distinct(calls, root):
    """The different states that power cuts leave: (number of the first call, tree)."""
    seen = set()
    for number, _, tree, _ in cuts(calls, root):
        if (key := key_of(tree)) not in seen:
            seen.add(key)
            yield number, tree


def key_of(tree):
    """Something to tell trees apart by."""
    if isinstance(tree, bytes):
        return tree
    return tuple((name, key_of(content)) for name, content in tree.items())


def omitted(calls, root):
    """The fsyncs that can be left out unnoticed."""
    for call, violation in omissions(calls, root):
        yield [] if violation else [f"{call.path} was not missed"]


def planted(folder):
    """The wrong programs that are not noticed."""
    for name in direct.PLANTED:
        with direct.planted(name):
            calls, root = record(direct, folder / name)
        yield [] if next(violations(calls, root), None) else [f"{name} was not noticed"]


def examine(table, work, folder):
    """Add the rows of a program."""
    folder.mkdir()
    calls, root = record(work, folder / "recorded")
    table.row("power cuts, simulated: promises kept", power_cuts(calls, root))
    table.row("power cuts, simulated: opened", opened(work, calls, root, folder))
    table.row("power cuts, simulated: continued", resumed(work, calls, root, folder))
    table.row("fsyncs left out in turn: noticed", omitted(calls, root))
    table.row("killed at every call: continued", crash_points(work, folder))
    done = [call for call in calls if isinstance(call, Call)]
    table.row("ENOSPC, EIO, EROFS, EDQUOT at every call", failing_calls(work, folder, len(done)))
    table.row("disks that fill", full_disks(work, folder))


def main():
    """Print the table; return 1 if anything went wrong."""
    table = Table()
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        print("the functions that write checkpoints", flush=True)
        examine(table, direct, folder / "direct")
        table.row("wrong programs: noticed", planted(folder))
        print("minigpt2 train", flush=True)
        examine(table, train, folder / "train")
        beside = record(train, folder / "beside", in_background=True)
        table.row("power cuts beside steps: promises kept", power_cuts(*beside))
        table.row("damaged files of a checkpoint: told", flips(train, folder))
        table.row("other damaged files of a run: continued, or told", flips_of_run(train, folder))
    for fault in table.faults:
        print(fault[:2000])
    return 1 if table.faults else 0


if __name__ == "__main__":
    sys.exit(main())
