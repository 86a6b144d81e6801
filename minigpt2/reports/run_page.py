"""Page of a run: report.html, a whole run in one file."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minigpt2.backend import Array
from minigpt2.data.statistics import QUANTILES, Summary
from minigpt2.reports.before_after import question_of
from minigpt2.reports.html import render
from minigpt2.reports.metrics import results_of
from minigpt2.reports.plots import run_curves
from minigpt2.reports.tokens import Token

MOST_ANSWERS = 40  # on the page


class Page(NamedTuple):
    """The values that the page shows; lists that are empty are not mentioned."""

    title: str
    model: str  # a line that describes it
    data: str  # a line that describes it
    cuts: str  # a sentence about what is longer than the context
    warnings: Sequence[str]
    lengths: Mapping[str, Array]  # in tokens, (E,) each, by a part of the examples
    examples: Mapping[str, Sequence[Token]]  # by a heading: what is learnt from, token by token
    log: Sequence[dict[str, Any]]  # the entries of log.jsonl
    settings: dict[str, Any]
    best: str = ""  # a line about the best validation
    stopped: str = ""  # a line about a run that stopped early
    before: Mapping[str, dict[str, Any]] = {}  # the results of each test
    after: Mapping[str, dict[str, Any]] = {}
    answers: Sequence[dict[str, Any]] | None = None  # the rows of answers.json
    samples: Sequence[dict[str, Any]] = ()  # step, question, answer and reward, drawn on the way


def run_page(page: Page) -> str:
    """Return the page as HTML."""
    answers = page.answers or []
    return render(
        "report",
        title=page.title,
        model=page.model,
        results=[*test_rows(page.before, page.after), *results_of(page.log)],
        best=page.best,
        stopped=page.stopped,
        data=page.data,
        cuts=page.cuts,
        warnings=page.warnings,
        quantiles=[f"{q:.0%}" for q in QUANTILES],
        lengths=[{"name": n, **Summary.of(c)._asdict()} for n, c in page.lengths.items()],
        curves=run_curves(page.log),
        examples=list(page.examples.items()),
        samples=page.samples,
        answers=[{**row, "question": question_of(row)} for row in answers[:MOST_ANSWERS]],
        answers_questions=page.answers is not None,
        more=max(0, len(answers) - MOST_ANSWERS),
        settings=list(page.settings.items()),
    )


def test_rows(
    before: Mapping[str, dict[str, Any]], after: Mapping[str, dict[str, Any]]
) -> list[dict[str, str]]:
    """Return each test's exact match, or accuracy, before and after; some have no before."""
    rows = []
    for name, result in after.items():
        measure = "exact_match" if "exact_match" in result else "accuracy"
        old, new = (
            f"{r['right']} of {r['asked']} ({r[measure]:.1%})" if r else ""
            for r in (before.get(name), result)
        )
        rows.append({"name": f"{name}, {measure.replace('_', ' ')}", "before": old, "after": new})
    return rows
