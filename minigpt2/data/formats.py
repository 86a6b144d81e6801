"""Formats: how the entries of common data sets become records.

    Alpaca              instruction, output, optionally input, system, and history: earlier
                        exchanges as a list of [question, answer]
    Dolly               instruction, response, optionally context
    prompt/completion   prompt, completion
    question/answer     question, answer
    messages            messages: a list of {role, content}; roles: system, user, assistant; the
                        assistant's messages may have a weight, 0 or 1
    ShareGPT            conversations: a list of {from, value}; from: system, human, gpt
    text                text
    Alpaca pair         instruction, chosen, rejected, optionally input, system, history
    pair                prompt, chosen, rejected
    message pair        prompt: a list of messages; chosen, rejected: the assistant's message, in a
                        list; or prompt: a question, and both whole dialogues
    dialogue pair       chosen, rejected: transcripts with "Human:" and "Assistant:" paragraphs, or
                        lists of messages; the two are equal up to the last answer

A pair may have a `kind`, a word for what is wrong with the rejected answer.  An optional field may
be absent, null or empty.  An entry that cannot be used is refused, and the error names its place.
"""

from collections.abc import Callable
from typing import NamedTuple

from minigpt2.data.fields import (
    alpaca,
    conversation,
    dialogue_pair,
    message_pair,
    plain_text,
    single_turn,
    with_kind,
    with_rejected,
)
from minigpt2.data.files import Entry
from minigpt2.data.records import Record
from minigpt2.errors import UserError
from minigpt2.wording import shorten


class Format(NamedTuple):
    """A format: its fields, how an entry becomes a record, and the template of its prompts."""

    name: str
    fields: tuple[str, ...]
    to_record: Callable[[Entry], Record]
    template: str
    optional: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()  # the fields of a message
    needs_list: str = ""  # a field whose value must be a list: else the entry has another format

    def __str__(self) -> str:
        optional = f" (optionally {', '.join(self.optional)})" if self.optional else ""
        return f"{self.name}: {', '.join(self.fields)}{optional}"


MESSAGE, SHARED = ("role", "content", "weight"), ("from", "value", "weight")
FORMATS = (
    Format(
        "Alpaca pair",
        ("instruction", "chosen", "rejected"),
        with_rejected(alpaca("chosen")),
        "alpaca",
        ("input", "system", "history", "kind"),
    ),
    Format(
        "message pair",
        ("prompt", "chosen", "rejected"),
        with_kind(message_pair),
        "chat",
        ("kind",),
        turn=MESSAGE,
        needs_list="chosen",
    ),
    Format(
        "pair",
        ("prompt", "chosen", "rejected"),
        with_rejected(single_turn("prompt", "chosen")),
        "alpaca",
        ("kind",),
    ),
    Format(
        "question pair",
        ("question", "chosen", "rejected"),
        with_rejected(single_turn("question", "chosen")),
        "qa",
        ("kind",),
    ),
    Format(
        "dialogue pair",
        ("chosen", "rejected"),
        with_kind(dialogue_pair),
        "chat",
        ("kind",),
        turn=MESSAGE,
    ),
    Format("messages", ("messages",), conversation("messages", *MESSAGE[:2]), "chat", turn=MESSAGE),
    Format(
        "ShareGPT",
        ("conversations",),
        conversation("conversations", *SHARED[:2]),
        "chat",
        turn=SHARED,
    ),
    Format(
        "Alpaca",
        ("instruction", "output"),
        alpaca("output"),
        "alpaca",
        ("input", "system", "history"),
    ),
    Format(
        "Dolly",
        ("instruction", "response"),
        single_turn("instruction", "response", "context"),
        "alpaca",
        ("context",),
    ),
    Format(
        "prompt/completion", ("prompt", "completion"), single_turn("prompt", "completion"), "raw"
    ),
    Format("question/answer", ("question", "answer"), single_turn("question", "answer"), "qa"),
    Format("text", ("text",), plain_text, "raw"),
)
# Of prompts alone, which a policy answers.
PROMPT_FORMATS = (
    Format("prompts", ("prompt",), single_turn("prompt"), "raw"),
    Format("instructions", ("instruction",), alpaca(), "alpaca", ("input", "system", "history")),
    Format("questions", ("question",), single_turn("question"), "qa"),
)
ALPACA_FORMAT = next(data_format for data_format in FORMATS if data_format.name == "Alpaca")
PREFERENCE_FORMATS = [data_format for data_format in FORMATS if "rejected" in data_format.fields]
ALL_FORMATS = "; ".join(map(str, sorted(FORMATS, key=lambda f: "rejected" in f.fields)))


def has_fields(entry: Entry, data_format: Format) -> bool:
    """Whether an entry has a format's fields, and a list where the format needs one."""
    present = all(field in entry.value for field in data_format.fields)
    return present and has_list(entry, data_format)


def has_list(entry: Entry, data_format: Format) -> bool:
    """Whether an entry has a list where a format needs one."""
    needed = data_format.needs_list
    return not needed or isinstance(entry.value.get(needed), list)


def find_format(entry: Entry, *, prompts: bool = False) -> Format:
    """Return the first format whose fields an entry has; raises UserError if there is none.

    With `prompts`, an entry may also be a prompt alone.
    """
    known = FORMATS + PROMPT_FORMATS if prompts else FORMATS
    for data_format in known:
        if has_fields(entry, data_format):
            return data_format
    nearest = max(FORMATS, key=lambda data_format: nearness(entry, data_format))
    if not any(field in entry.value for field in nearest.fields):
        raise UserError(
            f"{entry.where} has {fields_of(entry)}: no known format has them; "
            f"expected one of {ALL_FORMATS}"
        )
    raise missing_field(entry, nearest)


def nearness(entry: Entry, data_format: Format) -> tuple[int, int, bool]:
    """Return how many of a format's fields an entry has, and minus how many it lacks.

    Last comes whether the entry has the list that the format needs, or the format needs none.
    """
    present = sum(field in entry.value for field in data_format.fields)
    return present, present - len(data_format.fields), has_list(entry, data_format)


def fields_of(entry: Entry) -> str:
    """Return the names of an entry's fields, for errors."""
    return shorten(", ".join(entry.value)) or "no fields"


def missing_field(entry: Entry, data_format: Format) -> UserError:
    """Return the error for an entry that lacks a field of its format."""
    field = next(field for field in data_format.fields if field not in entry.value)
    return UserError(
        f"{entry.where} has no field '{field}'; expected {data_format}; it has {fields_of(entry)}"
    )


def wrong_format(entry: Entry, first: Entry, data_format: Format) -> UserError:
    """Return the error for an entry that does not have the format of the first one."""
    other = next((f for f in FORMATS if has_fields(entry, f)), None)
    if other is None:
        return missing_field(entry, data_format)
    return UserError(
        f"{entry.where} is {other.name}, but {first.where} is {data_format.name}: "
        "a data set has one format; split it"
    )
