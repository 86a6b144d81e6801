"""Conversations: lists of messages, and transcripts, become records.

A message is an object with a speaker and a text, such as {"role": "user", "content": "Hi."}.  A
transcript is one text in which each turn begins with "Human:" or "Assistant:".  A conversation may
begin with the system's message.  After it the user and the assistant take turns, and the
assistant has the last word.  Everything else is refused, and the error names the turn.
"""

import re
from collections.abc import Sequence
from typing import Any

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
TRANSCRIPT_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \n]?")

Turn = tuple[str, str]  # the speaker, one of SPEAKERS' values, and the text


def check_text(text: Any, what: str, may_be_empty: bool = False) -> str:
    """Return text unchanged; raises UserError, naming `what`, if it is not text or is empty."""
    if not isinstance(text, str):
        raise UserError(f"{what} is not text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{what} is not valid text: it contains half a surrogate pair")
    if not (text.strip() or may_be_empty):
        raise UserError(f"{what} is empty")
    return text


def read_turns(
    messages: Any, where: str, speaker_field: str = "role", text_field: str = "content"
) -> list[Turn]:
    """Return the turns of a list of messages; raises UserError for one that cannot be used."""
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where} is not a list of turns, or is empty")
    turns = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not {speaker_field, text_field} <= message.keys():
            raise UserError(
                f"{where}, turn {i}, is not an object with '{speaker_field}' and '{text_field}'"
            )
        speaker = message[speaker_field]
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            raise UserError(
                f"{where}, turn {i}, has the {speaker_field} {speaker!r}; known are "
                f"{', '.join(SPEAKERS)}"
            )
        turns.append((SPEAKERS[speaker], check_text(message[text_field], f"{where}, turn {i},")))
    return turns


def split_transcript(transcript: str, where: str) -> list[Turn]:
    """Return the turns of a transcript; raises UserError if it does not begin with a turn."""
    before, *parts = TRANSCRIPT_TURN.split(transcript)
    if before.strip() or not parts:
        raise UserError(f"{where} does not begin with 'Human:'")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [
        (SPEAKERS[name.lower()], check_text(text.strip(), f"{where}, a turn,"))
        for name, text in pairs
    ]


def record_of_turns(turns: Sequence[Turn], where: str) -> Record:
    """Make a record of a conversation; raises UserError if its turns are in the wrong order."""
    system = turns[0][1] if turns[0][0] == "system" else ""
    dialogue = turns[1:] if system else turns
    for i, (speaker, _) in enumerate(dialogue):
        expected = ("user", "assistant")[i % 2]
        if speaker != expected:
            raise UserError(
                f"{where}, turn {i + bool(system)}, is the {speaker}'s, not the {expected}'s"
            )
    if len(dialogue) % 2 or not dialogue:
        raise UserError(f"{where} ends with the user's turn: there is no answer to learn")
    texts = [text for _, text in dialogue]
    exchanges = [Exchange(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return Record(
        instruction=exchanges[-1].question,
        input="",
        output=exchanges[-1].answer,
        system=system,
        earlier=tuple(exchanges[:-1]),
    )
