"""Run log: the lines that a run prints, and the files of its folder.

settings.json  the settings
log.jsonl      one line for each step, and one for each validation
summary.json   every printed number
answers.json   the answers to the test questions, before and after training
report.html    all of this as one page
events/        the numbers of log.jsonl for TensorBoard (with --tensorboard)
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from rich.text import Text

from minigpt2.errors import UserError
from minigpt2.memory import peak_memory
from minigpt2.reports.screen import Screen, progress_bar
from minigpt2.reports.tensorboard import Events
from minigpt2.terminal import visible
from minigpt2.training.losses import Losses
from minigpt2.training.step import StepResult
from minigpt2.wording import size


class RunLog:
    """Prints the lines of a run, and writes them into the run's folder."""

    def __init__(self, folder: Path, *, tensorboard: bool = False):
        self.folder = folder
        self.console = Screen(until_closed=True)
        self.summary: dict[str, Any] = {}
        self._events = Events(folder / "events") if tensorboard else None
        self._log = (folder / "log.jsonl").open("w", encoding="utf-8")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exception: object) -> None:
        """Write summary.json, also after an exception."""
        self._log.close()
        if self._events:
            self._events.close()
        self.write("summary.json", self.summary)

    def say(self, label: str, text: str, *, key: str = "", **numbers: Any) -> None:
        """Print a line with a label; add its numbers to the summary, under `key` or the label."""
        self.summary.setdefault(key or label, {}).update(numbers)
        self.console.print(Text.assemble((f"{label:<9}", "bold"), f" {visible(text)}"))

    def add(self, entry: dict[str, Any], line: str | None) -> None:
        """Write an entry to log.jsonl; print `line`, if any, and add the entry to the summary."""
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()
        if self._events:
            self._events.add(entry)
        if line:
            self.summary.setdefault("printed_steps", []).append(entry)
            self.console.print(line)

    def add_step(self, result: StepResult, steps: int, *, printed: bool) -> None:
        """Log a step of a run that has `steps` steps."""
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

    def add_validation(self, number: int, steps: int, losses: Losses) -> None:
        """Log the validation losses after a step."""
        line = (
            f"step {number}/{steps}  validation loss {losses.token_level:.4f}"
            f"  by example {losses.example_level:.4f}"
        )
        numbers = {f"validation_{name}": value for name, value in losses.numbers().items()}
        self.add({"step": number, **numbers}, line)

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries of log.jsonl."""
        text = (self.folder / "log.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    @contextmanager
    def progress(
        self, task: str, total: int, *, quiet: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """Show a bar with the remaining time; yields a function that advances it.

        If the output is not a terminal, print a line with the task instead, unless `quiet`.
        """
        if not self.console.is_terminal and not quiet:
            self.console.print(f"{task}: {total} to go")
        with progress_bar(self.console, task, total) as advance:
            yield advance

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file of the run's folder."""
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
        self.write_text(name, text + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run's folder."""
        (self.folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")


def step_line(result: StepResult, steps: int, peak: int | None) -> str:
    """Return the line of a step; it fits 80 columns.

    `minigpt2 train --help` explains its words.
    """
    parts = [
        f"step {result.step}/{steps}",
        f"loss {result.loss:.4f}",
        f"lr {result.learning_rate:.1e}",
        f"norm {result.gradient_norm:.2f}",
        f"{result.rows / result.seconds:,.0f} tok/s",
    ]
    if peak:
        parts.append(size(peak))
    if not result.updated:
        parts.append("(skipped)")
    return "  ".join(parts)


def claim_folder(out: Path | None, name: str) -> Path:
    """Make a run's folder, by default the first free runs/<name>-<k>.

    Raises UserError if `out` is not empty: no run is ever overwritten.
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
