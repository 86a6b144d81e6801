"""Formats: how the entries of common data sets become records.

    Alpaca              instruction, output, optionally input
    Dolly               instruction, response, optionally context
    prompt/completion   prompt, completion
    question/answer     question, answer
    messages            messages: a list of {role, content}; roles: system, user, assistant
    ShareGPT            conversations: a list of {from, value}; from: system, human, gpt
    text                text
    Alpaca pair         instruction, chosen, rejected, optionally input
    pair                prompt, chosen, rejected
    dialogue pair       chosen, rejected: transcripts with "Human:" and "Assistant:" paragraphs, or
                        lists of messages; the two are equal up to the last answer

The fields of the first entry decide the format, and all entries must have it.  Other fields are
ignored.  An entry that cannot be used is refused, and the error names its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from minigpt2.data.conversations import check_text, read_turns, record_of_turns, split_transcript
from minigpt2.data.files import Entry, read_entries
from minigpt2.data.records import Record
from minigpt2.errors import UserError
from minigpt2.reading import json_kind


class Format(NamedTuple):
    """A format: its fields, how an entry becomes a record, and the template of its prompts."""

    name: str
    fields: tuple[str, ...]
    to_record: Callable[[Entry], Record]
    template: str
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        optional = "".join(f", {field} (may be empty)" for field in self.optional)
        return f"{self.name}: {', '.join(self.fields)}{optional}"


def text_field(entry: Entry, field: str, may_be_empty: bool = False) -> str:
    """Return a field that must be text; if it may be empty, it may also be absent."""
    value = entry.value.get(field, "") if may_be_empty else entry.value[field]
    return check_text(value, f"{entry.where}: field '{field}'", may_be_empty)


def single_turn(question: str, answer: str, extra: str = "") -> Callable[[Entry], Record]:
    """Return a function that reads a record from these fields; `extra` holds the input."""

    def to_record(entry: Entry) -> Record:
        input_text = text_field(entry, extra, may_be_empty=True) if extra else ""
        return Record(text_field(entry, question), input_text, text_field(entry, answer))

    return to_record


def with_rejected(to_record: Callable[[Entry], Record]) -> Callable[[Entry], Record]:
    """Return a function that also reads the rejected answer."""
    return lambda entry: to_record(entry)._replace(rejected=text_field(entry, "rejected"))


def plain_text(entry: Entry) -> Record:
    """Read a record from an entry that is a plain text."""
    return Record("", "", text_field(entry, "text"))


def conversation(field: str, speaker: str, text: str) -> Callable[[Entry], Record]:
    """Return a function that reads a record from a field that lists messages.

    `speaker` and `text` are the fields of a message.
    """

    def to_record(entry: Entry) -> Record:
        where = f"{entry.where}: field '{field}'"
        turns = read_turns(entry.value[field], where, speaker_field=speaker, text_field=text)
        return record_of_turns(turns, where)

    return to_record


def dialogue(entry: Entry, field: str) -> Record:
    """Read a record from a field that is a transcript or a list of messages."""
    value, where = entry.value[field], f"{entry.where}: field '{field}'"
    if isinstance(value, list):
        return record_of_turns(read_turns(value, where), entry.where)
    return record_of_turns(split_transcript(check_text(value, where), where), entry.where)


def dialogue_pair(entry: Entry) -> Record:
    """Read a record from two dialogues that differ in their last answer."""
    chosen, rejected = dialogue(entry, "chosen"), dialogue(entry, "rejected")
    if chosen._replace(output="") != rejected._replace(output=""):
        raise UserError(f"{entry.where}: 'chosen' and 'rejected' differ before the last answer")
    return chosen._replace(rejected=rejected.output)


FORMATS = (
    Format(
        "Alpaca pair",
        ("instruction", "chosen", "rejected"),
        with_rejected(single_turn("instruction", "chosen", "input")),
        "alpaca",
        ("input",),
    ),
    Format(
        "pair",
        ("prompt", "chosen", "rejected"),
        with_rejected(single_turn("prompt", "chosen")),
        "alpaca",
    ),
    Format("dialogue pair", ("chosen", "rejected"), dialogue_pair, "chat"),
    Format("messages", ("messages",), conversation("messages", "role", "content"), "chat"),
    Format("ShareGPT", ("conversations",), conversation("conversations", "from", "value"), "chat"),
    Format(
        "Alpaca",
        ("instruction", "output"),
        single_turn("instruction", "output", "input"),
        "alpaca",
        ("input",),
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
ALPACA_FORMAT = next(data_format for data_format in FORMATS if data_format.name == "Alpaca")
ALL_FORMATS = "; ".join(map(str, FORMATS))  # for errors


class DataSet(NamedTuple):
    """The records of a data set, and the format they came in."""

    records: list[Record]
    format: Format


def load_data(path: Path, columns: Mapping[str, str] | None = None) -> DataSet:
    """Read a data set; `columns` maps a field of a format to the field that the data has for it.

    Raises UserError if the data, or one of its entries, cannot be used.
    """
    entries = [rename_fields(entry, columns or {}) for entry in read_entries(Path(path))]
    first = entries[0]
    data_format = find_format(first)
    for entry in entries[1:]:
        if not has_fields(entry, data_format):
            raise wrong_format(entry, first, data_format)
    return DataSet([data_format.to_record(entry) for entry in entries], data_format)


def load_records(path: Path, columns: Mapping[str, str] | None = None) -> list[Record]:
    """Read the records of a data set (`load_data`)."""
    return load_data(path, columns).records


def rename_fields(entry: Entry, columns: Mapping[str, str]) -> Entry:
    """Return an entry, which must be an object, with its fields under the formats' names."""
    if not isinstance(entry.value, dict):
        raise UserError(
            f"{entry.where} is {json_kind(entry.value)}, not an object; "
            f"expected one of {ALL_FORMATS}"
        )
    for new, old in columns.items():
        if old not in entry.value:
            raise UserError(f"{entry.where} has no field '{old}', which columns names for '{new}'")
    renamed = {new: entry.value[old] for new, old in columns.items()}
    rest = {k: v for k, v in entry.value.items() if k not in columns.values()}
    return entry._replace(value={**rest, **renamed})


