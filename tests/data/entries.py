"""An entry of each format with its record, and the errors of those that cannot be used."""

import json

import pytest

from minigpt2.data.loading import load_data
from minigpt2.data.records import Exchange, Record
from minigpt2.errors import UserError


def load_records(path, columns=None):
    """The records of a data set."""
    return load_data(path, columns).records


def message(role, content):
    return {"role": role, "content": content}


def shared(speaker, value):
    return {"from": speaker, "value": value}


TALK = [message("user", "Hi."), message("assistant", "Hello!")]
MORE = [message("system", "Be kind."), *TALK, message("user", "Why?"), message("assistant", "So.")]
SHARED = [shared("human", "Hi."), shared("gpt", "Hello!")]
FIRST = "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: "
MESSAGES = {"messages": TALK}

ENTRIES = {
    "Alpaca": (
        {"instruction": "Add.", "input": "1 + 2", "output": "3", "text": "passed over"},
        Record("Add.", "1 + 2", "3"),
    ),
    "Dolly": (
        {"instruction": "Add.", "context": "1 + 2", "response": "3", "category": "sum"},
        Record("Add.", "1 + 2", "3"),
    ),
    "prompt/completion": ({"prompt": "Say a", "completion": " b"}, Record("Say a", "", " b")),
    "question/answer": ({"question": "Who?", "answer": "I."}, Record("Who?", "", "I.")),
    "messages": (
        {"messages": MORE},
        Record("Why?", "", "So.", "Be kind.", (Exchange("Hi.", "Hello!"),)),
    ),
    "ShareGPT": (
        {"conversations": [shared("system", "Be kind."), *SHARED]},
        Record("Hi.", "", "Hello!", "Be kind."),
    ),
    "text": ({"text": "Once upon a time."}, Record("", "", "Once upon a time.")),
    "Alpaca pair": (
        {"instruction": "Add.", "input": "1 + 2", "output": "x", "chosen": "3", "rejected": "4"},
        Record("Add.", "1 + 2", "3", rejected="4"),
    ),
    "message pair": (
        {
            "prompt": MORE[:-1],
            "chosen": [message("assistant", "So.")],
            "rejected": [message("assistant", "No.")],
            "kind": "rude",
        },
        Record("Why?", "", "So.", "Be kind.", (Exchange("Hi.", "Hello!"),), "No.", "rude"),
    ),
    "pair": (
        {"prompt": "Add.", "chosen": "3", "rejected": "4"},
        Record("Add.", "", "3", rejected="4"),
    ),
    "question pair": (
        {"question": "2 + 2?", "chosen": "4", "rejected": "5", "kind": "wrong"},
        Record("2 + 2?", "", "4", rejected="5", kind="wrong"),
    ),
    "dialogue pair": (
        {"chosen": FIRST + "So.", "rejected": FIRST + "No."},
        Record("Why?", "", "So.", "", (Exchange("Hi.", "Hello!"),), "No."),
    ),
}


def saved(folder, entries):
    """A file of these entries."""
    path = folder / "data.json"
    path.write_text(json.dumps(entries))
    return path


def refusal(folder, entries, columns=None):
    """The error that a data set raises."""
    with pytest.raises(UserError) as refused:
        load_data(saved(folder, entries), columns)
    assert "\n" not in str(refused.value)
    return str(refused.value)
