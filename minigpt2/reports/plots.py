"""Plots: the loss against the steps, as a picture.

Drawing is matplotlib's; without it a run leaves the picture out and says so.
"""

from collections.abc import Sequence
from pathlib import Path


def draw_curve(
    path: Path, losses: Sequence[float], validation: Sequence[tuple[int, float]]
) -> bool:
    """Write a PNG of the losses; return whether there is a library to draw it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1, label="training, each step")
    if validation:
        steps, values = zip(*validation, strict=True)
        axes.plot(steps, values, "o-", label="validation")
    axes.set(xlabel="step", ylabel="loss per supervised token", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return True
