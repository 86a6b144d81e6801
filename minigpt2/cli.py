"""Command line: one sub-command a task, derived from the settings' classes.

Every setting is an option of the command line and a key of a settings file (YAML
or JSON, `--config`); options of the command line override those of the file.
An error that the user can fix is one line on the error stream, with exit code 2.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from errno import EBADF, EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from importlib import import_module
from typing import Any, NamedTuple, NoReturn, get_type_hints

from minigpt2 import __version__
from minigpt2.arguments import read_arguments, unknown_command
from minigpt2.errors import NothingLeft, UserError
from minigpt2.help import command_help, program_help
from minigpt2.settings import Setting, as_file, read_settings, require_all, setting_of
from minigpt2.signals import ENDED, catch_signals, exit_code, stop_in
from minigpt2.terminal import close_output, complain, flush, note, open_streams, write

PROGRAM = "minigpt2"
TITLE = "GPT-2 and its instruction tuning, every gradient written by hand."
EXAMPLES = """\
Examples:
    minigpt2 train questions.json
    minigpt2 answer "Which country has the capital Copenhagen?" --model runs/questions-1"""


# Errors without the name of a file that are those of what was printed.
OF_OUTPUT = (EBADF, EDQUOT, EFBIG, EIO, ENOSPC, EROFS)


def require_current_folder() -> None:
    """Raise UserError if the folder that the program was started in was removed."""
    try:
        os.getcwd()
    except OSError as error:
        text = f"the current folder cannot be used ({error.strerror}): change into another one"
        raise UserError(text) from None


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
    "reward": Command("train a reward model on preference pairs", "data"),
    "dpo": Command("let a model prefer the chosen answers of pairs", "data"),
    "ppo": Command("let a model learn from the rewards of its answers", "data"),
    "grpo": Command("let a model compare its own answers to a question", "data"),
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
    "align": Command("show alignment on the small base"),
}


def settings_class(name: str) -> type:
    """Return the class of a command's settings."""
    return getattr(import_module(f"{PROGRAM}.commands.{name}"), f"{name.capitalize()}Settings")


def refused_by(kind: type) -> Mapping[str, str]:
    """Return settings that a class of settings does not have, each with a sentence why not."""
    return getattr(kind, "refused", {})


def action(name: str) -> Callable[[Any], Any]:
    """Return the function of a command."""
    return getattr(import_module(f"{PROGRAM}.commands.{name}"), name)


def help_of(command: str) -> str:
    """Return the help of a command, or that of the program for ""."""
    if not command:
        lines = {name: entry.help for name, entry in COMMANDS.items()}
        return program_help(f"{PROGRAM} COMMAND [--SETTING VALUE ...]", TITLE, EXAMPLES, lines)
    first = f" [{COMMANDS[command].first.upper()}]" if COMMANDS[command].first else ""
    usage = f"{PROGRAM} {command}{first} [--config FILE] [--SETTING VALUE ...]"
    return command_help(command, usage, settings_class(command))


def read_command(arguments: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """Return a command with the names and words of its options; "" is the program itself.

    Raises UserError.
    """
    command, *words = arguments or [""]
    if command in ("version", "--version"):
        return "", [("version", "")]
    if command == "help":
        command, words = next((w for w in words if w != "help"), "--help"), ["--help"]
    if command in ("-h", "--help"):
        return "", [("help", "")]
    if command not in COMMANDS:
        raise UserError(unknown_command(command, COMMANDS))
    kind = settings_class(command)
    hints = {**get_type_hints(kind), "config": str}
    return command, read_arguments(words, hints, COMMANDS[command].first, refused_by(kind))


def read_all(command: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Setting]:
    """Return the settings of a command from its files and its options, which override them.

    Raises UserError.
    """
    kind = settings_class(command)
    hints = get_type_hints(kind)
    settings: dict[str, Setting] = {}
    for name, words in pairs:
        if name == "config":
            settings |= read_settings(words, command, hints, refused_by(kind))
    for name, words in pairs:
        if name in hints:
            settings[name] = setting_of(words, command, name, hints[name])
    return settings


def build_settings(command: str, values: dict[str, Any]) -> Any:
    """Return the class of a command's settings with values; raises UserError.

    What is not in the values has its default, or in a run that continues its value in that run.
    """
    return settings_class(command)(**with_run(command, values))


def with_run(command: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return values, with those of the run if one is named that continues; raises UserError."""
    if not values.get("resume"):
        return values
    with_stored = import_module(f"{PROGRAM}.commands.resume").with_stored
    result: dict[str, Any] = with_stored(settings_class(command), values)
    return result


def settings_of(command: str, settings: Mapping[str, Setting]) -> Any:
    """Return the settings of a command as its class; raises UserError, with the place in a file."""
    try:
        return build_settings(command, {name: s.value for name, s in settings.items()})
    except UserError as error:
        name = str(error).partition(" ")[0]
        where = settings[name].where if name in settings else ""
        raise UserError(f"{where}: {error}" if where else str(error)) from None


def run(arguments: Sequence[str]) -> None:
    """Read the command line and run its command."""
    command = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    try:
        command, pairs = read_command(arguments)
        names = dict(pairs)
        if "version" in names:
            return write(f"{PROGRAM} {__version__}")
        if "help" in names:
            return write(help_of(command), end="")
        settings = read_all(command, pairs)
        if "print_config" in names:
            values = with_run(command, {name: s.value for name, s in settings.items()})
            known = {name: Setting(value) for name, value in values.items()}
            return write(as_file(settings_class(command), known), end="")
        require_all(command, settings_class(command), settings)
    except UserError as error:
        fail(str(error), command)
    require_current_folder()
    catch_signals()
    action(command)(settings_of(command, settings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    open_streams()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # overflows end as a UserError
    try:
        run(sys.argv[1:] if arguments is None else arguments)
        flush()
    except NothingLeft as error:
        note(str(error))
    except UserError as error:
        complain(str(error))
        return 2
    except BrokenPipeError:
        close_output()
        return ENDED + signal.SIGPIPE
    except OSError as error:
        name = error.filename
        if not name and error.errno in OF_OUTPUT:
            close_output()
            name = "standard output"
        reason = error.strerror or str(error)
        complain(f"{name}: {reason}" if name else reason)
        return 2
    except MemoryError as error:
        complain(f"not enough memory: {error}")
        return 2
    except BaseException as error:
        stop = stop_in(error)
        if stop is None:
            raise
        complain("stopped")
        return exit_code(stop)
    return 0
