"""Exam: the same questions before and after, and what became of the answers."""

from typing import Any

from minigpt2.commands.setup import Material
from minigpt2.data.records import Record
from minigpt2.reports.run_log import Report
from minigpt2.training.evaluation import Answer, answer_all, exact_match, longest_reference

Answers = dict[str, list[Answer]]  # by the name of the test


def sit(material: Material, max_new_tokens: int, report: Report, when: str) -> Answers:
    """Answer every test question and print the exact match; without tests, only the samples."""
    parameters, tokenizer = material.parameters, material.tokenizer
    answers = {}
    samples = {"samples": material.samples} if material.samples else {}
    for name, records in (material.tests or samples).items():
        counted = name in material.tests
        longest = longest_reference(tokenizer, records) if counted else max_new_tokens
        with report.progress(f"answering {name}", len(records)) as advance:
            answers[name] = answer_all(
                parameters, tokenizer, records, longest, advance, material.template
            )
        if counted:
            right, share = sum(a.exact for a in answers[name]), exact_match(answers[name])
            result = {"right": right, "asked": len(records), "exact_match": share}
            text = f"{name}: {right} of {len(records)} exactly right ({share:.1%})"
            report.say(when, text, **{name: result})
    return answers


def compare(samples: list[Record], before: Answers, after: Answers, report: Report) -> None:
    """Write all answers, before and after; print those to the samples."""
    rows = [
        ({"test": name, **new.record.as_entry(), "before": old.answer, "after": new.answer}, new)
        for name in after
        for old, new in zip(before[name], after[name], strict=True)
    ]
    report.write("answers.json", [row for row, _ in rows])
    chosen = [row for record in samples for row, new in rows if new.record is record]
    report.summary["samples"] = chosen
    for row in chosen:
        print_answers(row, report)


def print_answers(row: dict[str, Any], report: Report) -> None:
    """Print a question, its answers and the reference, each on one line."""
    question = " / ".join(filter(None, (row["instruction"], row["input"])))
    report.console.print(f"\n{shorten(question)}", markup=False, style="bold")
    for label, key in (("before", "before"), ("after", "after"), ("right", "output")):
        report.console.print(f"  {label:<7} {shorten(row[key])}", markup=False)


def shorten(text: str, width: int = 120) -> str:
    """Return a text on one line, cut to a width."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
