"""Run log: what a run prints, and the files that keep it.

settings.json  the settings
log.jsonl      one line a step, and one a validation
summary.json   every number that was printed
loss.png       the curve (if matplotlib is there)
answers.json   the answers to the held-out questions
report.html    all of it as one page
events/        log.jsonl once more, for TensorBoard (if it was asked for)
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from minigpt2.errors import UserError
from minigpt2.memory import peak_memory
from minigpt2.reports.tensorboard import Events
from minigpt2.training.step import Step


class Screen(Console):
    """A console that falls silent when its reader has gone; the run goes on."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from here on."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        self.quiet = True


class Report:
    """Prints what happens, and keeps it in the run's folder."""

    def __init__(self, folder: Path, tensorboard: bool = False):
        self.folder = folder
        self._events = Events(folder / "events") if tensorboard else None
        self.console = Screen(highlight=False, soft_wrap=True)
        self.summary: dict[str, Any] = {}
        self._log = (folder / "log.jsonl").open("w", encoding="utf-8")

    def say(self, label: str, text: str, **numbers: Any) -> None:
        """Print a line under a label, and keep the numbers that it shows."""
        self.summary.setdefault(label, {}).update(numbers)
        self.console.print(f"[bold]{label:<9}[/bold] {escape(text)}")

    def log(self, entry: dict[str, Any], line: str | None) -> None:
        """Write one line of log.jsonl; print `line`, if given, and keep its numbers."""
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()
        if self._events:
            self._events.add(entry)
        if line:
            self.summary.setdefault("printed_steps", []).append(entry)
            self.console.print(line, markup=False)

    @contextmanager
    def progress(self, what: str, total: int, quiet: bool = False) -> Iterator[Any]:
        """Show a bar with the time left; yields a function that advances it.

        Where the output is no terminal, a line says what has begun, unless `quiet`.
        """
        if not self.console.is_terminal:
            if not quiet:
                self.console.print(f"{what}: {total} to go", markup=False)
            yield lambda count: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *exception: object) -> None:
        """Write summary.json, whatever happened."""
        self._log.close()
        if self._events:
            self._events.close()
        self.write("summary.json", self.summary)

    def read(self, name: str) -> str:
        """Return the text of a file of the run's folder."""
        return (self.folder / name).read_text(encoding="utf-8")

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file of the run's folder."""
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
        path = self.folder / name
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def claim_folder(out: Path | None, name: str) -> Path:
    """Make a run's folder, by default the first free runs/<name>-<k>.

    Raises UserError if `out` holds anything: a run is never written over.
    """
    try:
        for k in count(1):
            folder = out or Path("runs") / f"{name}-{k}"
            try:
                folder.mkdir(parents=True, exist_ok=out is not None)
                if any(folder.iterdir()):
                    text = "already holds something: choose another --out, or move it"
                    raise UserError(f"{folder} {text}")
                return folder
            except FileExistsError:
                if out is not None:
                    raise
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from None
    raise AssertionError("count() has no end")


def due(step: int, every: int) -> bool:
    """Whether something that is done every so many steps is done at this one; never for 0."""
    return bool(every) and step % every == 0


def log_step(step: Step, steps: int, log_every: int, report: Report) -> None:
    """Write a step to the log; print it if it is the first, the last or every log_every-th."""
    peak = peak_memory()
    entry = {
        **step._asdict(),
        "supervised_per_second": step.supervised / step.seconds,
        "rows_per_second": step.rows / step.seconds,
        "peak_memory": peak,
    }
    line = (
        f"step {step.step}/{steps}: loss {step.loss:.4f} "
        f"(tokens {step.token_loss:.4f}, examples {step.example_loss:.4f}), "
        f"rate {step.learning_rate:.2e}, "
        f"norm {step.gradient_norm:.2f}, {step.supervised:,} targets on {step.rows:,} rows, "
        f"{step.rows / step.seconds:,.0f} tokens/s"
        + (f", {peak / 2**20:,.0f} MiB peak" if peak else "")
    )
    printed = step.step in (1, steps) or due(step.step, log_every)
    report.log(entry, line if printed else None)
