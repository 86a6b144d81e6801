"""Metrics: how the numbers of a run are printed, and in which picture they are drawn.

The objective names the numbers of a step; the list here says what readers see of them.  A name
may have a part behind a slash, such as the kind of pairs in validation_accuracy/cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minigpt2.training.step import StepResult
from minigpt2.wording import rounded, size

WIDTH = 80  # columns of a step's line


class Panel(NamedTuple):
    """One picture of a run's page."""

    title: str
    labels: dict[str, str]  # of its curves, by metric
    format: str = ".4f"  # of a value in the table of results; empty: it is none


PANELS = (  # of two with one title, a run has the first that it has numbers for
    Panel(
        "loss",
        {
            "token_loss": "training, by token",
            "example_loss": "training, by example",
            "validation_token_loss": "validation, by token",
            "validation_example_loss": "validation, by example",
        },
    ),
    Panel("loss", {"loss": "training", "validation_loss": "validation"}),
    Panel("accuracy", {"accuracy": "training", "validation_accuracy": "validation"}, ".1%"),
    Panel("margin", {"margin": "training", "validation_margin": "validation"}, ".3f"),
    Panel(
        "log-ratio to the reference",
        {
            "chosen_log_ratio": "chosen",
            "rejected_log_ratio": "rejected",
            "validation_chosen_log_ratio": "chosen, validation",
            "validation_rejected_log_ratio": "rejected, validation",
        },
        ".3f",
    ),
    Panel("reward", {"reward": "sampled", "validation_reward": "held out"}, ".3f"),
    Panel("KL of an answer", {"kl": "sampled", "validation_kl": "held out"}, ".3f"),
    Panel("entropy of a token", {"entropy": ""}, ".3f"),
    Panel("tokens of an answer", {"length": ""}, ".1f"),
    Panel("share of answers that end", {"ended": ""}, ".1%"),
    Panel("share of prompts whose answers are rewarded alike", {"alike": ""}, ".1%"),
    Panel("share of tokens clipped", {"clipped": ""}, ""),
    Panel("largest error of a first pass's ratio", {"ratio_error": ""}, ""),
    Panel("loss of the value", {"value_loss": ""}, ""),
    Panel("learning rate", {"learning_rate": ""}, ""),
    Panel("norm of the gradient", {"gradient_norm": ""}, ""),
    Panel("tokens/s", {"rows_per_second": "computed", "supervised_per_second": "supervised"}, ""),
)

PRINTED = {  # after the loss, in a step's line: metrics and their formats
    "accuracy": ".0%",
    "margin": ".2f",
    "reward": ".3f",
    "kl": ".2f",
    "entropy": ".2f",
    "length": ".1f",
}


class Validation(NamedTuple):
    """The numbers of one validation."""

    loss: float  # which the best one has lowest
    numbers: dict[str, Any]  # by metric
    text: str  # for its line


class Curve(NamedTuple):
    """One metric of a run."""

    metric: str
    label: str
    points: list[tuple[int, float]]  # steps with values


def curves_of(log: Sequence[Mapping[str, Any]]) -> list[tuple[Panel, list[Curve]]]:
    """Return the panels that a run has numbers for, with their curves, from its log."""
    names = list(dict.fromkeys(name for entry in log for name in entry))
    panels: dict[str, tuple[Panel, list[Curve]]] = {}
    for panel in PANELS:
        curves = []
        for metric, label in panel.labels.items():
            for name in names:
                whole, _, part = name.partition("/")
                if whole == metric:
                    points = [(e["step"], e[name]) for e in log if e.get(name) is not None]
                    text = ", ".join(filter(None, [label, part]))
                    curves += [Curve(name, text, points)] if points else []
        if curves:
            panels.setdefault(panel.title, (panel, curves))
    return list(panels.values())


def results_of(log: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the first and the last value of each metric that tells what a run has reached."""
    rows = []
    for panel, curves in curves_of(log):
        for curve in curves if panel.format else []:
            held_out = curve.metric.startswith("validation")
            of = "" if held_out else " (first and last batch)"
            name = ", ".join(filter(None, [panel.title, curve.label]))
            before, after = (rounded(curve.points[k][1], panel.format) for k in (0, -1))
            rows.append({"name": f"{name}{of}", "before": before, "after": after})
    return rows


def step_line(result: StepResult, steps: int, peak: int | None) -> str:
    """Return the line of a step, as much of it as fits 80 columns; `peak` is in bytes.

    The help of each command that trains explains its words.
    """
    line = f"step {result.step}/{steps}  loss {rounded(result.loss, '.4f')}"
    printed = [name for name in PRINTED if result.metrics.get(name) is not None]
    parts = [f"{name} {rounded(result.metrics[name], PRINTED[name])}" for name in printed]
    parts += [] if printed else [f"lr {result.learning_rate:.1e}"]
    parts.append(f"norm {result.gradient_norm:.2f}")
    parts.append(f"{result.rows / result.seconds:,.0f} tok/s")
    parts += [size(peak)] if peak else []
    for part in parts:
        if len(line) + 2 + len(part) > WIDTH:
            break
        line += f"  {part}"
    return line
