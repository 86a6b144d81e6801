"""Plots: the curves of a run, and the lengths of a data set.

matplotlib draws them.  If it is not installed, the page of a run has no curves, and a command
with a figure to draw raises a UserError that names the package to install.
"""

from collections.abc import Mapping, Sequence
from io import StringIO
from logging import CRITICAL, getLogger
from math import ceil
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from minigpt2.backend import Array
from minigpt2.errors import UserError
from minigpt2.reports.metrics import curves_of
from minigpt2.terminal import one_line

WIDTH, HEIGHT = 5, 3.2  # of a panel, in inches


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; sizes in inches.  Raises UserError without matplotlib."""
    getLogger("matplotlib").setLevel(CRITICAL)  # its remarks on caches that it cannot write
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a figure needs matplotlib: pip install 'minigpt2[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def run_curves(log: Sequence[Mapping[str, Any]]) -> str:
    """Return a run's curves as SVG, from the entries of its log; empty without matplotlib."""
    panels = curves_of(log)
    rows = max(1, ceil(len(panels) / 2))
    try:
        figure = new_figure(2 * WIDTH, rows * HEIGHT)
    except UserError:
        return ""
    every = figure.subplots(rows, 2).flat
    for (panel, curves), axes in zip(panels, every, strict=False):
        for curve in curves:
            style = "o-" if curve.metric.startswith("validation") else "-"
            steps, values = zip(*curve.points, strict=True)
            axes.plot(steps, values, style, linewidth=1, markersize=4, label=curve.label)
        axes.set(xlabel="step", ylabel=panel.title)
        if min(value for curve in curves for _, value in curve.points) >= 0:
            axes.set(ylim=(0, None))
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8)
    for axes in list(every):
        axes.set_axis_off()
    text = StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def draw_lengths(path: Path, lengths: Mapping[str, Array], title: str) -> None:
    """Write a picture of histograms: the tokens of each part of the examples, (E,) each."""
    figure = new_figure(9, 3.6)
    for axes, (name, counts) in zip(figure.subplots(1, 2), lengths.items(), strict=True):
        axes.hist(counts, bins=40, color="#3b7ea1")
        axes.axvline(counts.mean(), color="#b33", linewidth=1)
        axes.annotate(
            f"mean {counts.mean():.1f}",
            (counts.mean(), 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color="#b33",
            va="top",
        )
        axes.set(xlabel=f"tokens of the {name}", ylabel="examples")
        axes.grid(alpha=0.3)
    save(figure, path, title)


def save(figure: Any, path: Path, title: str) -> None:
    """Write a picture with a title above it, whose dollar signs begin no formula."""
    figure.suptitle(one_line(title), fontsize=10, parse_math=False)
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # of characters that the font lacks
        figure.savefig(path, dpi=120)
