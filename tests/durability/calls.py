"""Calls: every call that changes a folder on the disk, watched one by one."""

import builtins
import io
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import RLock
from typing import NamedTuple
from unittest.mock import patch


class Call(NamedTuple):
    """A call that changes the disk; names are absolute."""

    name: str  # create, truncate, write, fsync, mkdir, rename, link, unlink or rmdir
    path: str
    target: str = ""  # of a rename or a link
    offset: int = 0  # of a write; of a truncate, the size
    data: bytes = b""


def place(path, dir_fd=None):
    """The absolute name of a path, or of an open file."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    above = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd()
    return os.path.normpath(os.path.join(above, os.fsdecode(path)))


class Watched(io.FileIO):
    """A file that was opened for writing; each of its writes is one system call."""

    def __init__(self, file, mode, *, watch, closefd=True, opener=None):
        existed = isinstance(file, int) or os.path.exists(file)
        self.watch = watch

        def make():
            super(Watched, self).__init__(file, mode, closefd, opener)

        if opener:  # it calls os.open, which is watched
            make()
        elif existed and "w" in mode:
            watch.call(Call("truncate", place(file)), make)
        elif existed:
            make()
        else:
            watch.call(Call("create", place(file)), make)

    def write(self, data):
        data = bytes(data)
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        write = super().write
        call = Call("write", place(self.fileno()), offset=offset, data=data)
        return self.watch.call(call, lambda: write(data), lambda: write(data[: len(data) // 2]))

    def truncate(self, size=None):
        size = self.tell() if size is None else size
        truncate = super().truncate
        call = Call("truncate", place(self.fileno()), offset=size)
        return self.watch.call(call, lambda: truncate(size))


class Watch(ExitStack):
    """A context in which all calls that change `root` go through the methods of this object.

    `before` may raise, or end the process, in place of the call; `after` knows that it was done.
    """

    def __init__(self, root):
        super().__init__()
        self.root = os.path.realpath(root)
        self.lock = RLock()  # calls of several threads come one after the other

    def before(self, call: Call, half: Callable | None) -> int | None:
        """A call is about to be done; `half` does half of a write, and returns its size.

        What this returns, unless it is None, is the result in place of the call's.
        """

    def after(self, call: Call) -> None:
        """A call was done; of a write, all of `data` was written."""

    def call(self, call, act, half=None):
        """Do a call."""
        inside = [path for path in (call.path, call.target) if self.holds(path)]
        if not inside or call.path.endswith(" (deleted)"):
            return act()
        with self.lock:
            result = self.before(call, half)
            if result is None:
                result = act()
            if call.name == "write":
                call = call._replace(data=call.data[:result])
            self.after(call)
            return result

    def holds(self, path):
        """Whether a path is in the folder that is watched."""
        return path.startswith(self.root + os.sep) or path == self.root

    def __enter__(self):
        names = ("mkdir", "unlink", "remove", "rmdir", "rename", "replace", "link", "fsync")
        names += ("open", "write", "pwrite", "ftruncate", "fdatasync")
        for name in names:
            real = getattr(os, name)
            self.enter_context(patch.object(os, name, getattr(self, f"_{name}")(real)))
        for name in ("truncate", "symlink", "sendfile", "copy_file_range", "writev", "mknod"):
            self.enter_context(patch.object(os, name, self._refuse(name)))
        raw = partial(Watched, watch=self)  # a module that opens without buffers and Python's open
        self.enter_context(patch("minigpt2.reports.run_log.FileIO", raw))
        opening = self._opening(open)
        for module in (builtins, io):
            self.enter_context(patch.object(module, "open", opening))
        return self

    def _refuse(self, name):
        def refuse(*arguments, **options):
            raise AssertionError(f"os.{name} is not simulated")

        return refuse

    def _simple(self, name, real):
        def simple(path, *arguments, dir_fd=None, **options):
            call = Call(name, place(path, dir_fd))
            if dir_fd is not None:
                options["dir_fd"] = dir_fd
            return self.call(call, lambda: real(path, *arguments, **options))

        return simple

    def _mkdir(self, real):
        return self._simple("mkdir", real)

    def _unlink(self, real):
        return self._simple("unlink", real)

    def _remove(self, real):
        return self._simple("unlink", real)

    def _rmdir(self, real):
        return self._simple("rmdir", real)

    def _fsync(self, real):
        return self._simple("fsync", real)

    def _fdatasync(self, real):
        return self._simple("fsync", real)

    def _pair(self, name, real):
        def pair(path, target, **options):
            assert not options
            return self.call(Call(name, place(path), place(target)), lambda: real(path, target))

        return pair

    def _rename(self, real):
        return self._pair("rename", real)

    def _replace(self, real):
        return self._pair("rename", real)

    def _link(self, real):
        return self._pair("link", real)

    def _open(self, real):
        def opening(path, flags, mode=0o777, *, dir_fd=None):
            def act():
                return real(path, flags, mode, dir_fd=dir_fd)

            name = place(path, dir_fd)
            if flags & os.O_CREAT and not os.path.lexists(name):
                return self.call(Call("create", name), act)
            if flags & os.O_TRUNC:
                return self.call(Call("truncate", name), act)
            return act()

        return opening

    def _write(self, real):
        def write(file, data):
            data = bytes(data)
            offset = os.lseek(file, 0, os.SEEK_CUR) if self.holds(place(file)) else 0
            call = Call("write", place(file), offset=offset, data=data)
            half = data[: len(data) // 2]
            return self.call(call, lambda: real(file, data), lambda: real(file, half))

        return write

    def _pwrite(self, real):
        def write(file, data, offset):
            data = bytes(data)
            call = Call("write", place(file), offset=offset, data=data)
            half = data[: len(data) // 2]
            return self.call(
                call, lambda: real(file, data, offset), lambda: real(file, half, offset)
            )

        return write

    def _ftruncate(self, real):
        def truncate(file, size):
            call = Call("truncate", place(file), offset=size)
            return self.call(call, lambda: real(file, size))

        return truncate

    def _opening(self, real):
        def opening(
            file,
            mode="r",
            buffering=-1,
            encoding=None,
            errors=None,
            newline=None,
            closefd=True,
            opener=None,
        ):
            if not set("wax+") & set(mode) or not self.holds(place(file)):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = Watched(
                file, re.sub("[bt]", "", mode), watch=self, closefd=closefd, opener=opener
            )
            if buffering == 0:
                return raw
            wrapper = io.BufferedRandom if "+" in mode else io.BufferedWriter
            buffer = wrapper(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
            if "b" in mode:
                return buffer
            return io.TextIOWrapper(buffer, encoding, errors, newline, buffering == 1)

        return opening
