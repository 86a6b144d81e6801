"""Faults: each call that writes fails in turn, once or from then on, and real disks that fill.

The run must end with exit code 2 and one line that names a file, or get around the fault and end
well.  Then the checkpoints that are there are whole, nothing is empty, and the run can continue.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager
from errno import EDQUOT, EIO, ENOSPC, EROFS
from itertools import count

from minigpt2.durable import HIDDEN
from tests.durability.child import FULL, Failing, run
from tests.durability.crashes import continued

OPENED = ("/lock", "/log.jsonl")  # files that a run opens, and writes later
ERRORS = (ENOSPC, EIO, EROFS, EDQUOT)


def empty_files(folder):
    """The empty files in a folder, but for those below hidden names."""
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not HIDDEN.fullmatch(name)]
        paths = [os.path.join(above, name) for name in names if not HIDDEN.fullmatch(name)]
        yield from (path for path in paths if not os.path.getsize(path))


def after_fault(work, folder, ended, *, removable=True):
    """What is wrong after a fault, before the run continues.

    Where nothing can be removed, the lock and the log may be empty.
    """
    empty = [path for path in empty_files(folder) if removable or not path.endswith(OPENED)]
    faults = [*work.faults(folder), *(f"{path} is empty" for path in empty)]
    if ended.code not in (0, 2):
        faults.append(f"exit code {ended.code}: {ended.text}")
    elif ended.code == 2:
        complaints = [line for line in ended.text.splitlines() if line.startswith("minigpt2: ")]
        if len(complaints) != 1 or not ended.text.endswith(complaints[0] + "\n"):
            faults.append(f"not one line: {ended.text}")
        elif not any(name in complaints[0] for name in work.NAMES):
            faults.append(f"no file is named: {complaints[0]}")
    return faults


def fault(work, folder, n, error, *, lasting):
    """Let call n of a run fail, then continue the run: (how it ended, the faults)."""
    folder.mkdir()
    try:
        ended = run(work, folder, Failing(folder, n, error, lasting=lasting))
        removable = error in FULL or not lasting
        faults = after_fault(work, folder, ended, removable=removable)
        return ended, faults + continued(work, folder)
    finally:
        shutil.rmtree(folder)


def failing_calls(work, folder, calls):
    """Let each of so many calls fail with each error: yields the faults."""
    for n in range(calls):
        for error in ERRORS:
            for lasting in (False, True):
                _, faults = fault(work, folder / "run", n, error, lasting=lasting)
                words = f"call {n}: {os.strerror(error)}{', and so on' if lasting else ''}"
                yield [f"{words}: {fault}" for fault in faults]


@contextmanager
def small_disk(folder, size):
    """A file system of so many bytes; yields whether it could be made, and how to resize it."""
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    made = shutil.which("mount") is not None and mount(f"size={size}")
    try:
        yield (lambda size: mount(f"remount,size={size}")) if made else None
    finally:
        if made:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def full_disks(work, folder):
    """Run on disks that are ever larger, until there is room: yields the faults.

    Yields nothing where no file system can be mounted.
    """
    for k in count(1):
        with small_disk(folder / "disk", k * work.DISK) as resize:
            if not resize:
                return
            place = folder / "disk" / "run"
            place.mkdir()
            ended = run(work, place)
            if not ended.code:
                return
            faults = after_fault(work, place, ended)
            assert resize(100 * k * work.DISK)
            faults += continued(work, place)
            yield [f"a disk of {k * work.DISK} bytes: {fault}" for fault in faults]
