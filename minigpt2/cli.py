"""Command line: one sub-command a task, derived from the settings' classes.

Every setting is an option of the command line and a key of a settings file (YAML
or JSON, `--config`); options of the command line override those of the file.
An error that the user can fix is one line on the error stream, with exit code 2.
"""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints

from jsonargparse import ArgumentParser

from minigpt2 import __version__
from minigpt2.arguments import FREE, read_arguments, unknown_command
from minigpt2.errors import UserError
from minigpt2.help import command_help, program_help
from minigpt2.parse_errors import in_plain_words
from minigpt2.terminal import close_output, complain, flush, open_streams, shown, write

PROGRAM = "minigpt2"
TITLE = "GPT-2 and its instruction tuning, every gradient written by hand."
EXAMPLES = """\
Examples:
    minigpt2 train questions.json
    minigpt2 answer "Which country has the capital Copenhagen?" --model runs/questions-1"""


class Parser(ArgumentParser):
    """A parser whose errors are one line, and whose help is its `help_text`.

    `command` is the sub-command on the command line; empty if there is none of that name.
    """

    command = ""
    help_text: Callable[[], str] = staticmethod(lambda: "")

    def format_help(self, formatter: Any = None) -> str:
        """Return the help."""
        return self.help_text()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message on one line; exit with 2."""
        settings = settings_class(self.command) if self.command else None
        fail(in_plain_words(str(message), self.command, settings), self.command)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the help or the version."""
        write(message, end="")

    def dump(self, *arguments: Any, **options: Any) -> str:
        """Return settings as the text of a file; a terminal shows it with escapes."""
        return shown(super().dump(*arguments, **options))


def fail(text: str, command: str) -> NoReturn:
    """Print what is wrong with a command line, and the command for help; exit with 2."""
    words = filter(None, (PROGRAM, command, "--help"))
    complain(f"{text} (see {' '.join(words)})")
    raise SystemExit(2)


class Command(NamedTuple):
    """A line about a sub-command, and the setting that needs no name.

    The command NAME is the module `commands/NAME` with a class NAMESettings, and a function NAME
    that takes them.  A module is imported only when its command runs: importing all would be slow.
    """

    help: str
    first: str = ""


COMMANDS = {
    "train": Command("tune a model on questions and answers", "data"),
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
    """Return the function of a command."""
    return getattr(import_module(f"{PROGRAM}.commands.{name}"), name)


def make_parser(table: dict[str, Command], command: str) -> Parser:
    """Return the parser of the command line, with the settings of one command."""
    parser = Parser(prog=PROGRAM, version=__version__)
    usage = f"{PROGRAM} COMMAND [--SETTING VALUE ...]"
    lines = {name: entry.help for name, entry in table.items()}
    parser.command = command if command in table else ""
    parser.help_text = partial(program_help, usage, TITLE, EXAMPLES, lines)
    subcommands = parser.add_subcommands(required=True)
    for name, entry in table.items():
        first = f" [{entry.first.upper()}]" if entry.first else ""
        usage = f"{PROGRAM} {name}{first} [--config FILE] [--SETTING VALUE ...]"
        sub = Parser(usage=usage)
        if name == command:
            settings = settings_class(name)
            sub.command = name
            sub.help_text = partial(command_help, name, usage, settings)
            sub.add_argument("--config", action="config")
            sub.add_class_arguments(settings, as_group=False)
        subcommands.add_subcommand(name, sub)
    return parser


def parser_words(arguments: Sequence[str]) -> list[str]:
    """Return a command line as the parser reads it: a command, then --name=value for each option.

    A settings file comes first, so that options override it.  Raises UserError.
    """
    command, *words = arguments or [""]
    if command == "version":
        return ["--version"]
    if command == "help":
        command, words = (words[0] if words else "--help"), ["--help"]
    if command in ("-h", "--help", "--version"):
        return [command]
    if command not in COMMANDS:
        raise UserError(unknown_command(command, COMMANDS))
    hints = {**get_type_hints(settings_class(command)), "config": Path}
    pairs = read_arguments(words, hints, COMMANDS[command].first)
    pairs.sort(key=lambda pair: pair[0] != "config")
    return [command, *(f"--{n}" if n in FREE.values() else f"--{n}={v}" for n, v in pairs)]


def settings_of(settings: type, values: dict[str, Any]) -> Any:
    """Return settings with these values.  Raises UserError if a value is missing."""
    hints = get_type_hints(settings)
    for name, value in values.items():
        if value is None and type(None) not in get_args(hints[name]):
            raise UserError(f"{name} has no value: give one, or leave it out")
    return settings(**values)


def run(arguments: Sequence[str]) -> None:
    """Parse the command line and run its command."""
    try:
        words = parser_words(arguments)
    except UserError as error:
        fail(str(error), arguments[0] if arguments and arguments[0] in COMMANDS else "")
    parsed = make_parser(COMMANDS, words[0]).parse_args(words)
    name = parsed.subcommand
    values = parsed[name].as_dict()
    del values["config"]
    action(name)(settings_of(settings_class(name), values))


def be_stopped(signal_number: int, frame: object) -> NoReturn:
    """End a run on SIGTERM as Ctrl-C does: its records are written."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    open_streams()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, be_stopped)
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # overflows end as a UserError
    try:
        run(sys.argv[1:] if arguments is None else arguments)
        flush()
    except UserError as error:
        complain(str(error))
        return 2
    except BrokenPipeError:
        close_output()
        return 1
    except OSError as error:
        complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return 2
    except MemoryError as error:
        complain(f"not enough memory: {error}")
        return 2
    except KeyboardInterrupt:
        complain("stopped")
        return 130
    return 0
