"""Flips: what a disk damages after it was written is noticed, and the checkpoint before is used."""

import os
import shutil
import signal

from tests.durability.calls import Watch
from tests.durability.child import run
from tests.durability.disk import read_tree, write_tree

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
    whole = folder / "whole"
    whole.mkdir()
    ended = run(work, whole, KilledAt(whole, work.LAST))
    assert ended.killed, ended.text
    newest = max(path for path in (whole / "runs" / "x").iterdir() if "checkpoint" in path.name)
    for name, content in read_tree(newest).items():
        for words, damaged in damages(content):
            tree = read_tree(whole)
            files = tree["runs"]["x"][newest.name]
            if damaged is None:
                del files[name]
            else:
                files[name] = damaged
            place = folder / "damaged"
            write_tree(tree, place)
            ended = run(work, place)
            faults = [] if newest.name in ended.text and "damaged" in ended.text else ["not told"]
            faults += [f"exit code {ended.code}: {ended.text}"] if ended.code else []
            faults += [] if ended.code else work.differences(place, aside=newest.name)
            yield [f"{name}: {words}: {fault}" for fault in faults]
            shutil.rmtree(place)
