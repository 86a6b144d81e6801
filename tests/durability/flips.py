"""Flips: what a disk damages after it was written is noticed, and the checkpoint before is used."""

import os
import shutil
import signal
from contextlib import contextmanager

from tests.durability.calls import Watch
from tests.durability.child import run
from tests.durability.disk import read_tree, write_tree
from tests.durability.faults import after_fault

PLACES = (0.0, 0.3, 0.5, 0.9, 1.0)  # of the flipped bit, as a share of the file


class KilledAt(Watch):
    """Ends the process, as SIGKILL does, before a name is given to something."""

    def __init__(self, root, name):
        super().__init__(root)
        self.name = name

    def before(self, call, half):
        if os.path.basename(call.target) == self.name:
            os.kill(os.getpid(), signal.SIGKILL)


def damages(content):
    """What may happen to a file: (words, its content; None if it is gone)."""
    for place in PLACES:
        i = round(place * (len(content) - 1))
        flipped = bytes([content[i] ^ 1 << i % 8])
        yield f"bit {i % 8} of byte {i} is flipped", content[:i] + flipped + content[i + 1 :]
    yield "its last byte is cut off", content[:-1]
    yield "its second half is cut off", content[: len(content) // 2]
    yield "it is empty", b""
    yield "it is gone", None


def flips(work, folder):
    """Damage each file of the newest checkpoint in turn, and continue: yields the faults."""
    whole, newest = unfinished(work, folder)
    for name, content in read_tree(newest).items():
        for words, damaged in damages(content):
            with damaged_run(folder, whole, [newest.name, name], damaged) as place:
                ended = run(work, place)
                noticed = newest.name in ended.text and "damaged" in ended.text
                faults = [] if noticed else ["not told"]
                faults += [f"exit code {ended.code}: {ended.text}"] if ended.code else []
                faults += [] if ended.code else work.differences(place, aside=newest.name)
            yield [f"{name}: {words}: {fault}" for fault in faults]


def flips_of_run(work, folder):
    """Damage each other file of a run in turn, and continue: yields the faults.

    The run continues, and says so if its log is damaged, or it ends in one line.
    """
    whole, newest = unfinished(work, folder)
    for name, content in read_tree(newest.parent).items():
        for words, damaged in damages(content) if isinstance(content, bytes) and content else ():
            with damaged_run(folder, whole, [name], damaged) as place:
                ended = run(work, place)
                if ended.code:
                    faults = after_fault(work, place, ended, removable=False)
                    faults = [fault for fault in faults if not fault.endswith(f"{name} is empty")]
                elif name == "log.jsonl":
                    faults = (
                        [] if "log.jsonl is not what was written" in ended.text else ["not told"]
                    )
                else:
                    faults = list(work.differences(place))
            yield [f"{name}: {words}: {fault}" for fault in faults]


def unfinished(work, folder):
    """A run that was killed after its last checkpoint, and that checkpoint."""
    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    ended = run(work, whole, KilledAt(whole, work.LAST))
    assert ended.killed, ended.text
    run_folder = whole / "runs" / "x"
    return whole, max(path for path in run_folder.iterdir() if "checkpoint" in path.name)


@contextmanager
def damaged_run(folder, whole, names, content):
    """A copy of an unfinished run in which a file has another content; None: it is gone."""
    tree = read_tree(whole)
    files = tree["runs"]["x"]
    for name in names[:-1]:
        files = files[name]
    files[names[-1]] = content
    if content is None:
        del files[names[-1]]
    place = folder / "damaged"
    write_tree(tree, place)
    yield place
    shutil.rmtree(place)
