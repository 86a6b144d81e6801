"""Questions for runs on policy, and what tests of `ppo` and `grpo` share."""

import json

from minigpt2.reports.run_log import RunLog

QUICK = ("--max-new-tokens", 4, "--samples", 1, "--log-every", 1, "--device", "cpu")
QUICK = (*QUICK, "--learning-rate", 1e-3, "--save-every", 2)


def questions(count=6):
    """Sums with their answers."""
    return [
        {"instruction": f"Add {i} and 1.", "output": f"{i} + 1 = {i + 1}"} for i in range(count)
    ]


def write_questions(path, entries=None):
    """Write questions to a file."""
    path.write_text(json.dumps(questions() if entries is None else entries))
    return path


def lines_of(folder):
    """The entries of a log that belong to steps."""
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [entry for entry in entries if "loss" in entry]


class Killed(BaseException):
    """The end of a process that does nothing more."""


def killed_after(stop):
    """A step's logging that ends the process after so many steps."""
    log_step = RunLog.add_step

    def add_step(log, result, steps, *, printed):
        log_step(log, result, steps, printed=printed)
        if result.step == stop:
            raise Killed

    return add_step


def length_score(answers, numbers):
    """A reward that differs between answers: the share of even tokens."""
    return [sum(token % 2 == 0 for token in a.ids) / len(a.ids) for a in answers]


PLAIN = [{"instruction": "Say a word.", "output": "word"}]
LONG = [{"instruction": "Count. " * 60, "output": "1 + 1 = 2"}]
TEXTS = ["once upon a time"]
COMMON = {  # what both refuse: entries of the data, options, words
    "two rewards": (None, ("--reward-model", "x"), "and not both"),
    "temperature 0": (None, ("--temperature", 0), "temperature must be above 0, not 0"),
    "temperature below 0": (None, ("--temperature", -1), "temperature must be at least 0"),
    "top-k": (None, ("--top-k", 50), "top_k would change them, and every ratio"),
    "top-p": (None, ("--top-p", 0.9), "top_p would change them, and every ratio"),
    "a penalty": (None, ("--repetition-penalty", 1.2), "a repetition penalty would change them"),
    "dropout": (None, ("--dropout", 0.1), "there is no dropout in alignment"),
    "no room": (LONG, (), "no prompt leaves room for an answer of 4 tokens in the context of 96"),
    "no record to check": (PLAIN, (), "no answer can meet the check 'equation', which needs an eq"),
    "a check that is none": (None, ("--check", "magic"), "check"),
    "no prompts": (None, ("--prompts", 0), "prompts must be at least 1"),
    "a context too long": (None, ("--context", 999), "context 999 is longer than the 96"),
}
