"""Results of align: the numbers of all stages, and the tables that show them."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from minigpt2.alignment.exam import Exam, Written, changed, marks
from minigpt2.commands.align_exams import Exams
from minigpt2.commands.align_stages import Stage
from minigpt2.data.almanac.preferences import KINDS
from minigpt2.data.records import Record
from minigpt2.reading import parse_json, read_text
from minigpt2.reports.align_page import Grid
from minigpt2.reports.run_log import LOG, SUMMARY

STYLES = {"mixture": "tuned", "dpo": "DPO", "ppo": "PPO", "hacked": "PPO, hacked"}
CURVES = ("ppo", "hacked")
LAST = 3  # steps whose mean is a run's last KL
SHOWN = 6  # questions whose answers are shown


def results_of(every: Sequence[Stage], exams: Exams) -> dict[str, Any]:
    """Return all numbers."""
    by_name = {stage.name: stage for stage in every}
    taken = {stage.name: exams.of(stage.name) for stage in every if stage.modes}
    records = exams.records
    logs = {stage.name: entries_of(stage) for stage in every}
    return {
        "reward_models": {s.name: exams.judged(s) for s in every if not s.modes},
        "exams": {name: marks_of(exam, exams) for name, exam in taken.items()},
        "changes": {
            "dpo": compared(records, taken["mixture"], taken["dpo"], "right"),
            "ppo": compared(records, taken["mixture"], taken["ppo"], "right"),
            "hacked": compared(records, taken["mixture"], taken["hacked"], "right"),
            "grpo": compared(records, taken["undertuned"], taken["grpo"], "checked"),
        },
        "kl": {name: last_mean(logs[name], "kl") for name in ("ppo", "hacked", "grpo")},
        "curves": {
            name: {
                "reward": [(e["step"], e["reward"]) for e in logs[name] if "reward" in e],
                "right": [
                    (step, marks(records, exam["greedy"])["right"] / len(records))
                    for step, exam in {0: taken["mixture"], **exams.along(by_name[name])}.items()
                ],
            }
            for name in CURVES
        },
        "answers": answers_of(records, taken),
        "seconds": exams.seconds() + sum(seconds_of(stage) for stage in every),
    }


def marks_of(exam: Exam, exams: Exams) -> dict[str, Any]:
    """Return an exam's marks by the way of decoding, of each list of questions and of all."""
    results = {}
    for mode, answers in exam.items():
        lists = {"all": marks(exams.records, answers)}
        start = 0
        for name, records in exams.questions.items():
            lists[name] = marks(records, answers[start : start + len(records)])
            start += len(records)
        results[mode] = lists
    return results


def compared(records: Sequence[Record], before: Exam, after: Exam, mark: str) -> dict[str, int]:
    """Return how many greedy answers have got a mark, and how many have lost it."""
    return changed(records, before["greedy"], after["greedy"], mark)


def answers_of(records: Sequence[Record], taken: dict[str, Exam]) -> list[dict[str, str]]:
    """Return some questions, from each list in turn, with the answers of all models."""
    places = [k * len(records) // SHOWN for k in range(SHOWN)]

    def text(answer: Written) -> str:
        return answer.text if answer.ended else f"{answer.text} …"

    return [
        {
            "question": " / ".join(filter(None, (records[i].instruction, records[i].input))),
            "reference": records[i].output,
            **{name: text(exam["greedy"][i]) for name, exam in taken.items()},
        }
        for i in dict.fromkeys(places)
    ]


def entries_of(stage: Stage) -> list[dict[str, Any]]:
    """Return the entries of a run's log."""
    path = stage.folder / LOG
    return [parse_json(line, path) for line in read_text(path).splitlines()]


def last_mean(entries: Sequence[dict[str, Any]], key: str) -> float:
    """Return the mean of a number over the last steps."""
    return fmean([entry[key] for entry in entries if key in entry][-LAST:])


def seconds_of(stage: Stage) -> float:
    """Return how long a run took."""
    path = stage.folder / SUMMARY
    return parse_json(read_text(path, 1 << 26), path)["done"]["seconds"]


def tables_of(results: dict[str, Any]) -> list[Grid]:
    """Return the tables of all numbers."""
    return [rewards(results), styles(results), arithmetic(results)]


def rewards(results: dict[str, Any]) -> Grid:
    """Return the table of both reward models."""
    models = results["reward_models"]
    rows = [
        [f"right over {kind}", *(f"{model['accuracy'][kind]:.1%}" for model in models.values())]
        for kind in KINDS
    ]
    rows += [
        [
            f"score of an answer: {kind}",
            *(f"{model['scores'][kind]:+.2f}" for model in models.values()),
        ]
        for kind in ("right", *KINDS, "empty")
    ]
    return Grid("Reward models, on held-out pairs", ("", "all kinds", "padded alone"), rows)


def styles(results: dict[str, Any]) -> Grid:
    """Return the table of the models that learn to be direct."""
    rows = []
    for name, title in STYLES.items():
        greedy, sampled = (results["exams"][name][mode]["all"] for mode in ("greedy", "sampled"))
        change = results["changes"].get(name)
        rows.append(
            [
                title,
                share(sampled, "direct"),
                share(sampled, "right"),
                share(greedy, "direct"),
                share(greedy, "right"),
                f"+{change['gained']} -{change['lost']}" if change else "",
                f"{results['kl'][name]:.2f}" if name in results["kl"] else "",
            ]
        )
    columns = ("", "direct, sampled", "right", "direct, greedy", "right", "changed", "KL")
    return Grid("Direct answers", columns, rows)


def arithmetic(results: dict[str, Any]) -> Grid:
    """Return the table of GRPO."""
    rows = []
    for name, title in (("undertuned", "a few steps"), ("grpo", "GRPO")):
        greedy, sampled = (results["exams"][name][mode] for mode in ("greedy", "sampled"))
        change = results["changes"].get(name)
        rows.append(
            [
                title,
                share(sampled["arithmetic"], "checked"),
                share(greedy["arithmetic"], "checked"),
                share(greedy["arithmetic"], "exact"),
                share(greedy["facts"], "exact"),
                f"+{change['gained']} -{change['lost']}" if change else "",
                f"{results['kl'][name]:.2f}" if name in results["kl"] else "",
            ]
        )
    columns = ("", "sums, sampled", "sums, greedy", "exact wording", "facts", "changed", "KL")
    return Grid("Arithmetic, by a check", columns, rows)


def share(counts: dict[str, int], mark: str) -> str:
    """Return the share of answers that have a mark."""
    return f"{counts[mark] / counts['asked']:.1%}"
