"""Progress: what a command does while its user waits, in a terminal and in a file alike.

In a terminal it is a bar, or a spinner where nothing can be counted.  Elsewhere it is a line on the
error stream, as results go to standard output: the first line after two seconds, the next ones ever
more seldom.  A task may have tasks inside; a line is about the innermost.

    with progress("computing the loss", total=len(examples)) as advance:
        ...
        advance(8)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import TypeVar

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from minigpt2.reports.screen import Screen
from minigpt2.terminal import note, visible
from minigpt2.wording import duration

FIRST, NEXT = 2.0, 10.0  # seconds before the first line, and at least between two
WIDTH = 30  # of a bar
Item = TypeVar("Item")


class Work:
    """A task, how much there is to do (0: nothing that can be counted), and how much is done.

    Some of it may have been done `before`, by a run that is continued.
    """

    def __init__(self, text: str, total: int = 0, before: int = 0):
        self.text, self.total, self.before, self.done = text, total, before, before
        self.spinner = Spinner("dots")
        self._started = monotonic()

    def advance(self, count: int) -> None:
        """Count what has been done."""
        self.done += count

    @property
    def seconds(self) -> float:
        """The time since it began."""
        return monotonic() - self._started

    @property
    def state(self) -> str:
        """How much is done, and the time that is left at the speed so far."""
        if not self.total:
            return f"{duration(round(self.seconds))} so far"
        state = f"{self.done:,} of {self.total:,}"
        if not self.before < self.done < self.total:
            return state
        left = self.seconds * (self.total - self.done) / (self.done - self.before)
        return f"{state}, {duration(round(left))} left"


_under_way: list[Work] = []  # the innermost last


@contextmanager
def progress(
    text: str, total: int = 0, console: Screen | None = None, *, before: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show a task while the block runs; yields a function that counts what has been done.

    `console` is the one that the block prints on, if it prints; `before` is what an earlier run has
    done of the task.
    """
    work = Work(text, total, before)
    _under_way.append(work)
    try:
        if len(_under_way) > 1:
            yield work.advance
            return
        with display(console):
            yield work.advance
    finally:
        _under_way.remove(work)


def tracked(text: str, items: Sequence[Item]) -> Iterator[Item]:
    """Yield items, and show how many of them are done."""
    with progress(text, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


def display(console: Screen | None) -> AbstractContextManager[object]:
    """Return what shows the tasks: bars in a terminal, else lines."""
    output = console or Screen(until_closed=True)
    if not output.is_terminal:
        output = Screen(until_closed=True, stderr=True)
    if not output.is_terminal or output.is_dumb_terminal:
        return Lines()
    printed = not output.stderr  # what the block prints goes above the bars
    return Live(
        get_renderable=bars,
        console=output,
        transient=True,
        refresh_per_second=8,
        redirect_stdout=printed,
    )


def bars() -> Table:
    """Return a row for each task: a spinner, its text, a bar, and how much is done."""
    table = Table.grid(padding=(0, 1))
    for work in list(_under_way):
        text = Text(visible(work.text), no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(work.total, work.done, width=WIDTH) if work.total else ""
        table.add_row(work.spinner, text, bar, Text(work.state))
    return table


class Lines:
    """Prints a line about the innermost task now and then, while a block runs."""

    def __init__(self) -> None:
        self._over = Event()
        self._thread = Thread(target=self._print, daemon=True)

    def __enter__(self) -> "Lines":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _print(self) -> None:
        """Print lines until the block is over; a task is mentioned when it has run for a while."""
        started, pause = monotonic(), FIRST
        while not self._over.wait(pause):
            work = _under_way[-1]
            if work.seconds < FIRST:
                pause = FIRST - work.seconds
                continue
            with suppress(OSError):
                note(f"{work.text}: {work.state}")
            pause = max(NEXT, (monotonic() - started) / 10)
