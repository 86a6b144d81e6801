"""Page of a run: report.html, all of it to look at in one file.

It is made from the files that the run has written, and from what it worked on.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from minigpt2.commands.setup import Material
from minigpt2.commands.train_settings import TrainSettings
from minigpt2.data.examples import Example
from minigpt2.data.statistics import QUANTILES, Summary, lengths_of
from minigpt2.reports.html import render
from minigpt2.reports.run_log import Report
from minigpt2.reports.tokens import tokens_of

SHOWN = 40  # answers on the page
PANELS = {
    "loss": {
        "token_loss": "training, tokens alike",
        "example_loss": "training, examples alike",
        "validation_token_loss": "validation, tokens alike",
        "validation_example_loss": "validation, examples alike",
    },
    "learning rate": {"learning_rate": ""},
    "norm of the gradient": {"gradient_norm": ""},
    "tokens/s": {"rows_per_second": "computed", "supervised_per_second": "supervised"},
}


def write_page(settings: TrainSettings, material: Material, report: Report) -> None:
    """Write report.html into the run's folder."""
    log = [json.loads(line) for line in report.read("log.jsonl").splitlines()]
    answers = json.loads(report.read("answers.json"))
    cuts, summary = material.cuts, report.summary
    page = render(
        "report",
        title=report.folder.name,
        model=f"{settings.model}: {material.parameters.config.n_parameters:,} parameters",
        results=results_of(summary, log),
        data=summary["data"]["described"],
        cuts=f"Context {summary['context']['rows']:,}: {cuts.prompts} prompts cut "
        f"({cuts.prompt_tokens:,} tokens), {cuts.answers} answers cut "
        f"({cuts.answer_tokens:,} tokens), {cuts.dropped} examples dropped.",
        quantiles=[f"{q:.0%}" for q in QUANTILES],
        lengths=rows_of(material.training + material.validation),
        curves=curves(log),
        tokens=tokens_of(
            material.training[0],
            settings.loss_weights().of(material.training[0]),
            material.tokenizer,
        ),
        answers=[with_question(row) for row in answers[:SHOWN]],
        more=max(0, len(answers) - SHOWN),
        settings=list(asdict(settings).items()),
    )
    (report.folder / "report.html").write_text(page, "utf-8", errors="backslashreplace")


def results_of(summary: dict[str, Any], log: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what is told of the run in numbers, before and after."""
    found = []
    for name, result in summary.get("before", {}).items():
        pair = (result, summary["after"][name])
        before, after = (f"{r['right']} of {r['asked']} ({r['exact_match']:.1%})" for r in pair)
        found.append({"name": f"{name}, exact match", "before": before, "after": after})
    for key, name in [*PANELS["loss"].items()]:
        losses = [entry[key] for entry in log if key in entry]
        if losses:
            of = "" if key.startswith("validation") else " (of the first and the last step's batch)"
            before, after = (f"{loss:.4f}" for loss in (losses[0], losses[-1]))
            found.append({"name": f"loss, {name}{of}", "before": before, "after": after})
    return found


def rows_of(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return the rows of the table of lengths."""
    lengths = lengths_of(examples)
    kinds = {"prompt": lengths.prompt, "answer": lengths.answer, "both": lengths.both}
    return [{"name": name, **Summary.of(counts)._asdict()} for name, counts in kinds.items()]


def with_question(row: dict[str, Any]) -> dict[str, Any]:
    """Return an answer's row with its question in one text."""
    return {**row, "question": " / ".join(filter(None, (row["instruction"], row["input"])))}


def curves(log: Sequence[dict[str, Any]]) -> str:
    """Return the run's curves as SVG; empty where there is no library to draw them."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return ""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for key, label in lines.items():
            points = [(entry["step"], entry[key]) for entry in log if key in entry]
            if points:
                style = "o-" if key.startswith("validation") else "-"
                axes.plot(*zip(*points, strict=True), style, linewidth=1, markersize=4, label=label)
        axes.set(xlabel="step", ylabel=title, ylim=(0, None))
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
    text = StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]
