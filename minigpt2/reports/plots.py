"""Plots: the curves of a run, and the lengths of a data set.

matplotlib draws them.  If it is not installed, the page of a run has no curves, and a command
with a figure to draw raises a UserError that names the package to install.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Any]:
    """Yield an empty figure, sizes in inches, and draw as matplotlib does by default.

    No settings of the user's decide: neither a file `matplotlibrc`, which may lie in any folder,
    nor MPLBACKEND, which a notebook sets and which may name what is not installed here.  Raises
    UserError without matplotlib.
    """
    getLogger("matplotlib").setLevel(CRITICAL)  # its remarks on caches that it cannot write
    window = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a figure needs matplotlib: pip install 'minigpt2[plot]'") from None
    except Exception as error:  # whatever its settings' file may cause
        raise UserError(
            f"matplotlib cannot read its own settings: {one_line(str(error))}"
        ) from None
    finally:
        if window is not None:
            os.environ["MPLBACKEND"] = window
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield Figure(figsize=(width, height), layout="constrained")


def svg(width: float, height: float, draw: Callable[[Any], None]) -> str:
    """Return what a function draws into a figure, as SVG; empty without matplotlib."""
    text = StringIO()
    try:
        with new_figure(width, height) as figure:
            draw(figure)
            figure.savefig(text, format="svg")
    except UserError:
        return ""
    return text.getvalue()[text.getvalue().index("<svg") :]


def run_curves(log: Sequence[Mapping[str, Any]]) -> str:
    """Return a run's curves as SVG, from the entries of its log; empty without matplotlib."""
    panels = curves_of(log)
    rows = max(1, ceil(len(panels) / 2))

    def draw(figure: Any) -> None:
        every = figure.subplots(rows, 2).flat
        for (panel, curves), axes in zip(panels, every, strict=False):
            draw_panel(axes, panel.title, curves)
        for axes in list(every):
            axes.set_axis_off()

    return svg(2 * WIDTH, rows * HEIGHT, draw)


def draw_panel(axes: Any, title: str, curves: Sequence[Any]) -> None:
    """Draw the curves of a panel."""
    for curve in curves:
        style = "o-" if curve.metric.startswith("validation") else "-"
        steps, values = zip(*curve.points, strict=True)
        axes.plot(steps, values, style, linewidth=1, markersize=4, label=curve.label)
    axes.set(xlabel="step", ylabel=title)
    if min(value for curve in curves for _, value in curve.points) >= 0:
        axes.set(ylim=(0, None))
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend(fontsize=8)


def draw_lengths(path: Path, lengths: Mapping[str, Array], title: str) -> None:
    """Write a picture of histograms: the tokens of each part of the examples, (E,) each."""
    with new_figure(9, 3.6) as figure:
        for axes, (name, counts) in zip(figure.subplots(1, 2), lengths.items(), strict=True):
            draw_histogram(axes, name, counts)
        save(figure, path, title)


def draw_histogram(axes: Any, name: str, counts: Array) -> None:
    """Draw the histogram of the tokens (E,) of one part, with a line at their mean."""
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


def save(figure: Any, path: Path, title: str) -> None:
    """Write a picture with a title above it, whose dollar signs begin no formula."""
    figure.suptitle(one_line(title), fontsize=10, parse_math=False)
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # of characters that the font lacks
        figure.savefig(path, dpi=120)
