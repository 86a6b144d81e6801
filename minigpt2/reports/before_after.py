"""Before and after: a model answers the same questions before and after its training."""

from collections.abc import Callable
from typing import Any

from minigpt2.data.records import Record
from minigpt2.inference.model import Model
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import RunLog
from minigpt2.training.evaluation import Answer, Limits, answer_all, describe_reach, exact_match
from minigpt2.wording import shorten

Advance = Callable[[int], None]  # counts what has been done
Answers = dict[str, list[Answer]]  # by the name of the test


def answer_tests(
    model: Model,
    tests: dict[str, list[Record]],
    limits: Limits,
    log: RunLog,
    when: str,
    *,
    checked: Callable[[Advance], Advance] = lambda advance: advance,
) -> Answers:
    """Answer every test question, and print the exact match of each test.

    The test "samples" is not scored.  `checked` makes a function that counts answers stop the run.
    """
    answers = {}
    for name, records in tests.items():
        with progress(f"answering {name}", len(records), log.console) as advance:
            answers[name] = answer_all(model, records, limits, checked(advance))
        if name != "samples":
            right, share = sum(a.exact for a in answers[name]), exact_match(answers[name])
            result = {"right": right, "asked": len(records), "exact_match": share}
            text = f"{name}: {right} of {len(records)} exactly right ({share:.1%})"
            log.say(when, text + describe_reach(answers[name]))
            log.summary.setdefault(when, {})[name] = result
    return answers


def compare(before: Answers, after: Answers, samples: list[Record], log: RunLog) -> list[dict]:
    """Write all answers to answers.json, print those to `samples`, and return all rows."""
    pairs = [
        (name, old, new)
        for name in after
        for old, new in zip(before[name], after[name], strict=True)
    ]
    rows = [
        {"test": name, **new.record.as_entry(), "before": old.answer, "after": new.answer}
        for name, old, new in pairs
    ]
    log.write("answers.json", rows)
    printed = [
        row
        for record in samples
        for row, (_, _, new) in zip(rows, pairs, strict=True)
        if new.record is record
    ]
    log.summary["samples"] = printed
    for row in printed:
        print_answers(row, log)
    return rows


def print_answers(row: dict[str, Any], log: RunLog) -> None:
    """Print a question, its answers and the reference, each on one line."""
    log.console.print(f"\n{shorten(question_of(row))}", style="bold")
    labels = [("before", "before"), ("after", "after")]
    labels += [("right", "output")] if row["output"] else []  # a prompt alone has none
    for label, key in labels:
        log.console.print(f"  {label:<7} {shorten(row[key])}")


def question_of(row: dict[str, Any]) -> str:
    """Return the question of a row, with its input, as one text."""
    return " / ".join(filter(None, (row["instruction"], row["input"])))
