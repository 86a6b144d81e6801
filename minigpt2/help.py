"""Help: what `minigpt2 --help` and `minigpt2 COMMAND --help` print.

The help of a command is made from the class of its settings: the first line of the docstring,
the paragraphs "Examples:" and "Output:", and for each setting its line under "Args:", its type
and its default.  GROUPS lists the settings under headings, in the order in which they are printed.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from inspect import getdoc
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from minigpt2.errors import UserError, default_of

WIDEST = 100  # columns
NO_BREAK = "\N{NO-BREAK SPACE}"
INDENT = 28  # columns before the text of a setting

GROUPS = {  # "evaluate.batch_size" is the setting of that command alone
    "text": "question input prompt system",
    "model": "model start from_scratch dropout value",
    "data": (
        "data columns skip_bad template context truncate validation test contexts first count "
        "preferences"
    ),
    "decoding": (
        "prompts answers samples max_new_tokens temperature top_k top_p repetition_penalty"
    ),
    "reward": "reward_model check must_end cut_penalty",
    "loss": (
        "loss prompt_weight weights beta label_smoothing per_token centre target_kl horizon max_kl "
        "baseline divide_by_sigma normaliser ratio_clip value_clip value_weight gamma gae_lambda "
        "whiten_rewards tuning_data tuning_weight tuning_batch"
    ),
    "LoRA": "lora_rank lora_alpha lora_layers lora_rslora lora_merge",
    "optimiser": (
        "epochs minibatches steps batch_size rows learning_rate schedule warmup weight_decay beta1 "
        "beta2 eps clip"
    ),
    "run": (
        "plan.run plan.value plan.check out resume resume_anyway seed evaluate_every patience "
        "save_every save_minutes keep log_every tensorboard html figure"
    ),
    "device": "device precision evaluate.batch_size micro_batch recompute memory time",
}

TYPES = {  # of settings whose Python type says less
    "data": "file or folder",
    "model": "name or folder",
    "reward_model": "folder",
    "tuning_data": "file or folder",
    "start": "name or folder",
    "template": "name or file",
    "test": "file or list",
    "out": "folder",
    "resume": "folder",
    "evaluate.out": "file",
}
WORDS = {
    bool: "true/false",
    dict: "mapping",
    float: "number",
    int: "integer",
    Path: "file",
    str: "text",
}


def groups_of(command: str, settings: type) -> dict[str, list[Field[Any]]]:
    """Return the settings of a command by group, in the order of GROUPS."""
    by_name = {field.name: field for field in fields(settings)}
    by_name |= {f"{command}.{name}": field for name, field in by_name.items()}
    special = {name for names in GROUPS.values() for name in names.split() if "." in name}
    groups: dict[str, list[Field[Any]]] = {}
    for group, names in GROUPS.items():
        for name in names.split():
            if name in by_name and f"{command}.{name}" not in special:
                groups.setdefault(group, []).append(by_name[name])
    return groups


def type_of(command: str, name: str, hint: Any) -> str:
    """Return the type of a setting in short words."""
    if word := TYPES.get(f"{command}.{name}") or TYPES.get(name):
        return word
    if get_origin(hint) is Literal:
        return "{" + ",".join(get_args(hint)) + "}"
    if origin := get_origin(hint):
        if origin in (list, dict):
            return WORDS.get(origin, "list")
        return " or ".join(type_of(command, "", h) for h in get_args(hint) if h is not NoneType)
    return WORDS.get(hint, hint.__name__)


def is_path(name: str, hint: Any) -> bool:
    """Whether a setting names a file, a folder or a model."""
    return name in TYPES or Path in (hint, *get_args(hint))


def paragraph(settings: type, title: str) -> str:
    """Return the paragraph of a class's docstring that begins with a title, or nothing."""
    paragraphs = (getdoc(settings) or "").split("\n\n")
    return next((text for text in paragraphs if text.startswith(f"{title}:")), "")


