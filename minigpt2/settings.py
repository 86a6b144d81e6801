"""Settings: their values, from the words of a command line and from a settings file.

The type of a setting decides what its words mean.  A text, such as a prompt or a path, is taken as
it is: `null`, `no`, `12` and `# Tide` are texts like any other.  A list or a mapping is written in
YAML.  In a settings file, which is YAML or JSON, an optional setting may also be null.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from sys import float_info, getfilesystemencoding
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml

from minigpt2.arguments import nearest
from minigpt2.errors import UserError
from minigpt2.help import is_path, type_of
from minigpt2.terminal import require_decoded
from minigpt2.wording import shorten
from minigpt2.yaml_files import NULL, TEXT, compose, is_null, node_kind, read_items, text_of

WHOLE = re.compile(r"[-+]?\d[\d_]*")
NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
BREAKS = set("\x85\u2028\u2029")
BESIDES = ("command", "started_in")  # what a run's settings.json has besides its settings
LARGEST = 2**63 - 1  # of whole numbers
WORDS = {  # for types of the help
    "integer": "a whole number",
    "list": "a list, such as [1, 2]",
    "mapping": 'a mapping, such as {"instruction": "ask"}',
    "text": "text",
    "true/false": "true or false",
}


class Setting(NamedTuple):
    """The value of a setting, and where it is written, for errors: "" on the command line."""

    value: Any
    where: str = ""


def read_settings(
    file: str,
    command: str,
    hints: Mapping[str, Any],
    refused: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Setting]:
    """Read a settings file of a command, whose settings have these types.

    `refused` are settings that it does not have, each with the reason.  A name may be written as on
    the command line: batch-size.  A run's settings.json serves, too.  Raises UserError, with file
    and line.
    """
    if not file.strip():
        raise UserError("config is empty: give a settings file, or leave it out")
    if not Path(file).exists():
        raise UserError(f"there is no settings file {file!r}")
    settings = {}
    for written, node, where in read_items(Path(file), "settings, such as batch_size: 4"):
        name = written.replace("-", "_")
        if name in BESIDES and isinstance(node, yaml.ScalarNode):
            if name == "command" and node.value != command:
                of = f"{shorten(node.value)}, not of {command}"
                raise UserError(f"{where}: these are the settings of {of}")
            continue
        if name in refused:
            raise UserError(f"{where}: {refused[name]}")
        if name not in hints:
            meant = nearest(name.lower(), hints)
            hint = f"; did you mean {meant!r}?" if meant else ""
            raise UserError(f"{where}: {command} has no setting {shorten(written)!r}{hint}")
        if name in settings:
            raise UserError(f"{where}: {name} is in the file twice")
        if is_null(node) and NoneType not in get_args(hints[name]):
            raise UserError(f"{where}: {name} has no value: give one, or leave it out")
        words = node.value if isinstance(node, yaml.ScalarNode) else node_kind(node)
        try:
            value = checked_value(command, name, hints[name], node, words)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        settings[name] = Setting(value, where)
    return settings


def setting_of(words: str, command: str, name: str, hint: Any) -> Setting:
    """Return a setting from the words of a command line; raises UserError."""
    return Setting(checked_value(command, name, hint, node_of(words, hint), words))


def node_of(words: str, hint: Any) -> yaml.Node | None:
    """Return the words of a command line as a YAML node; None where they are none of the type."""
    kinds = {get_origin(part) or part for part in (get_args(hint) or (hint,))} | {get_origin(hint)}
    if kinds & {list, dict} and not (kinds & {str, Path} and not words.startswith("[")):
        try:
            return compose(words, "")
        except UserError:
            if str not in kinds:
                return None
    is_text = bool(kinds & {str, Path})
    return yaml.ScalarNode(NULL if words == "null" and not is_text else TEXT, words)


def checked_value(command: str, name: str, hint: Any, node: yaml.Node | None, words: str) -> Any:
    """Return the value of a node as a type wants it; raises UserError, which shows the words."""
    kind = type_of(command, name, hint)
    try:
        if node is None:
            raise ValueError
        value = value_of(node, hint)
        if is_path(name, hint):
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, str | Path):
                    os.fsencode(path)  # ValueError if no file can have this name
    except OverflowError:
        raise UserError(f"{name} is too large: {shorten(words)}") from None
    except ValueError:
        shown = shorten(words) or "''"
        raise UserError(f"{name} must be {in_words(kind)}, not {shown}") from None
    if isinstance(value, str) and not is_path(name, hint):
        require_decoded(value, name, getfilesystemencoding())
    if is_path(name, hint):
        require_names(command, name, hint, value if isinstance(value, list) else [words])
    return value


def require_names(command: str, name: str, hint: Any, names: Sequence[str]) -> None:
    """Raise UserError unless a setting names files, folders or models that can be there."""
    if not names or not all(text.strip() for text in names):
        kind = type_of(command, name, hint)
        raise UserError(f"{name} is empty: give a {kind}, or leave it out")
    if any("\0" in text for text in names):
        raise UserError(f"{name} has a character that no name can have: {shorten(names[0])!r}")


def in_words(kind: str) -> str:
    """Return a type of the help as a part of a sentence.

    >>> in_words("integer"), in_words("{prompt,answer,drop}"), in_words("file or folder")
    ('a whole number', 'prompt, answer or drop', 'a file or folder')
    """
    if kind.startswith("{"):
        *others, last = kind.strip("{}").split(",")
        return f"{', '.join(others)} or {last}"
    return WORDS.get(kind, f"a {kind}")


def value_of(node: yaml.Node, hint: Any) -> Any:
    """Return the value of a node as a type wants it.

    Raises ValueError if it is none of the type's values, OverflowError if it is too large.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return value_of_union(node, parts)
    if origin is list:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError
        return [value_of(item, parts[0]) for item in node.value]
    if origin is dict:
        if not isinstance(node, yaml.MappingNode):
            raise ValueError
        pairs = [(value_of(key, parts[0]), value_of(value, parts[1])) for key, value in node.value]
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)
    text = text_of(node)
    if origin is Literal:
        if text not in parts:
            raise ValueError
        return text
    if hint is bool:
        if text.lower() not in BOOLEANS:
            raise ValueError
        return BOOLEANS[text.lower()]
    return number_of(text, hint) if hint in (int, float) else hint(text)


