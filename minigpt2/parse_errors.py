"""Parse errors: the messages of jsonargparse in the words of the help.

jsonargparse names Python types, and the parts of its own parser.  A user reads which setting is
wrong, which value it takes, or which name was probably meant.  A message that no rule knows stays
as it is.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import get_type_hints

from minigpt2.help import type_of
from minigpt2.wording import shorten

WRONG_VALUE = re.compile(r'Parser key "(?:.*\.)?(\w+)": .*?(?:Got|Given) value: (.*)')
NO_FILE = re.compile(r'Parser key "config": File does not exist: (.*)')
NO_SETTING = re.compile(r"Subcommand '\w+' does not accept option '(.*)'")
MISSING = re.compile(r"the following arguments are required: (?:\w+\.)?(\w+)")
NO_SETTINGS = re.compile(r"Unexpected config:")
NO_YAML = re.compile(r"Problems parsing config: (.*)")


def in_plain_words(message: str, command: str, settings: type | None) -> str:
    """Return a message in plain words.

    `command` and the class of its settings are those of the command line, "" and None if there is
    no such command.

    >>> in_plain_words("Subcommand 'plan' does not accept option 'speed'", "plan", None)
    "plan has no setting 'speed'"
    """
    text = " ".join(message.split())
    hints = get_type_hints(settings) if settings else {}
    if NO_SETTINGS.match(text):
        return "the settings file must hold settings, such as batch_size: 4"
    if match := NO_FILE.match(text):
        return f"there is no settings file {match[1]}"
    if match := NO_SETTING.match(text):
        return f"{command} has no setting {match[1]!r}{likely(match[1], hints)}"
    if match := NO_YAML.match(text):
        reason = match[1].replace(' in "<unicode string>",', "")
        return f"the settings file is not YAML: {shorten(reason)}"
    match = WRONG_VALUE.match(text) or MISSING.match(text)
    if not match or match[1] not in hints:
        return text
    kind = type_of(command, match[1], hints[match[1]])
    if match.re is MISSING:
        return f"{command} needs {match[1]} ({kind})"
    return f"{match[1]} must be {kind}, not {shorten(match[2])}"


def likely(name: str, names: Collection[str]) -> str:
    """Return a question for the name that was probably meant; nothing if none is near."""
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
