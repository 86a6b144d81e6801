"""Conversations: lists of messages, and transcripts, become records.

A message is an object with a speaker and a text, such as {"role": "user", "content": "Hi."}.  A
transcript is one text in which each turn begins with "Human:" or "Assistant:".  A conversation may
begin with the system's message.  After it the user and the assistant take turns, and the
assistant has the last word.  Everything else is refused, and the error names the turn.

An assistant's message with "weight": 0 is not learned: it is read, as a prompt is.  What follows
the last answer that is learned has no use, and is left out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minigpt2.data.records import Exchange, Record
from minigpt2.errors import UserError
from minigpt2.reading import json_kind, quoted

SPEAKERS = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
TRANSCRIPT_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \n]?")


class Turn(NamedTuple):
    """A message: its speaker, one of SPEAKERS' values, its text, and whether it is learned."""

    speaker: str
    text: str
    is_learned: bool = True


def check_text(text: Any, what: str, may_be_empty: bool = False) -> str:
    """Return text unchanged; raises UserError, naming `what`, if it is not text or is empty."""
    if not isinstance(text, str):
        raise UserError(f"{what} is not text, but {json_kind(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} is not valid text: it contains half a surrogate pair") from None
    if not (text.strip() or may_be_empty):
        raise UserError(f"{what} is empty")
    return text


def read_turns(
    messages: Any, where: str, speaker_field: str = "role", text_field: str = "content"
) -> list[Turn]:
    """Return the turns of a list of messages; raises UserError for one that cannot be used.

    A system's message may be empty or null: then it is left out.
    """
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where} is not a list of turns, or is empty")
    turns = []
    for i, message in enumerate(messages):
        place = f"{where}, turn {i},"
        if not isinstance(message, dict) or not {speaker_field, text_field} <= message.keys():
            raise UserError(f"{place} is not an object with '{speaker_field}' and '{text_field}'")
        speaker = message[speaker_field]
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            known = ", ".join(SPEAKERS)
            is_text = isinstance(speaker, str)
            wrong = f"the {speaker_field} " if is_text else f"a '{speaker_field}' that is "
            raise UserError(f"{place} has {wrong}{quoted(speaker)}; known are {known}")
        is_system = SPEAKERS[speaker] == "system"
        text = message[text_field]
        text = check_text("" if is_system and text is None else text, place, is_system)
        learned = SPEAKERS[speaker] != "assistant" or weight_of(message, place) == 1
        turns.append(Turn(SPEAKERS[speaker], text, learned))
    return turns


def weight_of(message: Mapping[str, Any], place: str) -> int:
    """Return the weight of a message, 1 where it has none; raises UserError unless it is 0 or 1."""
    weight = message.get("weight")
    if weight is not None and weight not in (0, 1):
        raise UserError(f"{place} has a weight that is neither 0 nor 1")
    return 1 if weight is None else int(weight)


def split_transcript(transcript: str, where: str) -> list[Turn]:
    """Return the turns of a transcript; raises UserError if it does not begin with a turn."""
    before, *parts = TRANSCRIPT_TURN.split(transcript)
    if before.strip() or not parts:
        raise UserError(
            f"{where} does not begin with 'Human:', as a dialogue does; an answer alone needs a "
            "field prompt, question or instruction"
        )
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [
        Turn(SPEAKERS[name.lower()], check_text(text.strip(), f"{where}, a turn,"))
        for name, text in pairs
    ]


def record_of_turns(turns: Sequence[Turn], where: str) -> Record:
    """Make a record of a conversation.

    Raises UserError if its turns are in the wrong order, or none is learned.
    """
    has_system = turns[0].speaker == "system"
    dialogue = turns[has_system:]
    for i, turn in enumerate(dialogue):
        expected = ("user", "assistant")[i % 2]
        if turn.speaker != expected:
            raise UserError(
                f"{where}, turn {i + has_system}, is the {turn.speaker}'s, not the {expected}'s"
            )
    if len(dialogue) % 2 or not dialogue:
        raise UserError(f"{where} ends with the user's turn: there is no answer to learn")
    exchanges = [
        Exchange(question.text, answer.text, answer.is_learned)
        for question, answer in zip(dialogue[::2], dialogue[1::2], strict=True)
    ]
    while not exchanges[-1].is_learned:
        exchanges.pop()
        if not exchanges:
            raise UserError(f"{where} has no answer to learn: all have the weight 0")
    return Record(
        instruction=exchanges[-1].question,
        input="",
        output=exchanges[-1].answer,
        system=turns[0].text if has_system and turns[0].text.strip() else "",
        earlier=tuple(exchanges[:-1]),
    )