def descriptions_of(settings: type) -> dict[str, str]:
    """Return what the docstrings of a class, and of those that it inherits from, say of settings.

    >>> class Example:
    ...     '''An example.
    ...
    ...     Args:
    ...         steps: optimiser steps,
    ...             instead of epochs
    ...     '''
    >>> descriptions_of(Example)
    {'steps': 'optimiser steps, instead of epochs'}
    """
    descriptions: dict[str, str] = {}
    for above in reversed(settings.__mro__):
        text = paragraph(above, "Args").removeprefix("Args:")
        for entry in re.split(r"\n {4}(?=\w)", text)[1:]:
            name, _, description = entry.partition(":")
            descriptions[name] = " ".join(description.split())
    return descriptions


def default_words(field: Field[Any]) -> str:
    """Return a setting's default in brackets; nothing where it is None or empty."""
    if field.default is MISSING and field.default_factory is MISSING:
        return " (required)"
    value = default_of(field)
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, list):  # as it is typed
        value = f"[{', '.join(map(str, value))}]"
    return f" (default: {f'{value:g}' if isinstance(value, float) else value})"


def entry(option: str, text: str, indent: int = INDENT) -> Iterator[str]:
    """Yield the lines of an option and its text, the text in a column of its own."""
    width = min(WIDEST, get_terminal_size().columns)
    unbroken = re.sub(r"\((default|answer tokens): ", rf"(\1:{NO_BREAK}", text)
    lines = wrap(unbroken, max(20, width - indent), break_on_hyphens=False)
    if len(option) + 4 > indent:
        yield f"  {option}"
        option = ""
    for number, line in enumerate(lines):
        yield f"  {'' if number else option}".ljust(indent) + line.replace(NO_BREAK, " ")


def command_help(command: str, usage: str, settings: type) -> str:
    """Return the help of a command.  Raises UserError where Python has removed all docstrings."""
    if sys.flags.optimize > 1:
        raise UserError("help texts are docstrings, which python -OO removes: start it without -OO")
    title = (getdoc(settings) or "").splitlines()[0]
    lines = [f"usage: {usage}", "", title]
    if examples := paragraph(settings, "Examples"):
        lines += ["", examples]
    hints, descriptions = get_type_hints(settings), descriptions_of(settings)
    for group, members in groups_of(command, settings).items():
        lines += ["", f"{group}:"]
        for field in members:
            option = "--" + field.name.replace("_", "-")
            kind = type_of(command, field.name, hints[field.name])
            is_flag = bool in (hints[field.name], *get_args(hints[field.name]))
            kind = f"[{kind}]" if is_flag else kind  # true needs no word
            lines += entry(f"{option} {kind}", descriptions[field.name] + default_words(field))
    lines += ["", "options:"]
    lines += entry(
        "--config file", "settings file, YAML or JSON (batch_size: 4); options override it"
    )
    lines += entry("--print-config", "print all settings as such a file, and exit")
    lines += entry("-h, --help", "print this, and exit")
    lines += entry("--", "end the options: the next word is a text, whatever it begins with")
    if output := paragraph(settings, "Output"):
        lines += ["", output]
    return "\n".join(lines) + "\n"


def program_help(usage: str, title: str, examples: str, commands: Mapping[str, str]) -> str:
    """Return the help of the program: examples, and a line for each command."""
    indent = 4 + max(map(len, [*commands, "-h, --help"]))
    lines = [f"usage: {usage}", "", title, "", examples, "", "commands:"]
    for name, text in commands.items():
        lines += entry(name, text, indent)
    lines += ["", "options:"]
    lines += entry("--version", "print the version, and exit", indent)
    lines += entry("-h, --help", "print this, and exit", indent)
    lines += ["", "`minigpt2 COMMAND --help` explains the settings of a command."]
    return "\n".join(lines) + "\n"
