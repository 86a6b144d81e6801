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
    dialogue pair       chosen, rejected: transcripts with "Human:" and "Assistant:" paragraphs, or
                        lists of messages; the two are equal up to the last answer

An optional field may be absent, null or empty.  An entry that cannot be used is refused, and the
error names its place.
"""

from collections.abc import Callable
from typing import NamedTuple

from minigpt2.data.conversations import check_text, read_turns, record_of_turns, split_transcript
from minigpt2.data.files import Entry
from minigpt2.data.records import Exchange, Record
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

    def __str__(self) -> str:
        optional = f" (optionally {', '.join(self.optional)})" if self.optional else ""
        return f"{self.name}: {', '.join(self.fields)}{optional}"


def text_field(entry: Entry, field: str, may_be_empty: bool = False) -> str:
    """Return a field that must be text; if it may be empty, it may also be absent or null."""
    value = entry.value.get(field)
    if value is None and may_be_empty:
        return ""
    return check_text(value, f"{entry.where}: field '{field}'", may_be_empty)


def single_turn(question: str, answer: str, extra: str = "") -> Callable[[Entry], Record]:
    """Return a function that reads a record from these fields; `extra` holds the input."""

    def to_record(entry: Entry) -> Record:
        input_text = text_field(entry, extra, may_be_empty=True) if extra else ""
        return Record(text_field(entry, question), input_text, text_field(entry, answer))

    return to_record


def alpaca(answer: str) -> Callable[[Entry], Record]:
    """Return a function that reads a record from Alpaca's fields, the answer from this field."""
    single = single_turn("instruction", answer, "input")

    def to_record(entry: Entry) -> Record:
        system = text_field(entry, "system", may_be_empty=True)
        return single(entry)._replace(system=system, earlier=history(entry))

    return to_record


def history(entry: Entry) -> tuple[Exchange, ...]:
    """Return the earlier exchanges that an entry lists as [question, answer]."""
    pairs, where = entry.value.get("history"), f"{entry.where}: field 'history'"
    if not isinstance(pairs or [], list):
        raise UserError(f"{where} is not a list of earlier questions and answers")
    for i, pair in enumerate(pairs or []):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(f"{where}, exchange {i}, is not a list of a question and its answer")
        for text in pair:
            check_text(text, f"{where}, exchange {i},")
    return tuple(Exchange(*pair) for pair in pairs or [])


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


MESSAGE, SHARED = ("role", "content", "weight"), ("from", "value", "weight")
FORMATS = (
    Format(
        "Alpaca pair",
        ("instruction", "chosen", "rejected"),
        with_rejected(alpaca("chosen")),
        "alpaca",
        ("input", "system", "history"),
    ),
    Format(
        "pair",
        ("prompt", "chosen", "rejected"),
        with_rejected(single_turn("prompt", "chosen")),
        "alpaca",
    ),
    Format("dialogue pair", ("chosen", "rejected"), dialogue_pair, "chat", turn=MESSAGE),
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
ALPACA_FORMAT = next(data_format for data_format in FORMATS if data_format.name == "Alpaca")
ALL_FORMATS = "; ".join(map(str, sorted(FORMATS, key=lambda f: "rejected" in f.fields)))


def has_fields(entry: Entry, data_format: Format) -> bool:
    """Whether an entry has a format's fields."""
    return all(field in entry.value for field in data_format.fields)


def find_format(entry: Entry) -> Format:
    """Return the first format whose fields an entry has; raises UserError if there is none."""
    for data_format in FORMATS:
        if has_fields(entry, data_format):
            return data_format
    nearest = max(FORMATS, key=lambda data_format: nearness(entry, data_format))
    if not any(field in entry.value for field in nearest.fields):
        raise UserError(
            f"{entry.where} has {fields_of(entry)}: no known format has them; "
            f"expected one of {ALL_FORMATS}"
        )
    raise missing_field(entry, nearest)


def nearness(entry: Entry, data_format: Format) -> tuple[int, int]:
    """Return how many of a format's fields an entry has, and minus how many it lacks."""
    present = sum(field in entry.value for field in data_format.fields)
    return present, present - len(data_format.fields)


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
