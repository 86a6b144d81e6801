"""Outputs: the files and folders that a command writes, each of them whole or not at all.

Before the work begins, `require_new_file` and `require_new_folder` refuse a place that cannot be
written.  Afterwards the contents go to a hidden name next to their place, which becomes the real
name when all is on the disk.  So neither a full disk nor a crash nor a power cut leaves half of a
file, and no error comes without the name of its file.

A write only hands data to the operating system, which puts it on the disk when it likes, and a
name may get there before its data.  fsync waits until the data of a file are on the disk, or the
names that a folder holds: each needs its own.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from errno import EDQUOT, EINVAL, EIO, EISDIR, ENOSPC, ENOTSUP, ENOTTY, EOPNOTSUPP, EROFS
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

from minigpt2.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    fcntl = None  # type: ignore[assignment]

REMEDIES = {
    ENOSPC: "; free some space on its disk",
    EDQUOT: "; remove some of your files there",
    EROFS: "; choose a place that can be written",
    EIO: "; its disk may be failing: check it, or choose another",
}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, in which `path` is written, into a UserError that names it."""
    try:
        yield
    except FileExistsError:
        raise UserError(f"{path} exists already: choose another name, or move it") from None
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "")
        raise UserError(f"{path} cannot be written: {error.strerror or error}{remedy}") from None


def require_new_file(path: Path | None, option: str) -> None:
    """Raise UserError unless the file that an option names can be made: it must not exist yet."""
    if path is None:
        return
    if exists(path):
        raise UserError(f"{path} exists already: choose another {option}, or move it")
    if not path.parent.is_dir():
        raise UserError(
            f"{path} cannot be written: there is no folder {path.parent}; make it, or choose "
            f"another {option}"
        )
    with naming(path):
        try_writing(path.parent)


def require_new_folder(
    path: Path, option: str, ignore: Callable[[Path], bool] = lambda file: False
) -> None:
    """Raise UserError unless the folder that an option names can be made, or is an empty one.

    `ignore` says of a file whether the folder counts as empty with it.
    """
    if exists(path):
        if not path.is_dir():
            what = "a file" if path.exists() else "a link that leads nowhere"
            text = f"{path} cannot be made: it is {what}; choose another {option}, or move it"
            raise UserError(text)
        with naming(path):
            if not all(map(ignore, path.iterdir())):
                text = f"{path} already holds something: choose another {option}, or move it"
                raise UserError(text)
        above = path
    else:
        above = next(folder for folder in path.absolute().parents if exists(folder))
    if not above.is_dir():
        raise UserError(f"{path} cannot be made: {above} is a file; choose another {option}")
    with naming(path):
        try_writing(above)


def try_writing(folder: Path) -> None:
    """Raise OSError unless a file can be made in a folder."""
    if hasattr(os, "O_TMPFILE"):
        try:  # a file without a name, so that a kill leaves none
            return os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
        except OSError as error:
            if error.errno not in (EISDIR, EOPNOTSUPP):  # an old kernel, some file systems
                raise
    hidden = hidden_name(folder / "new")
    hidden.touch()
    hidden.unlink()


def exists(path: Path) -> bool:
    """Whether something has this name, if only a link.  Raises UserError for an impossible name."""
    with naming(path):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except ValueError as error:  # a zero byte
            raise OSError(str(error)) from None
        return True


def hidden_name(path: Path) -> Path:
    """Return a free name next to a path, with the same ending."""
    return path.with_name(f".{uuid4().hex}{path.suffix[:8]}")


def fsync_file(path: Path) -> None:
    """Wait until what was written into a file is on the disk.

    Raises OSError if it is not.  Then it never will be, even if a second fsync succeeds: the
    operating system may have dropped the data.
    """
    file = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        fsync(file)
    finally:
        os.close(file)


def fsync(file: int) -> None:
    """Wait until what was written into an open file is on the disk; raises OSError if it is not.

    On macOS fsync only waits until the disk has the data in its cache, which a power cut empties;
    another call waits for the disk, where its file system knows that call.
    """
    whole = getattr(fcntl, "F_FULLFSYNC", None)
    if whole is not None:
        try:
            fcntl.fcntl(file, whole)
            return
        except OSError as error:
            if error.errno not in (EINVAL, ENOTSUP, ENOTTY, EOPNOTSUPP):
                raise
    os.fsync(file)


def fsync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk.  Raises OSError if they are not."""
    if os.name != "posix":  # Windows opens no folder
        return
    try:
        fsync_file(path)
    except OSError as error:
        if error.errno != EINVAL:  # some network file systems know no such thing
            raise


@contextmanager
def whole_file(path: Path, *, replace: bool = False, hidden: Path | None = None) -> Iterator[Path]:
    """Yield the name under which to write a file; in the end it becomes `path`, on the disk.

    It is `hidden`, or one next to the path.  If the block fails, nothing has changed.  Raises
    UserError if the file cannot be written, or if it exists, unless it is to be replaced.
    """
    hidden = hidden or hidden_name(path)
    try:
        with naming(path):
            if exists(path) and not replace:
                raise FileExistsError
            yield hidden
            fsync_file(hidden)
            if replace:
                os.replace(hidden, path)
            else:
                put_in_place(hidden, path)
            fsync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(hidden)
        raise


def put_in_place(hidden: Path, path: Path) -> None:
    """Give a hidden file its name.  Raises FileExistsError if something has this name."""
    try:
        os.link(hidden, path)  # unlike a renaming, it spares a file that has come meanwhile
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if exists(path):
            raise FileExistsError from None
        os.rename(hidden, path)
    else:
        os.unlink(hidden)


def json_text(content: Any, indent: int | None = None, *, ascii_only: bool = False) -> str:
    """Return a value as JSON, on one line without an indent; other characters may be escaped.

    What JSON does not have becomes what it has: a path a text; NaN and infinities null.
    """

    def finite(value: Any) -> Any:
        if isinstance(value, float):
            return value if isfinite(value) else None
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        return [finite(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(finite(content), indent=indent, ensure_ascii=ascii_only, default=str)


def as_options(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as the words of a command line, quoted for a shell.

    >>> as_options({"out": "my run", "batch_size": 4, "recompute": True})
    ['--out', "'my run'", '--batch-size', '4', '--recompute', 'true']
    """
    words = []
    for name, value in settings.items():
        text = str(value) if isinstance(value, str | Path) else json_text(value)
        words += [f"--{name.replace('_', '-')}", shlex.quote(text)]
    return words


def write_texts(texts: Mapping[Path, str], *, replace: bool = False) -> None:
    """Write files, all of them or none; half a character becomes its code.

    Raises UserError if a file cannot be written, or if it exists, unless it is to be replaced.
    """
    with ExitStack() as files:
        for path, text in texts.items():
            hidden = files.enter_context(whole_file(path, replace=replace))
            hidden.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, content: Any, *, replace: bool = False) -> None:
    """Write a JSON file.  Raises UserError as write_texts does."""
    write_texts({path: json_text(content, indent=2) + "\n"}, replace=replace)
