"""Screen: what commands that only print have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from minigpt2.errors import UserError


def new_console() -> Console:
    """Return a console that prints text as it is, without breaking or colouring it."""
    return Console(highlight=False, soft_wrap=True)


def require_absent(path: Path | None, option: str) -> None:
    """Raise UserError if a file that is to be written exists already."""
    if path and path.exists():
        raise UserError(f"{path} exists already: choose another {option}, or move it")


@contextmanager
def progress_bar(console: Console, task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left while a task runs; yields a function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = console.is_terminal and total > 0
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown
    ) as bar:
        number = bar.add_task(task, total=total)
        yield lambda count: bar.advance(number, count)


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table: names to the left, numbers to the right."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, header_style="dim"
    )
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table
