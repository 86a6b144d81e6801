"""Command line: one sub-command a task, derived from the settings' classes.

Every setting is an option of the command line and a key of a settings file (YAML
or JSON, `--config`); what the command line says goes before what the file says.
What a user can mend is said in one line on the error stream, with exit code 2.
"""

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints

from jsonargparse import ArgumentParser

from minigpt2 import __version__
from minigpt2.errors import UserError

PROGRAM = "minigpt2"
OPTION = re.compile(r"--[a-z][a-z0-9-]*")


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message on one line, and where help is; exit with 2."""
        text = " ".join(str(message).split())
        command = self.prog.replace("[options] ", "")
        print(f"{PROGRAM}: {text} (see {command} --help)", file=sys.stderr)
        raise SystemExit(2)


class Command(NamedTuple):
    """A sub-command by name: a module, its settings' class, what it does with them, and help.

    Modules are imported when their command is asked for: the others would only cost time.
    """

    module: str
    settings_class: str
    function: str
    help: str
    first: str = ""  # the setting that may stand first without its name

    @property
    def settings(self) -> type:
        """The settings' class."""
        return getattr(import_module(f"{PROGRAM}.{self.module}"), self.settings_class)

    @property
    def action(self) -> Callable[[Any], Any]:
        """What is done with the settings."""
        return getattr(import_module(f"{PROGRAM}.{self.module}"), self.function)


COMMANDS = {
    "train": Command(
        "training.finetune", "TrainSettings", "train", "tune a model on questions and answers"
    ),
    "plan": Command(
        "training.plan", "PlanSettings", "plan", "tell the memory and time of a run", "model"
    ),
    "evaluate": Command(
        "training.evaluate", "EvaluateSettings", "evaluate", "measure a model", "data"
    ),
    "show": Command("data.show", "ShowSettings", "show", "show what a model is trained on", "data"),
    "stats": Command("data.stats", "StatsSettings", "stats", "measure a data set", "data"),
    "imbalance": Command(
        "training.show_imbalance",
        "ImbalanceSettings",
        "imbalance",
        "measure where the gradient comes from",
        "data",
    ),
    "answer": Command(
        "inference.answer", "AnswerSettings", "answer", "let a model answer a question", "question"
    ),
    "chat": Command("inference.chat", "ChatSettings", "chat", "talk with a model", "model"),
    "generate": Command(
        "inference.carry_on",
        "GenerateSettings",
        "carry_on",
        "let a model carry on a text",
        "prompt",
    ),
    "download": Command(
        "download", "DownloadSettings", "download", "fetch official weights", "model"
    ),
    "almanac": Command(
        "data.almanac.write",
        "AlmanacSettings",
        "write_questions",
        "write the questions that ship",
    ),
    "pretrain": Command(
        "training.pretrain",
        "PretrainSettings",
        "pretrain",
        "make the base that ships, from a seed",
    ),
}


def make_parser(table: dict[str, Command], asked: str) -> Parser:
    """Return the parser of the command line, with the settings of the command that is asked for."""
    parser = Parser(
        prog=PROGRAM,
        description="GPT-2 and its instruction tuning, every gradient written by hand.",
        version=__version__,
    )
    subcommands = parser.add_subcommands(required=True)
    for name, command in table.items():
        first = f" [{command.first.upper()}]" if command.first else ""
        usage = f"{PROGRAM} {name}{first} [--config FILE] [--SETTING VALUE ...]"
        sub = Parser(usage=usage, description=f"{PROGRAM} {name}: {command.help}.")
        if name == asked:
            sub.add_argument("--config", action="config", help="settings file, YAML or JSON")
            sub.add_class_arguments(command.settings)
        subcommands.add_subcommand(name, sub, help=command.help)
    return parser


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
    command, values = COMMANDS[parsed.subcommand], parsed[parsed.subcommand].as_dict()
    del values["config"]
    command.action(settings_of(command.settings, values))


def be_stopped(signal_number: int, frame: object) -> NoReturn:
    """End a run that is told to terminate as Ctrl-C does: its records are written."""
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
