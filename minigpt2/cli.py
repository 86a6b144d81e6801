"""Command line: one sub-command a task, derived from the settings' classes.

Every setting is an option of the command line and a key of a settings file (YAML
or JSON, `--config`); options of the command line override those of the file.
An error that the user can fix is one line on the error stream, with exit code 2.
"""

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import getdoc
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from minigpt2 import __version__
from minigpt2.errors import UserError

PROGRAM = "minigpt2"
OPTION = re.compile(r"--[a-z][a-z0-9-]*")


class HelpFormatter(DefaultHelpFormatter):
    """A formatter that keeps the line breaks of a description: it holds examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message on one line, and where help is; exit with 2."""
        text = " ".join(str(message).split())
        command = self.prog.replace("[options] ", "")
        print(f"{PROGRAM}: {text} (see {command} --help)", file=sys.stderr)
        raise SystemExit(2)


class Command(NamedTuple):
    """What a sub-command does, in a line, and the setting that may come first without its name.

    The command NAME is the module `commands/NAME`, which has a class NAMESettings and a function
    NAME that takes them.  Modules are imported when their command is used: the others would only
    cost time.
    """

    help: str
    first: str = ""


COMMANDS = {
    "train": Command("tune a model on questions and answers"),
    "plan": Command("estimate memory and time of a run", "model"),
    "evaluate": Command("measure a model", "data"),
    "show": Command("show what a model is trained on", "data"),
    "stats": Command("measure a data set", "data"),
    "imbalance": Command("measure where the gradient comes from", "data"),
    "answer": Command("answer a question", "question"),
    "chat": Command("talk with a model", "model"),
    "generate": Command("continue a text", "prompt"),
    "download": Command("fetch official weights", "model"),
    "almanac": Command("write the questions that ship"),
    "pretrain": Command("make the base that ships, from a seed"),
}


def settings_class(name: str) -> type:
    """Return the class of a command's settings."""
    return getattr(import_module(f"{PROGRAM}.commands.{name}"), f"{name.capitalize()}Settings")


def action(name: str) -> Callable[[Any], Any]:
    """Return the function that does what a command is for."""
    return getattr(import_module(f"{PROGRAM}.commands.{name}"), name)


def make_parser(table: dict[str, Command], chosen: str) -> Parser:
    """Return the parser of the command line, with the settings of the chosen command."""
    parser = Parser(
        prog=PROGRAM,
        description="GPT-2 and its instruction tuning, every gradient written by hand.",
        version=__version__,
        formatter_class=HelpFormatter,  # of the sub-commands, too
    )
    subcommands = parser.add_subcommands(required=True)
    for name, command in table.items():
        first = f" [{command.first.upper()}]" if command.first else ""
        usage = f"{PROGRAM} {name}{first} [--config FILE] [--SETTING VALUE ...]"
        about = f"{PROGRAM} {name}: {command.help}."
        sub = Parser(usage=usage, description=about)
        if name == chosen:
            settings = settings_class(name)
            sub.description = about + examples_of(settings)
            sub.add_argument("--config", action="config", help="settings file, YAML or JSON")
            add_settings(sub, settings)
        subcommands.add_subcommand(name, sub, help=command.help)
    return parser


def examples_of(settings: type) -> str:
    """Return the part of a class's docstring that shows commands, or nothing."""
    paragraphs = (getdoc(settings) or "").split("\n\n")
    return "".join("\n\n" + text for text in paragraphs if text.startswith("Examples:"))


def add_settings(parser: Parser, settings: type) -> None:
    """Add the settings of a class in groups: its own first, then those of each class above it.

    A setting belongs to the highest class that has it; the first line of that class's docstring
    is the title of its group.
    """
    names = {field.name for field in fields(settings)}
    classes = [c for c in settings.__mro__ if is_dataclass(c)]
    for position, group in enumerate(classes):
        above = {field.name for c in classes[position + 1 :] for field in fields(c)}
        own = {field.name for field in fields(group)} - above
        if own:
            title = (getdoc(group) or "").splitlines()[0].rstrip(".")
            options = parser.add_argument_group(title)
            options.add_class_arguments(settings, as_group=False, skip=names - own)


def with_underscores(argument: str) -> str:
    """Spell an option as the settings do: --batch-size is --batch_size."""
    option, equals, value = argument.partition("=")
    if not OPTION.fullmatch(option):
        return argument
    return "--" + option[2:].replace("-", "_") + equals + value


def named(arguments: Sequence[str], table: dict[str, Command]) -> list[str]:
    """Give a command's first value its name, where it stands without one."""
    if len(arguments) > 1 and arguments[0] in table and not arguments[1].startswith("-"):
        command, value, *rest = arguments
        if table[command].first:
            return [command, f"--{table[command].first}={value}", *rest]
    return list(arguments)


def settings_of(settings: type, values: dict[str, Any]) -> Any:
    """Return the settings that the values make; raises UserError for a setting without value."""
    hints = get_type_hints(settings)
    for name, value in values.items():
        if value is None and type(None) not in get_args(hints[name]):
            raise UserError(f"{name} has no value: give one, or leave it out")
    return settings(**values)


def run(arguments: Sequence[str]) -> None:
    """Parse the command line and do what it says."""
    words = named([with_underscores(a) for a in arguments], COMMANDS)
    parsed = make_parser(COMMANDS, words[0] if words else "").parse_args(words)
    name = parsed.subcommand
    values = parsed[name].as_dict()
    del values["config"]
    action(name)(settings_of(settings_class(name), values))


def be_stopped(signal_number: int, frame: object) -> NoReturn:
    """End a run on SIGTERM as Ctrl-C does: its records are written."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, be_stopped)
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # overflows end as a UserError
    try:
        run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except UserError as error:
        return complain(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return complain(f"{error.filename or 'a file'}: {error.strerror}", 2)
    except MemoryError as error:
        return complain(f"not enough memory: {error}", 2)
    except KeyboardInterrupt:
        return complain("stopped", 130)
    return 0


def complain(text: str, code: int) -> int:
    """Say one line on the error stream; return the exit code."""
    print(f"{PROGRAM}: {' '.join(text.split())}", file=sys.stderr)
    return code
