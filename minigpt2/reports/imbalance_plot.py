"""Plot of imbalance: shares against length, and norms by part of the model."""

from pathlib import Path
from typing import Any

import numpy as np

from minigpt2.reports.plots import new_figure, save
from minigpt2.training.gradient_imbalance import Imbalance, norms_per_token


def draw_imbalance(path: Path, measured: Imbalance, title: str) -> None:
    """Write a picture of a measurement.  Raises UserError if matplotlib is not installed."""
    with new_figure(11, 4) as figure:
        left, right = figure.subplots(1, 2)
        draw_shares(left, measured)
        draw_norms(right, measured)
        save(figure, path, title)


def draw_shares(axes: Any, measured: Imbalance) -> None:
    """Draw each example's share in the gradient against the length of its answer."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    for shares, label, colour in (
        (measured.shares, "--loss token", "#b5483a"),
        (measured.shares_alike, "--loss example", "#3b7ea1"),
    ):
        axes.scatter(measured.lengths, shares, s=14, alpha=0.7, label=label, color=colour)
    axes.axhline(1 / len(measured.lengths), color="#888", linewidth=1, label="equal shares")
    common, noise = measured.fit
    x = np.linspace(measured.lengths.min(), measured.lengths.max(), 100)
    curve = np.sqrt(x**2 * common + x * noise) / measured.norms.sum()
    axes.plot(x, curve, color="#b5483a", linewidth=1, label="fit: common direction and noise")
    axes.set(xscale="log", yscale="log", xlabel="answer tokens", ylabel="share in the gradient")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    title = f"share grows as length^{measured.slope:.2f}, or as length^{measured.slope - 1:.2f}"
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="best", framealpha=0.6)


def draw_norms(axes: Any, measured: Imbalance) -> None:
    """Draw the norms of the gradients from prompts and from answers, by part of the model."""
    parts = {name: part for name, part in measured.parts.items() if name != "all"}
    sizes = np.array([norms_per_token(measured, part) for part in parts.values()])
    places = np.arange(len(parts))
    axes.bar(places - 0.2, sizes[:, 0], 0.4, label="prompt", color="#999")
    axes.bar(places + 0.2, sizes[:, 1], 0.4, label="answer", color="#4a9d5b")
    axes.set_xticks(places, list(parts), rotation=90, fontsize=7)
    axes.set(ylabel="norm of the gradient, per token", yscale="log")
    axes.legend()
