"""Formats: how entries become records, told apart by their fields.

    Alpaca              instruction, output, and perhaps input
    Dolly               instruction, response, and perhaps context
    prompt/completion   prompt, completion
    question/answer     question, answer
    messages            messages: a list of {role, content}, the roles system, user, assistant
    ShareGPT            conversations: a list of {from, value}, from system, human, gpt
    text                text
    Alpaca pair         instruction, chosen, rejected, and perhaps input
    pair                prompt, chosen, rejected
    dialogue pair       chosen, rejected: transcripts of "Human:" and "Assistant:" paragraphs, or
                        lists of messages, alike up to the last answer

All entries of a data set have the format of its first one.  Other fields are passed over.
Whatever cannot be used is refused, with its place.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.data.files import Entry, read_entries
from minigpt2.data.records import Exchange, Record
from minigpt2.errors import UserError

SPEAKERS = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \n]?")

Turn = tuple[str, str]  # speaker, one of SPEAKERS' values, and text


class Format(NamedTuple):
    """A format: its fields, how an entry becomes a record, and the template it is used with."""

    name: str
    fields: tuple[str, ...]
    make: Callable[[Entry], Record]
    template: str
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        perhaps = "".join(f", {field} (may be empty)" for field in self.optional)
        return f"{self.name}: {', '.join(self.fields)}{perhaps}"


def text_field(entry: Entry, field: str, may_be_empty: bool = False) -> str:
    """Return a field that must be text; an optional one that is absent is empty."""
    value = entry.value.get(field, "") if may_be_empty else entry.value[field]
    return checked(value, f"{entry.where}: field '{field}'", may_be_empty)


def checked(text: Any, what: str, may_be_empty: bool = False) -> str:
    """Return text as it is; raises UserError, naming `what`, where it is none or is empty."""
    if not isinstance(text, str):
        raise UserError(f"{what} is not text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{what} is no text: half a surrogate pair")
    if not (text.strip() or may_be_empty):
        raise UserError(f"{what} is empty")
    return text


def single(question: str, answer: str, more: str = "") -> Callable[[Entry], Record]:
    """Return what makes a record of an entry that has its texts in these fields."""

    def make(entry: Entry) -> Record:
        given = text_field(entry, more, may_be_empty=True) if more else ""
        return Record(text_field(entry, question), given, text_field(entry, answer))

    return make


def with_rejected(make: Callable[[Entry], Record]) -> Callable[[Entry], Record]:
    """Return what makes a record with a rejected answer."""
    return lambda entry: make(entry)._replace(rejected=text_field(entry, "rejected"))


def plain_text(entry: Entry) -> Record:
    """Make a record of an entry that is a text."""
    return Record("", "", text_field(entry, "text"))


def conversation(field: str, speaker: str, said: str) -> Callable[[Entry], Record]:
    """Return what makes a record of an entry whose `field` lists turns."""

    def make(entry: Entry) -> Record:
        where = f"{entry.where}: field '{field}'"
        return record_of(turns_of(entry.value[field], where, speaker, said), where)

    return make


def turns_of(turns: Any, where: str, speaker: str = "role", said: str = "content") -> list[Turn]:
    """Check a list of turns."""
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{where} is no list of turns, or an empty one")
    found = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict) or not {speaker, said} <= turn.keys():
            raise UserError(f"{where}, turn {i}, is no object with '{speaker}' and '{said}'")
        if turn[speaker] not in SPEAKERS:
            raise UserError(
                f"{where}, turn {i}, has the {speaker} {turn[speaker]!r}; known are "
                f"{', '.join(SPEAKERS)}"
            )
        found.append((SPEAKERS[turn[speaker]], checked(turn[said], f"{where}, turn {i},")))
    return found


def record_of(turns: Sequence[Turn], where: str) -> Record:
    """Make a record of turns: perhaps the system's, then the user's and the assistant's in turn."""
    system = turns[0][1] if turns[0][0] == "system" else ""
    rest = turns[1:] if system else turns
    for i, (speaker, _) in enumerate(rest):
        expected = ("user", "assistant")[i % 2]
        if speaker != expected:
            raise UserError(
                f"{where}, turn {i + bool(system)}, is the {speaker}'s, not the {expected}'s"
            )
    if len(rest) % 2 or not rest:
        raise UserError(f"{where} ends with the user's turn: there is no answer to learn")
    texts = [text for _, text in rest]
    said = [Exchange(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return Record(said[-1].question, "", said[-1].answer, system, tuple(said[:-1]))


def dialogue_pair(entry: Entry) -> Record:
    """Make a record of two dialogues that differ in their last answer."""
    chosen, rejected = (
        record_of(dialogue(entry.value[f], f"{entry.where}: field '{f}'"), entry.where)
        for f in ("chosen", "rejected")
    )
    if chosen._replace(output="") != rejected._replace(output=""):
        raise UserError(f"{entry.where}: 'chosen' and 'rejected' differ before the last answer")
    return chosen._replace(rejected=rejected.output)


def dialogue(value: Any, where: str) -> list[Turn]:
    """Return the turns of a transcript, or of a list of messages."""
    if isinstance(value, list):
        return turns_of(value, where)
    before, *parts = TURN.split(checked(value, where))
    if before.strip() or not parts:
        raise UserError(f"{where} does not begin with 'Human:'")
    speakers = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [(speakers[s], checked(text.strip(), f"{where}, a turn,")) for s, text in pairs]


FORMATS = (
    Format(
        "Alpaca pair",
        ("instruction", "chosen", "rejected"),
        with_rejected(single("instruction", "chosen", "input")),
        "alpaca",
        ("input",),
    ),
    Format(
        "pair",
        ("prompt", "chosen", "rejected"),
        with_rejected(single("prompt", "chosen")),
        "alpaca",
    ),
    Format("dialogue pair", ("chosen", "rejected"), dialogue_pair, "chat"),
    Format("messages", ("messages",), conversation("messages", "role", "content"), "chat"),
    Format("ShareGPT", ("conversations",), conversation("conversations", "from", "value"), "chat"),
    Format(
        "Alpaca",
        ("instruction", "output"),
        single("instruction", "output", "input"),
        "alpaca",
        ("input",),
    ),
    Format(
        "Dolly",
        ("instruction", "response"),
        single("instruction", "response", "context"),
        "alpaca",
        ("context",),
    ),
    Format("prompt/completion", ("prompt", "completion"), single("prompt", "completion"), "raw"),
    Format("question/answer", ("question", "answer"), single("question", "answer"), "qa"),
    Format("text", ("text",), plain_text, "raw"),
)
ALPACA_FORMAT = next(known for known in FORMATS if known.name == "Alpaca")
KNOWN = "; ".join(map(str, FORMATS))


class DataSet(NamedTuple):
    """The records of a data set, and the format they came in."""

    records: list[Record]
    format: Format


def load_data(path: Path, columns: Mapping[str, str] | None = None) -> DataSet:
    """Read a data set; `columns` says which field of an entry stands for a format's field.

    Raises UserError when the data, or one of its entries, cannot be used.
    """
    entries = [renamed(entry, columns or {}) for entry in read_entries(Path(path))]
    first = entries[0]
    known = format_of(first)
    for entry in entries[1:]:
        if not fits(entry, known):
            raise odd_one(entry, first, known)
    return DataSet([known.make(entry) for entry in entries], known)


def load_records(path: Path, columns: Mapping[str, str] | None = None) -> list[Record]:
    """Read the records of a data set (`load_data`)."""
    return load_data(path, columns).records


def renamed(entry: Entry, columns: Mapping[str, str]) -> Entry:
    """Return an entry, which must be an object, with its fields under the formats' names."""
    if not isinstance(entry.value, dict):
        kind = type(entry.value).__name__
        raise UserError(f"{entry.where} is {kind}, not an object; expected one of {KNOWN}")
    for new, old in columns.items():
        if old not in entry.value:
            raise UserError(f"{entry.where} has no field '{old}', which columns names for '{new}'")
    taken = {new: entry.value[old] for new, old in columns.items()}
    rest = {k: v for k, v in entry.value.items() if k not in columns.values()}
    return entry._replace(value={**rest, **taken})


def fits(entry: Entry, known: Format) -> bool:
    """Whether an entry has a format's fields."""
    return all(field in entry.value for field in known.fields)


def format_of(entry: Entry) -> Format:
    """Return the first format whose fields an entry has."""
    for known in FORMATS:
        if fits(entry, known):
            return known
    near = max(FORMATS, key=lambda f: sum(field in entry.value for field in f.fields))
    if not any(field in entry.value for field in near.fields):
        has = ", ".join(entry.value) or "no fields"
        raise UserError(f"{entry.where} has {has}: no format is known; expected one of {KNOWN}")
    raise lacking(entry, near)


def lacking(entry: Entry, known: Format) -> UserError:
    """Return what is said of an entry that lacks a field."""
    field = next(field for field in known.fields if field not in entry.value)
    return UserError(f"{entry.where} has no field '{field}'; expected {known}")


def odd_one(entry: Entry, first: Entry, known: Format) -> UserError:
    """Return what is said of an entry that has another format than the first, or none."""
    other = next((f for f in FORMATS if fits(entry, f)), None)
    if other is None:
        return lacking(entry, known)
    return UserError(
        f"{entry.where} is {other.name}, but {first.where} is {known.name}: a data set has one "
        "format; split it"
    )
