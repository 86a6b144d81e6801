"""Run log: the lines that a run prints, and the files of its folder.

settings.json  the settings
log.jsonl      one line for each step, and one for each validation
summary.json   every printed number
answers.json   the answers to the test questions, before and after training
report.html    all of this as one page
events/        the numbers of log.jsonl for TensorBoard (with --tensorboard)
"""

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from copy import deepcopy
from errno import ENOSPC
from io import FileIO
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

from rich.text import Text

from minigpt2.durable import is_leftover, make_folder, open_no_link
from minigpt2.errors import UserError
from minigpt2.memory import peak_memory
from minigpt2.outputs import fsync, fsync_folder, json_text, naming, require_new_folder, write_texts
from minigpt2.reports.metrics import Validation, step_line
from minigpt2.reports.screen import Screen
from minigpt2.reports.tensorboard import Events
from minigpt2.terminal import visible
from minigpt2.training.step import StepResult

RUNS = Path("runs")  # where runs without --out are
LOG, SETTINGS, SUMMARY = "log.jsonl", "settings.json", "summary.json"


class RunLog:
    """Prints the lines of a run, and writes them into the run's folder."""

    def __init__(self, folder: Path, *, tensorboard: bool = False, resumed: bool = False):
        self.folder = folder
        self.console = Screen(until_closed=True)
        self.summary: dict[str, Any] = {}
        self.overflows = 0  # of steps in float16
        self._path = folder / LOG
        self._checksum = 0  # CRC-32 of all lines
        with naming(self._path):  # a second new run in this folder is refused here
            self._log = FileIO(self._path, "a" if resumed else "x", opener=open_no_link)
            try:
                fsync_folder(folder)
            except OSError:
                self._close()
                raise
        self._events = Events(folder / "events") if tensorboard else None

    def notes(self) -> dict[str, Any]:
        """Return what `continue_from` needs to continue the log from here."""
        return {
            "log_bytes": self._log.tell(),
            "log_checksum": self._checksum,
            "summary": deepcopy(self.summary),
            "overflows": self.overflows,
        }

    def continue_from(self, notes: Mapping[str, Any]) -> str:
        """Continue the log from a checkpoint's notes; what was logged after it is removed.

        Returns a warning if what was logged before it is damaged, or "".  Then the lines that can
        be read stay.
        """
        self.summary, self.overflows = deepcopy(notes["summary"]), notes["overflows"]
        with naming(self._path):
            contents = self._path.read_bytes()[: notes["log_bytes"]]
            self._checksum = crc32(contents)
            if (len(contents), self._checksum) == (notes["log_bytes"], notes["log_checksum"]):
                self._cut(len(contents))
                return ""
            lines = contents.splitlines(keepends=True)
            contents = b"".join(line for line in lines if is_entry(line))
            self._cut(0)
            self._log.write(contents)
            self._checksum = crc32(contents)
        return f"{self._path} is not what was written: the lines that can be read stay"

    def _cut(self, length: int) -> None:
        """Let the log end after so many bytes."""
        self._log.truncate(length)
        self._log.seek(length)

    def sync(self) -> None:
        """Wait until the log is on the disk."""
        with naming(self._path):
            fsync(self._log.fileno())

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Write summary.json, also after an exception.

        Raises UserError if that fails, unless an exception is already on its way.
        """
        with suppress(UserError) if kind else nullcontext():
            with naming(self._path):
                self._close()
            if self._events:
                self._events.close()
            self.write(SUMMARY, self.summary)

    def _close(self) -> None:
        """Close the log; one without a line is removed."""
        empty = not self._log.tell()
        self._log.close()
        if empty:
            os.unlink(self._path)

    def say(self, label: str, text: str, *, key: str = "", **numbers: Any) -> None:
        """Print a line with a label; add its numbers to the summary, under `key` or the label."""
        if numbers:
            self.summary.setdefault(key or label, {}).update(numbers)
        self.console.print(Text.assemble((f"{label:<9}", "bold"), f" {visible(text)}"))

    def add(self, entry: dict[str, Any], line: str | None) -> None:
        """Write an entry to log.jsonl; print `line`, if any, and add the entry to the summary."""
        self._append(json_text(entry) + "\n")
        if self._events:
            self._events.add(entry)
        if line:
            self.summary.setdefault("printed_steps", []).append(entry)
            self.console.print(line)

    def _append(self, line: str) -> None:
        """Write a line of log.jsonl, or nothing of it.  Raises UserError if the disk is full."""
        contents, start = line.encode(), self._log.tell()
        with naming(self._path):
            try:
                complete = self._log.write(contents) == len(contents)
            except OSError:
                self._cut(start)
                raise
            if not complete:
                self._cut(start)
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        self._checksum = crc32(contents, self._checksum)

    def add_step(self, result: StepResult, steps: int, *, printed: bool) -> None:
        """Log a step of a run that has `steps` steps, or that it overflowed."""
        if not result.updated:
            self.add_overflow(result, steps)
            return
        peak = peak_memory()
        entry = {
            "step": result.step,
            **result.metrics,
            "learning_rate": result.learning_rate,
            "gradient_norm": result.gradient_norm,
            "supervised": result.supervised,
            "rows": result.rows,
            "seconds": result.seconds,
            "supervised_per_second": result.supervised / result.seconds,
            "rows_per_second": result.rows / result.seconds,
            "peak_memory": peak,
        }
        self.add(entry, step_line(result, steps, peak) if printed else None)

    def add_overflow(self, result: StepResult, steps: int) -> None:
        """Log that a step overflowed in float16, and is taken again."""
        self.overflows, scale = self.overflows + 1, {"loss_scale": result.loss_scale}
        self.summary["float16"] = {"overflows": self.overflows, **scale}
        line = f"step {result.step}/{steps}  overflowed in float16: again with loss scale"
        entry = {"step": result.step, "overflowed": True, **scale, "seconds": result.seconds}
        self.add(entry, f"{line} {result.loss_scale:,.0f}")

    def add_validation(self, number: int, steps: int, validation: Validation) -> None:
        """Log the numbers of a validation after a step."""
        numbers = {f"validation_{name}": value for name, value in validation.numbers.items()}
        self.add({"step": number, **numbers}, f"step {number}/{steps}  {validation.text}")

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries of log.jsonl."""
        text = self._path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file of the run's folder."""
        self.write_text(name, json_text(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run's folder, in the place of an older one."""
        write_texts({self.folder / name: text}, replace=True)


def is_entry(line: bytes) -> bool:
    """Whether a line is one of log.jsonl, which has numbers alone, and whole."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not (line.endswith(b"\n") and isinstance(entry, dict)):
        return False
    return all(value is None or isinstance(value, int | float) for value in entry.values())


def require_free(out: Path | None) -> None:
    """Raise UserError unless `claim_folder` can make a run's folder."""
    require_new_folder(out or RUNS / "new", "--out", ignore=is_leftover)


def claim_folder(out: Path | None, name: str) -> Path:
    """Make a run's folder, by default the first free runs/<name>-<k>.

    Raises UserError if `out` is not empty: no run is ever overwritten.
    """
    require_free(out)
    for k in count(1):
        folder = out or RUNS / f"{name}-{k}"
        try:
            make_folder(folder.parent)
            folder.mkdir(exist_ok=out is not None)
            fsync_folder(folder.parent)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror}") from None
    raise AssertionError("count() has no end")