def value_of_union(node: yaml.Node, parts: tuple[Any, ...]) -> Any:
    """Return the value of a node as the first of several types that it fits."""
    if NoneType in parts and is_null(node):
        return None
    for part in parts:
        if part is not NoneType:
            try:
                return value_of(node, part)
            except ValueError:
                continue
    raise ValueError


def number_of(text: str, kind: type) -> int | float:
    """Return the number that a text writes.  Raises ValueError, or OverflowError."""
    pattern = WHOLE if kind is int else NUMBER
    if not pattern.fullmatch(text):
        raise ValueError
    number = kind(text) if len(text) < 1000 else LARGEST + 1
    if abs(number) > (LARGEST if kind is int else float_info.max):
        raise OverflowError
    return number


def require_all(command: str, kind: type, settings: Mapping[str, Setting]) -> None:
    """Raise UserError if a setting without a default is missing; `kind` is the settings' class."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        if not has_default(field) and field.name not in settings:
            wanted = type_of(command, field.name, hints[field.name])
            raise UserError(f"{command} needs {field.name} ({wanted})")


def as_file(kind: type, settings: Mapping[str, Setting]) -> str:
    """Return a settings file of all settings; the others have their defaults."""
    values = {field.name: default_of(field) for field in fields(kind) if has_default(field)}
    values |= {name: setting.value for name, setting in settings.items()}
    hints = get_type_hints(kind)
    texts = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if not (value == "" and is_path(name, hints[name]))
    }
    file = yaml.safe_dump(texts, sort_keys=False, allow_unicode=True)
    if BREAKS & set(file):  # a reader of YAML takes them for line breaks
        file = yaml.safe_dump(texts, sort_keys=False)
    return file


def has_default(field: Field[Any]) -> bool:
    """Whether a setting may be left out."""
    return field.default is not MISSING or field.default_factory is not MISSING


def default_of(field: Field[Any]) -> Any:
    """Return the default of a setting that has one."""
    return field.default if field.default_factory is MISSING else field.default_factory()
