"""Outputs: the files and folders that a command writes, each of them whole or not at all.

Before the work begins, `require_new_file` and `require_new_folder` refuse a place that cannot be
written.  Afterwards the contents go to a hidden name next to their place, which becomes the real
name when all is written.  So a full disk or a crash leaves no half of a file, and no error comes
without the name of its file.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

from minigpt2.errors import UserError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, in which `path` is written, into a UserError that names it."""
    try:
        yield
    except FileExistsError:
        raise UserError(f"{path} exists already: choose another name, or move it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


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
        hidden = hidden_name(path)
        hidden.touch()
        hidden.unlink()


def require_new_folder(path: Path, option: str) -> None:
    """Raise UserError unless the folder that an option names can be made, or is an empty one."""
    if exists(path):
        if not path.is_dir():
            text = f"{path} cannot be made: it is a file; choose another {option}, or move it"
            raise UserError(text)
        with naming(path):
            if any(path.iterdir()):
                text = f"{path} already holds something: choose another {option}, or move it"
                raise UserError(text)
        above = path
    else:
        above = next(folder for folder in path.absolute().parents if exists(folder))
    if not above.is_dir():
        raise UserError(f"{path} cannot be made: {above} is a file; choose another {option}")
    with naming(path):
        hidden = hidden_name(above / "new")
        hidden.mkdir()
        hidden.rmdir()


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


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the name under which to write a new file; in the end it becomes `path`.

    If the block fails, nothing is left.  Raises UserError if the file cannot be written, or exists.
    """
    hidden = hidden_name(path)
    try:
        with naming(path):
            if exists(path):
                raise FileExistsError
            yield hidden
            try:
                os.link(hidden, path)  # unlike a renaming, it spares a file that has come meanwhile
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                if exists(path):
                    raise FileExistsError from None
                os.rename(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def json_text(content: Any, indent: int | None = None) -> str:
    """Return a value as JSON, on one line without an indent.

    What JSON does not have becomes what it has: a path a text; NaN and infinities null.
    """

    def finite(value: Any) -> Any:
        if isinstance(value, float):
            return value if isfinite(value) else None
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        return [finite(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(finite(content), indent=indent, ensure_ascii=False, default=str)


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write new files, all of them or none; half a character becomes its code.

    Raises UserError if a file cannot be written, or exists.
    """
    with ExitStack() as files:
        for path, text in texts.items():
            hidden = files.enter_context(whole_file(path))
            hidden.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a new folder, then put the whole of it in the place of `folder`.

    If anything fails, `folder` stays as it was.  Raises UserError if it cannot be written.
    """
    new = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        with naming(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            new.mkdir()
            fill(new)
            exchange(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def exchange(new: Path, folder: Path) -> None:
    """Put a folder in the place of another, which is removed; if that fails, the other stays."""
    old = folder.with_name(f"{new.name}.old")
    try:
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
