"""Page of align: the tables of a demonstration, its figure, and some answers, in one file."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from minigpt2.reports.html import render
from minigpt2.reports.plots import svg
from minigpt2.reports.screen import new_table

NOTE = (
    "Over 300 held-out questions: 150 about facts, 150 sums and differences. An answer is right if "
    "it is the reference when its padding is taken off; a sum is right by the check if it ends and "
    "its last equation is true and has the right result. Changed: how many greedy answers have got "
    "right, and how many wrong. KL: the mean of an answer's log-probability minus that under the "
    "model at the start, in the last steps."
)
RUNS = {"ppo": ("honest", "#3b7ea1"), "hacked": ("hacked", "#b5483a")}  # label and colour


class Grid(NamedTuple):
    """A table of texts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def printed(self) -> Table:
        """Return the table as a terminal shows it."""
        table = new_table(self.title, *self.columns)
        for row in self.rows:
            table.add_row(*row)
        return table


def align_page(results: Mapping[str, Any], tables: Sequence[Grid]) -> str:
    """Return the page as HTML."""
    return render(
        "align",
        title="Alignment",
        tables=tables,
        note=NOTE,
        curves=hacking_figure(results["curves"]),
        answers=results["answers"],
    )


def hacking_figure(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Return reward and content of both runs of PPO over time as SVG; empty without matplotlib."""

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, (label, colour) in RUNS.items():
            left.plot(*zip(*curves[name]["reward"], strict=True), label=label, color=colour)
            steps, shares = zip(*curves[name]["right"], strict=True)
            right.plot(steps, [100 * value for value in shares], "o-", label=label, color=colour)
        left.set(xlabel="step", ylabel="reward, by its own reward model")
        right.set(xlabel="step", ylabel="right answers, %", ylim=(0, 100))
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)

    return svg(10, 3.6, draw)
