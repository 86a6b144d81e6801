"""Screen: consoles, tables, bars and lines that several commands print."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from minigpt2.data.truncation import Cuts
from minigpt2.errors import UserError
from minigpt2.wording import plural


def new_console() -> Console:
    """Return a console that neither breaks nor colours text."""
    return Console(highlight=False, soft_wrap=True)


def require_absent(path: Path | None, option: str) -> None:
    """Raise UserError if an option names a file that exists."""
    if path and path.exists():
        raise UserError(f"{path} exists already: choose another {option}, or move it")


def describe_cuts(cuts: Cuts) -> str:
    """Return the numbers of cuts.

    >>> describe_cuts(Cuts(prompts=2, answers=1, dropped=0, prompt_tokens=1200, answer_tokens=1))
    '2 prompts cut (1,200 tokens), 1 answer cut (1 token), 0 examples dropped'
    """
    prompts, answers = plural(cuts.prompts, "prompt"), plural(cuts.answers, "answer")
    return (
        f"{prompts} cut ({plural(cuts.prompt_tokens, 'token')}), "
        f"{answers} cut ({plural(cuts.answer_tokens, 'token')}), "
        f"{plural(cuts.dropped, 'example')} dropped"
    )


@contextmanager
def progress_bar(console: Console, task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the remaining time of a task; yields a function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = console.is_terminal and total > 0
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown
    ) as bar:
        number = bar.add_task(task, total=total)
        yield lambda count: bar.advance(number, count)


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table with a left-aligned first column, the others right-aligned."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, header_style="dim"
    )
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table
