"""Fields: how the fields of an entry become a record.

Each function here reads a record from an entry of one format, or returns a function that does; it
raises UserError for an entry that cannot be used, and the error names its place.
"""

from collections.abc import Callable

from minigpt2.data.conversations import check_text, read_turns, record_of_turns, split_transcript
from minigpt2.data.files import Entry
from minigpt2.data.records import Exchange, Record
from minigpt2.errors import UserError


def text_field(entry: Entry, field: str, may_be_empty: bool = False) -> str:
    """Return a field that must be text; if it may be empty, it may also be absent or null."""
    value = entry.value.get(field)
    if value is None and may_be_empty:
        return ""
    return check_text(value, f"{entry.where}: field '{field}'", may_be_empty)


def single_turn(question: str, answer: str = "", extra: str = "") -> Callable[[Entry], Record]:
    """Return a function that reads a record from these fields; `extra` holds the input.

    Without a field for the answer, a record has none.
    """

    def to_record(entry: Entry) -> Record:
        input_text = text_field(entry, extra, may_be_empty=True) if extra else ""
        output = text_field(entry, answer) if answer else ""
        return Record(text_field(entry, question), input_text, output)

    return to_record


def alpaca(answer: str = "") -> Callable[[Entry], Record]:
    """Return a function that reads a record from Alpaca's fields, the answer from this field.

    Without a field for the answer, a record has none.
    """
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


def with_kind(to_record: Callable[[Entry], Record]) -> Callable[[Entry], Record]:
    """Return a function that also reads the kind of a pair."""
    return lambda entry: to_record(entry)._replace(kind=text_field(entry, "kind", True))


def with_rejected(to_record: Callable[[Entry], Record]) -> Callable[[Entry], Record]:
    """Return a function that also reads the rejected answer, which may be empty, and the kind."""

    def read(entry: Entry) -> Record:
        where = f"{entry.where}: field 'rejected'"
        rejected = check_text(entry.value["rejected"], where, may_be_empty=True)
        return to_record(entry)._replace(rejected=rejected)

    return with_kind(read)


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


def message_pair(entry: Entry) -> Record:
    """Read a record from messages: a prompt with both answers, or a question and both dialogues."""
    prompt = entry.value["prompt"]
    if isinstance(prompt, str):
        pair = dialogue_pair(entry)
        if prompt not in [pair.instruction, *(exchange.question for exchange in pair.earlier)]:
            raise UserError(f"{entry.where}: field 'prompt' is not a question of 'chosen'")
        return pair
    before = read_turns(prompt, f"{entry.where}: field 'prompt'")
    dialogues = []
    for field in ("chosen", "rejected"):
        where = f"{entry.where}: field '{field}'"
        answer = read_turns(entry.value[field], where)
        if [turn.speaker for turn in answer] != ["assistant"]:
            raise UserError(f"{where} is not one message of the assistant, which answers 'prompt'")
        dialogues.append(record_of_turns([*before, *answer], f"{entry.where}: field 'prompt'"))
    chosen, rejected = dialogues
    return chosen._replace(rejected=rejected.output)
