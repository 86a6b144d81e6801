"""Direct files: large arrays go to the disk from where they are.

Why
    Usually the operating system copies what is written into its page cache, which costs a core
    0.3 s a GB, and later writes it from there.  A checkpoint is written while the cores train, and
    nobody reads it soon.  So its numbers pass the cache by (O_DIRECT): the disk fetches them from
    the array itself, and takes 0.01 s a GB of a core.

    For this the bytes must begin at a multiple of BLOCK, in memory and in the file, and end at
    one.  `flat_zeros` (backend) makes such arrays.  What is small, or begins elsewhere, is copied
    into a buffer that begins right, and goes to the disk from there.

Some file systems know no such writes.  There, and for the last bytes of each file, the system
copies as usual.  Either way fsync must follow: the disk has a cache of its own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from io import FileIO
from mmap import mmap
from pathlib import Path

import numpy as np

from minigpt2.backend import PAGE
from minigpt2.outputs import fcntl

BLOCK = PAGE  # bytes; no disk's blocks are larger
BUFFER = 1 << 18  # bytes: they stay in a core's L2
SMALL = 1 << 17  # bytes that are sooner copied than written alone
DIRECT = getattr(os, "O_DIRECT", 0)


@contextmanager
def direct_file(path: Path) -> Iterator["DirectWriter"]:
    """Yield what writes a file from its beginning to its end; a file that exists is written over.

    Raises OSError as the system does.
    """
    with open(path, "wb", buffering=0, opener=open_direct) as file:
        writer = DirectWriter(file)
        yield writer
        writer.finish()


class DirectWriter:
    """Writes a file, without a copy by the operating system where that is possible."""

    def __init__(self, file: FileIO):
        self._file = file
        self._buffer = np.frombuffer(mmap(-1, BUFFER), np.uint8)  # it begins at a page
        self._filled = 0  # bytes of it, which follow those in the file

    def write(self, contents: np.ndarray) -> None:
        """Write bytes (n,) behind those before; they may change when this returns."""
        while len(contents):
            gap = -self._filled % BLOCK  # to where the file's next block begins
            rest = contents[gap:]
            if len(rest) >= SMALL and rest.ctypes.data % BLOCK == 0:
                self._copy(contents[:gap])
                self._empty_buffer()
                whole = len(rest) - len(rest) % BLOCK
                self._put(rest[:whole])
                contents = rest[whole:]
            else:
                room = BUFFER - self._filled
                self._copy(contents[:room])
                contents = contents[room:]
                if self._filled == BUFFER:
                    self._empty_buffer()

    def _copy(self, contents: np.ndarray) -> None:
        """Copy bytes to the end of the buffer, which has room for them."""
        stop = self._filled + len(contents)
        self._buffer[self._filled : stop] = contents
        self._filled = stop

    def finish(self) -> None:
        """Write what is in the buffer: the end of the file."""
        self._empty_buffer()
        if self._filled:
            use_cache(self._file)
            self._put(self._buffer[: self._filled])

    def _empty_buffer(self) -> None:
        """Write the blocks that are whole in the buffer; what is behind them stays."""
        whole = self._filled - self._filled % BLOCK
        self._put(self._buffer[:whole])
        self._buffer[: self._filled - whole] = self._buffer[whole : self._filled]
        self._filled -= whole

    def _put(self, contents: np.ndarray) -> None:
        """Write bytes at the file's end, all of them."""
        while len(contents):
            try:
                contents = contents[self._file.write(contents.data) :]
            except OSError as error:
                if error.errno != EINVAL or not use_cache(self._file):
                    raise


def open_direct(path: str, flags: int) -> int:
    """Open a file whose writes pass the cache by, where that is possible: an `opener` of `open`."""
    try:
        return os.open(path, flags | DIRECT, 0o666)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        return os.open(path, flags, 0o666)


def use_cache(file: FileIO) -> bool:
    """Let the operating system copy what is written from here on; return whether it did not."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL) if DIRECT else 0
    if flags & DIRECT:
        fcntl.fcntl(file, fcntl.F_SETFL, flags & ~DIRECT)
    return bool(flags & DIRECT)