def has_fields(entry: Entry, data_format: Format) -> bool:
    """Whether an entry has a format's fields."""
    return all(field in entry.value for field in data_format.fields)


def find_format(entry: Entry) -> Format:
    """Return the first format whose fields an entry has."""
    for data_format in FORMATS:
        if has_fields(entry, data_format):
            return data_format
    nearest = max(FORMATS, key=lambda data_format: nearness(entry, data_format))
    if not any(field in entry.value for field in nearest.fields):
        fields = ", ".join(entry.value) or "no fields"
        raise UserError(
            f"{entry.where} has {fields}: no known format has them; expected one of {ALL_FORMATS}"
        )
    raise missing_field(entry, nearest)


def nearness(entry: Entry, data_format: Format) -> tuple[int, int]:
    """Return how many of a format's fields an entry has, and minus how many it lacks."""
    present = sum(field in entry.value for field in data_format.fields)
    return present, present - len(data_format.fields)


def missing_field(entry: Entry, data_format: Format) -> UserError:
    """Return the error for an entry that lacks a field of its format."""
    field = next(field for field in data_format.fields if field not in entry.value)
    return UserError(f"{entry.where} has no field '{field}'; expected {data_format}")


def wrong_format(entry: Entry, first: Entry, data_format: Format) -> UserError:
    """Return the error for an entry that does not have the format of the first one."""
    other = next((f for f in FORMATS if has_fields(entry, f)), None)
    if other is None:
        return missing_field(entry, data_format)
    return UserError(
        f"{entry.where} is {other.name}, but {first.where} is {data_format.name}: "
        "a data set has one format; split it"
    )
