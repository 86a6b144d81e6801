"""Page of a run: report.html, a whole run in one file."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from minigpt2.data.examples import Example
from minigpt2.data.statistics import QUANTILES, Summary, lengths_of
from minigpt2.data.truncation import Cuts
from minigpt2.reports.before_after import question_of
from minigpt2.reports.html import render
from minigpt2.reports.plots import PANELS, run_curves
from minigpt2.reports.screen import describe_cuts
from minigpt2.reports.tokens import Token

MOST_ANSWERS = 40  # on the page


class Page(NamedTuple):
    """The values that the page shows."""

    title: str
    model: str  # a line that describes it
    data: str  # a line that describes it
    context: int
    cuts: Cuts
    warnings: Sequence[str]
    examples: Sequence[Example]
    tokens: Sequence[Token]  # of one training example
    log: Sequence[dict[str, Any]]  # the entries of log.jsonl
    best: str  # a line about the best validation; may be empty
    stopped: str  # a line about a run that stopped early, else empty
    before: dict[str, dict[str, Any]]  # the results of each test
    after: dict[str, dict[str, Any]]
    answers: Sequence[dict[str, Any]]  # the rows of answers.json
    settings: dict[str, Any]


def run_page(page: Page) -> str:
    """Return the page as HTML."""
    return render(
        "report",
        title=page.title,
        model=page.model,
        results=[*test_rows(page.before, page.after), *loss_rows(page.log)],
        best=page.best,
        stopped=page.stopped,
        data=page.data,
        cuts=f"Context {page.context:,}: {describe_cuts(page.cuts)}.",
        warnings=page.warnings,
        quantiles=[f"{q:.0%}" for q in QUANTILES],
        lengths=length_rows(page.examples),
        curves=run_curves(page.log),
        tokens=page.tokens,
        answers=[{**row, "question": question_of(row)} for row in page.answers[:MOST_ANSWERS]],
        more=max(0, len(page.answers) - MOST_ANSWERS),
        settings=list(page.settings.items()),
    )


def test_rows(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, str]]:
    """Return each test's exact match before and after."""
    rows = []
    for name in before:
        old, new = (
            f"{r['right']} of {r['asked']} ({r['exact_match']:.1%})"
            for r in (before[name], after[name])
        )
        rows.append({"name": f"{name}, exact match", "before": old, "after": new})
    return rows


def loss_rows(log: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the first and the last loss of each kind."""
    rows = []
    for key, name in PANELS["loss"].items():
        losses = [entry[key] for entry in log if entry.get(key) is not None]
        if losses:
            of = "" if key.startswith("validation") else " (of the first and the last step's batch)"
            old, new = (f"{loss:.4f}" for loss in (losses[0], losses[-1]))
            rows.append({"name": f"loss, {name}{of}", "before": old, "after": new})
    return rows


def length_rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return the rows of the table of lengths."""
    lengths = lengths_of(examples)
    kinds = {"prompt": lengths.prompt, "answer": lengths.answer, "both": lengths.both}
    return [{"name": name, **Summary.of(counts)._asdict()} for name, counts in kinds.items()]
