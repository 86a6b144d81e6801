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
NO_OPTION = re.compile(r"unrecognized arguments: (.*)")
NO_VALUE = re.compile(r"argument (--\w+)\+?: expected one argument")
MISSING = re.compile(r"the following arguments are required: (?:\w+\.)?(\w+)")
NO_COMMAND = re.compile(r"argument subcommand: invalid choice: '(.*?)'")
WITHOUT_COMMAND = re.compile(r'expected "subcommand"')
NO_SETTINGS = re.compile(r"Unexpected config:")
NO_YAML = re.compile(r"Problems parsing config: (.*)")


def in_plain_words(
    message: str, command: str, settings: type | None, commands: Collection[str]
) -> str:
    """Return a message in plain words.

    `command` and the class of its settings are those of the command line, "" and None if there is
    no such command; `commands` are all.

    >>> in_plain_words("argument subcommand: invalid choice: 'trian'", "", None, ["train", "plan"])
    "there is no command 'trian'; did you mean 'train'?"
    """
    text = " ".join(message.split())
    hints = get_type_hints(settings) if settings else {}
    if NO_SETTINGS.match(text):
        return "the settings file must hold settings, such as batch_size: 4"
    if WITHOUT_COMMAND.match(text):
        return f"a command is missing: {', '.join(commands)}"
    if match := NO_COMMAND.match(text):
        return f"there is no command {match[1]!r}{likely(match[1], commands)}"
    if match := NO_FILE.match(text):
        return f"there is no settings file {match[1]}"
    if match := NO_SETTING.match(text):
        return f"{command} has no setting {match[1]!r}{likely(match[1], hints)}"
    if match := NO_OPTION.match(text):
        return unknown_option(match[1], hints)
    if match := NO_VALUE.match(text):
        return f"{match[1].replace('_', '-')} needs a value"
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


def unknown_option(words: str, names: Collection[str]) -> str:
    """Return a sentence about words of a command line that name no setting.

    >>> unknown_option("--stesp 3", ["steps"]), unknown_option("more.json", ["steps"])
    ('there is no option --stesp; did you mean --steps?', 'unexpected: more.json')
    """
    option = words.split(" ")[0].partition("=")[0]
    if not option.startswith("-"):
        return f"unexpected: {shorten(words)}"
    near = get_close_matches(option.lstrip("-").replace("-", "_"), names, n=1)
    hint = f"; did you mean --{near[0].replace('_', '-')}?" if near else ""
    return f"there is no option {option.replace('_', '-')}{hint}"


def likely(name: str, names: Collection[str]) -> str:
    """Return a question for the name that was probably meant; nothing if none is near."""
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
