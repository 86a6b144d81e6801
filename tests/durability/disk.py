"""Disk: what a folder holds after a power cut, simulated from the calls that wrote it.

The model is the weakest that file systems are known to keep (Pillai et al., All File Systems Are
Not Created Equal, OSDI 2014).  Data of a file are on the disk up to its last fsync.  Names in a
folder are on the disk up to the folder's last fsync.  Of what came later, everything, nothing or a
part may be there, and a file may have its new size but zeros in it.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.durability.calls import Call, Watch


@dataclass(eq=False)
class File:
    """A file: its bytes as the program sees them, and those that are surely on the disk."""

    now: bytes = b""
    safe: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder: its entries by name, those that are surely on the disk, and what came since."""

    now: dict = field(default_factory=dict)
    safe: dict = field(default_factory=dict)
    pending: list = field(default_factory=list)  # (name, entry or None), in order, by call

    def set(self, *changes):
        """Change entries in one call: name -> File or Folder, or None for no longer there."""
        self.pending.append(changes)
        self.now = applied(self.now, [changes])


def applied(entries, calls):
    """Entries after calls that changed them."""
    entries = dict(entries)
    for changes in calls:
        for name, entry in changes:
            entries.pop(name, None)
            if entry is not None:
                entries[name] = entry
    return entries


def kept_size(safe, now):
    """What a file has if its new size is on the disk, and the data that are not safe are not."""
    same = len(safe) if now.startswith(safe) else 0
    return now[:same] + bytes(len(now) - same)


class Relied(NamedTuple):
    """From here on the program relies on what it wrote to `path`."""

    path: str


class Disk:
    """A folder `root` that was empty, after some of the calls that wrote it."""

    def __init__(self, root):
        self.root = root
        self.top = Folder()

    def at(self, path):
        """The file or folder of this name."""
        entry = self.top
        for name in self.parts(path):
            entry = entry.now[name]
        return entry

    def parts(self, path):
        """The names below the root that lead to a path."""
        return [] if path == self.root else os.path.relpath(path, self.root).split(os.sep)

    def above(self, path):
        """The folder that a name is in, and the name there."""
        return self.at(os.path.dirname(path)), os.path.basename(path)

    def do(self, call):
        """Do a call, as the program sees it."""
        getattr(self, f"_{call.name}")(call)

    def _create(self, call):
        folder, name = self.above(call.path)
        folder.set((name, File()))

    def _mkdir(self, call):
        folder, name = self.above(call.path)
        folder.set((name, Folder()))

    def _unlink(self, call):
        folder, name = self.above(call.path)
        folder.set((name, None))

    _rmdir = _unlink

    def _link(self, call):
        folder, name = self.above(call.target)
        folder.set((name, self.at(call.path)))

    def _rename(self, call):
        entry = self.at(call.path)
        (source, old), (target, new) = self.above(call.path), self.above(call.target)
        if source is target:
            source.set((old, None), (new, entry))
        else:
            target.set((new, entry))
            source.set((old, None))

    def _write(self, call):
        file = self.at(call.path)
        start = file.now[: call.offset].ljust(call.offset, b"\0")
        file.now = start + call.data + file.now[call.offset + len(call.data) :]

    def _truncate(self, call):
        file = self.at(call.path)
        file.now = file.now[: call.offset].ljust(call.offset, b"\0")

    def _fsync(self, call):
        entry = self.at(call.path)
        entry.safe = entry.now
        if isinstance(entry, Folder):
            entry.pending = []

    def pending(self):
        """The files and folders that are not, or not in this form, surely on the disk."""
        files, folders, seen = [], [], set()

        def visit(entry):
            if id(entry) in seen:
                return
            seen.add(id(entry))
            if isinstance(entry, File):
                if entry.now is not entry.safe and entry.now != entry.safe:
                    files.append(entry)
                return
            if entry.pending:
                folders.append(entry)
            for inner in [*entry.safe.values(), *entry.now.values()]:
                visit(inner)
            for changes in entry.pending:
                for _, inner in changes:
                    if inner is not None:
                        visit(inner)

        visit(self.top)
        return files, folders

    def tree(self, contents=None, entries=None):
        """What is there, as the program sees it, or with other contents and other entries.

        `contents(file)` are the bytes of a file, `entries(folder)` the entries of a folder.
        """

        def grow(entry):
            if isinstance(entry, File):
                return entry.now if contents is None else contents(entry)
            inner = entry.now if entries is None else entries(entry)
            return {name: grow(inner[name]) for name in sorted(inner)}

        return grow(self.top)

    def survivors(self):
        """What a power cut may leave, in many ways: (what is kept, tree)."""
        files, folders = self.pending()
        if not files and not folders:
            yield "everything", self.tree()
            return
        for label, entries in self.kept_names(folders):
            for words, contents in self.kept_data(files):
                yield f"{label}, {words}", self.tree(contents, entries)

    @staticmethod
    def kept_names(folders):
        """Which names survive: (label, entries of a folder)."""

        def but(some, chosen, others):
            return lambda folder: chosen if folder is some else getattr(folder, others)

        yield "all names", lambda folder: folder.now
        if not folders:
            return
        yield "no names", lambda folder: folder.safe
        for i, folder in enumerate(folders):
            if len(folders) > 1:
                yield f"names of folder {i} alone", but(folder, folder.now, "safe")
                yield f"names but of folder {i}", but(folder, folder.safe, "now")
            calls = folder.pending
            for k in range(len(calls)) if len(calls) > 1 else []:
                for others in ("safe", "now"):
                    first = applied(folder.safe, calls[: k + 1])
                    without = applied(folder.safe, calls[:k] + calls[k + 1 :])
                    yield f"{k + 1} names of folder {i}", but(folder, first, others)
                    yield f"names but {k} of folder {i}", but(folder, without, others)
                    alone = applied(folder.safe, [calls[k]])
                    yield f"name {k} alone of folder {i}", but(folder, alone, others)

    @staticmethod
    def kept_data(files):
        """Which data survive: (label, contents of a file)."""

        def but(some, chosen, others):
            return lambda file: chosen if file is some else getattr(file, others)

        yield "all data", lambda file: file.now
        if not files:
            return
        yield "no data", lambda file: file.safe
        yield "zeros", lambda file: kept_size(file.safe, file.now)
        for i, file in enumerate(files):
            half = file.now[: (len(file.safe) + len(file.now)) // 2]
            yield f"half of file {i}", but(file, half, "now")
            if len(files) > 1:
                yield f"data but of file {i}", but(file, file.safe, "now")
                yield f"data of file {i} alone", but(file, file.now, "safe")


class Recorder(Watch):
    """Records all calls that change a folder, which is empty at first."""

    def __init__(self, root):
        super().__init__(root)
        self.calls: list[Call | Relied] = []

    def after(self, call):
        self.calls.append(call)

    def relies_on(self, path):
        """From here on the program relies on what it wrote to `path`."""
        with self.lock:
            self.calls.append(Relied(os.path.realpath(path)))


def read_tree(folder):
    """What a folder holds on the real disk, in the form of Disk.tree."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return {
        entry.name: read_tree(entry.path) if entry.is_dir() else Path(entry.path).read_bytes()
        for entry in entries
    }


def write_tree(tree, folder):
    """Write a tree as files and folders."""
    os.mkdir(folder)
    for name, content in tree.items():
        path = os.path.join(folder, name)
        if isinstance(content, dict):
            write_tree(content, path)
        else:
            with open(path, "wb") as file:
                file.write(content)
