"""Durable folders: folders that appear whole and disappear whole, whenever the power fails.

A new folder is written under a hidden name.  Its files and its folders are fsynced, it is renamed,
and the folder above is fsynced:

    files, fsync each  ->  fsync the folder  ->  rename  ->  fsync the folder above

Without the first two, the new name may reach the disk before the data, and name a folder of empty
files; without the last, a power cut may take the name back after the program has relied on it.
A folder is removed in the other direction: it is renamed to a hidden name, the folder above is
fsynced, and then its files go.  So a name that is not hidden is that of a whole folder, always.
A run that was killed leaves hidden names; `remove_leftovers` removes them.

No software can promise more than the disk: one that reports an fsync as done, and has not done
it, loses what was written in a power cut.

Source: T. S. Pillai et al., All File Systems Are Not Created Equal (OSDI 2014), for the orders in
which file systems write what was not fsynced.
"""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOTDIR
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from minigpt2.errors import UserError
from minigpt2.outputs import exists, fcntl, fsync_file, fsync_folder, hidden_name, naming

LOCK = "lock"
OWNER = b"process "  # what the file of a lock begins with
HIDDEN = re.compile(r"\.[0-9a-f]{32}(\..{0,7})?")  # a name that hidden_name makes


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield the hidden folder to fill; in the end it becomes `path`, on the disk.

    If the block fails, nothing is left.  Raises UserError if the folder cannot be written, or
    exists.
    """
    hidden = hidden_name(path)
    try:
        with naming(path):
            make_folder(path.parent)
            os.mkdir(hidden)
            yield hidden
            publish(hidden, path)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def publish(hidden: Path, path: Path) -> None:
    """Fsync a folder and all that is in it, and give it the name `path`, on the disk.

    Raises FileExistsError if something has this name, OSError if something cannot be written.
    """
    fsync_tree(hidden)
    if exists(path):
        raise FileExistsError
    os.rename(hidden, path)
    fsync_folder(path.parent)


def fsync_tree(folder: Path) -> None:
    """Fsync a folder, and all files and folders in it.  Raises OSError if that fails."""

    def fail(error: OSError) -> NoReturn:
        raise error

    for above, _, names in os.walk(folder, topdown=False, onerror=fail):
        for name in names:
            fsync_file(Path(above, name))
        fsync_folder(Path(above))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they exist; their names are on the disk.

    Raises OSError if that fails.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        os.mkdir(path)
    except FileExistsError:  # another process has just made it
        if not path.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR)) from None
    fsync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder and all that is in it: `path` names the whole folder, or none.

    Raises UserError if it cannot be removed.
    """
    hidden = hidden_name(path)
    with naming(path):
        os.rename(path, hidden)
        fsync_folder(path.parent)
        shutil.rmtree(hidden)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the hidden files and folders that a killed run left in a folder; return their names.

    The caller holds the folder's lock: those of a live run look the same.  Raises UserError if
    one cannot be removed.
    """
    with naming(folder):
        names = sorted(name for name in os.listdir(folder) if HIDDEN.fullmatch(name))
    for name in names:
        path = folder / name
        with naming(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                os.unlink(path)
    return names


def is_leftover(path: Path) -> bool:
    """Whether a file is one that a run leaves which is killed before it begins."""
    if path.name == LOCK:
        return path.is_file() and OWNER.startswith(path.read_bytes()[: len(OWNER)])
    return HIDDEN.fullmatch(path.name) is not None


def open_no_link(path: str, flags: int) -> int:
    """Open a file in which a run continues to write: the `opener` of `open`.

    Raises OSError for a link, which in a folder of somebody else could lead to any file of ours.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


class FolderLock:
    """A context that only one process at a time can enter for a folder, which must exist.

    The operating system keeps the lock, and opens it when the process ends, however it ends: the
    file that stays locks nothing by itself.  It says who holds the lock.  Where there is no such
    lock, on Windows and on some network file systems, anybody can enter.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._file: TextIOWrapper | None = None

    def __enter__(self) -> "FolderLock":
        """Take the lock.  Raises UserError if another process holds it, or it cannot be written."""
        path = self.folder / LOCK
        with naming(path):
            self._file = open(path, "a+", encoding="utf-8", errors="replace", opener=open_no_link)
            try:
                self._lock()
                self._file.truncate(0)
                self._file.write(f"{OWNER.decode()}{os.getpid()} on {socket.gethostname()}\n")
                self._file.flush()
            except OSError:
                os.unlink(path)  # an empty file of a full disk
                self._close()
                raise
            self._stat = os.stat(self.folder)
        return self

    def require(self) -> None:
        """Raise UserError unless the folder is still there, and nobody else writes it.

        If the file of the lock was removed, the folder is locked again.
        """
        assert self._file
        if is_file(self.folder / LOCK, os.fstat(self._file.fileno())):
            return
        self.require_folder()
        self._close()
        self.__enter__()

    def require_folder(self) -> None:
        """Raise UserError unless the folder is still where it was locked."""
        if not is_file(self.folder, self._stat):
            raise UserError(
                f"{self.folder} was moved or removed while the run wrote it: put it back, and "
                "continue with --resume"
            )

    def _lock(self) -> None:
        """Lock the file, if that is possible here.  Raises UserError if another process does."""
        assert self._file
        try:
            if fcntl:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read(100).strip() or "another process"
            self._close()
            raise UserError(
                f"{self.folder} is in use: {owner} is writing it; choose another folder, or wait"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _close(self) -> None:
        """Close the file, which unlocks it, whatever was not written."""
        if self._file:
            with suppress(OSError):
                self._file.close()
        self._file = None

    def __exit__(self, *exception: object) -> None:
        """Let other processes enter."""
        self._close()


def is_file(path: Path, stat: os.stat_result) -> bool:
    """Whether a path names the file or the folder that has a stat."""
    try:
        return os.path.samestat(os.stat(path), stat)
    except (FileNotFoundError, NotADirectoryError):
        return False
