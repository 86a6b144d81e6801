"""Crash points: a run is killed before each call that writes, in turn, and continues.

SIGKILL leaves all that was written, so this shows that each moment is one from which the run can
continue; what a power cut leaves is simulated (power.py).
"""

import shutil
from itertools import count

from minigpt2.durable import HIDDEN
from tests.durability.child import Killing, run


def leftovers(folder):
    """The hidden files and folders of interrupted writing that are in a folder, at any depth."""
    return [path for path in folder.rglob(".*") if HIDDEN.fullmatch(path.name)]


def crash(work, folder, n, *, middle=False):
    """Kill a run before call n, or in the middle of write n, and continue it.

    Returns whether it was killed, and what is wrong afterwards.
    """
    folder.mkdir()
    try:
        ended = run(work, folder, Killing(folder, n, middle=middle))
        faults = list(work.faults(folder))
        if not ended.killed:
            return False, [*faults, *(f"exit code {c}: {t}" for c, t in [ended] if c)]
        return True, faults + continued(work, folder)
    finally:
        shutil.rmtree(folder)


def continued(work, folder):
    """Continue a run; return what is wrong with it then."""
    ended = run(work, folder)
    if ended.code:
        return [f"continued with exit code {ended.code}: {ended.text}"]
    return [*(f"{path} is left" for path in leftovers(folder)), *work.differences(folder)]


def crash_points(work, folder):
    """Kill a run at every crash point: yields the faults of each."""
    for middle in (False, True):
        for n in count():
            was_killed, faults = crash(work, folder / "run", n, middle=middle)
            if not was_killed:
                assert not faults, faults
                break
            yield [f"killed {'in write' if middle else 'before call'} {n}: {f}" for f in faults]
