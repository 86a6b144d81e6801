"""Power cuts: after each call of a run, everything that a power cut may leave must be usable.

Four promises are held against each such state.
1. A name that is not hidden and was given in one move (a checkpoint, run.json) is that of a
   whole: its content is one that the program gave this name, byte for byte.
2. What the program has relied on is there, unless it has begun to remove it: a checkpoint whose
   saving has returned.
3. When a checkpoint has been relied on, there is always one.
4. A log has at least the lines that a checkpoint that is there was saved with: `log_bytes` in its
   state.json, or all that it had when the checkpoint was named.
"""

import json
import os
import re
from typing import NamedTuple

from minigpt2.durable import HIDDEN
from tests.durability.calls import Call
from tests.durability.disk import Disk, File, Relied

CHECKPOINT = re.compile(r"checkpoint-\d+(-\d+)?")


class Violation(NamedTuple):
    """A promise that is broken by a power cut after call number `after`."""

    after: int
    survives: str
    fault: str


class Promises:
    """What the program has promised so far, path by path."""

    def __init__(self, disk):
        self.disk = disk
        self.given = {}  # path -> contents that it was given in one move, the newest last
        self.relied = {}  # path -> index of the oldest content that may be there
        self.checkpoint = False
        self.logs = {}  # path of a checkpoint -> the logs next to it: path -> content

    def do(self, call):
        """Take note of a call that was done."""
        if isinstance(call, Relied):
            given = self.given.setdefault(call.path, [tree_of(self.disk.at(call.path))])
            self.relied[call.path] = len(given) - 1
            self.checkpoint |= bool(CHECKPOINT.fullmatch(os.path.basename(call.path)))
        elif call.name in ("link", "rename") and self.is_hidden(call.path):
            folder = os.path.dirname(call.target)
            if not self.is_hidden(folder):
                # A file that is replaced in a checkpoint makes another whole checkpoint of it.
                inside = CHECKPOINT.fullmatch(os.path.basename(folder))
                self.give(folder if inside else call.target)
        elif call.name in ("rename", "unlink") and not self.is_hidden(call.path):
            self.relied.pop(call.path, None)

    def give(self, path):
        """What a path holds now is one of the contents that were given to it in one move."""
        content = tree_of(self.disk.at(path))
        self.given.setdefault(path, []).append(content)
        self.logs[path] = self.logs_next_to(path, content)

    def logs_next_to(self, path, content):
        """The lines of the logs of a checkpoint's run that belong to it, if it is one.

        While a checkpoint is written in the background, the run may log its next steps.
        """
        if not CHECKPOINT.fullmatch(os.path.basename(path)):
            return {}
        folder = os.path.dirname(path)
        entries = {os.path.join(folder, n): e for n, e in self.disk.at(folder).now.items()}
        size = log_bytes(content.get("state.json", b""))
        return {p: e.now[:size] for p, e in entries.items() if p.endswith(".jsonl")}

    def is_hidden(self, path):
        """Whether one of the names of a path is a hidden one."""
        return any(HIDDEN.fullmatch(name) for name in self.disk.parts(path))

    def faults(self, tree):
        """The promises that a tree breaks."""
        seen, checkpoint = set(), False
        for path, content in self.visible(self.disk.root, tree):
            seen.add(path)
            name = os.path.basename(path)
            checkpoint |= bool(CHECKPOINT.fullmatch(name))
            oldest = self.relied.get(path, 0)
            if content not in self.given.get(path, [])[oldest:]:
                yield f"{name} is not whole, or an old one"
            for log, lines in self.logs.get(path, {}).items():
                if not content_at(tree, self.disk.parts(log)).startswith(lines):
                    yield f"{os.path.basename(log)} is shorter than {name} says"
        for path in self.relied.keys() - seen:
            yield f"{os.path.basename(path)} is lost"
        if self.checkpoint and not checkpoint:
            yield "no checkpoint is left"

    def visible(self, path, tree):
        """(path, content) of what was given in one move, and of every checkpoint."""
        for name, content in tree.items():
            inner = os.path.join(path, name)
            if inner in self.given or CHECKPOINT.fullmatch(name):
                yield inner, content
            elif isinstance(content, dict) and not HIDDEN.fullmatch(name):
                yield from self.visible(inner, content)


def log_bytes(state):
    """The bytes of the log that belong to a checkpoint; None for those of the program `direct`."""
    return json.loads(state)["notes"]["log_bytes"] if state.startswith(b"{") else None


def content_at(tree, parts):
    """The content of a file in a tree; nothing if it is not there."""
    for name in parts:
        tree = tree.get(name, b"") if isinstance(tree, dict) else b""
    return tree


def tree_of(entry):
    """The content of a file or a folder, as the program sees it."""
    if isinstance(entry, File):
        return entry.now
    return {name: tree_of(entry.now[name]) for name in sorted(entry.now)}


def cuts(calls, root, start=0):
    """What a power cut after each call, from call `start`, may leave.

    Yields the number of the call, what survives, the tree, and what was promised.
    """
    disk = Disk(root)
    promises = Promises(disk)
    for number, call in enumerate(calls):
        if isinstance(call, Call):
            disk.do(call)
        promises.do(call)
        if number >= start:
            for label, tree in disk.survivors():
                yield number, label, tree, promises


def violations(calls, root, start=0):
    """The promises that power cuts break after each call, from call `start`."""
    for number, label, tree, promises in cuts(calls, root, start):
        for fault in promises.faults(tree):
            yield Violation(number, label, fault)


def omissions(calls, root):
    """Leave out each fsync in turn: (the fsync, the first promise that is broken, or None).

    An fsync that has nothing to do is none of them.
    """
    disk = Disk(root)
    for i, call in enumerate(calls):
        if not isinstance(call, Call):
            continue
        if call.name == "fsync":
            entry = disk.at(call.path)
            if entry.now != entry.safe if isinstance(entry, File) else entry.pending:
                without = calls[:i] + calls[i + 1 :]
                yield call, next(violations(without, root, start=i), None)
        disk.do(call)
