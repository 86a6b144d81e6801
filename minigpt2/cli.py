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
    """A sub-command: its settings' class, what it does with them, and a line of help."""

    settings: type
    action: Callable[[Any], Any]
    help: str
    first: str = ""  # the setting that may stand first without its name


def commands() -> dict[str, Command]:
    """Return the sub-commands by name."""
    from minigpt2.data.almanac.write import AlmanacSettings, write_questions
    from minigpt2.data.show import ShowSettings, show
    from minigpt2.data.stats import StatsSettings, stats
    from minigpt2.download import DownloadSettings, download
    from minigpt2.inference.answer import AnswerSettings, answer
    from minigpt2.inference.carry_on import GenerateSettings, carry_on
    from minigpt2.inference.chat import ChatSettings, chat
    from minigpt2.training.evaluate import EvaluateSettings, evaluate
    from minigpt2.training.finetune import train
    from minigpt2.training.plan import plan
    from minigpt2.training.pretrain import PretrainSettings, pretrain
    from minigpt2.training.settings import TrainSettings
    from minigpt2.training.show_imbalance import ImbalanceSettings, imbalance
    from minigpt2.training.workload import PlanSettings

    return {
        "train": Command(TrainSettings, train, "tune a model on questions and answers"),
        "plan": Command(PlanSettings, plan, "tell the memory and time of a run", "model"),
        "evaluate": Command(EvaluateSettings, evaluate, "measure a model", "data"),
        "show": Command(ShowSettings, show, "show what a model is trained on", "data"),
        "stats": Command(StatsSettings, stats, "measure a data set", "data"),
        "imbalance": Command(
            ImbalanceSettings, imbalance, "measure where the gradient comes from", "data"
        ),
        "answer": Command(AnswerSettings, answer, "let a model answer a question", "question"),
        "chat": Command(ChatSettings, chat, "talk with a model", "model"),
        "generate": Command(GenerateSettings, carry_on, "let a model carry on a text", "prompt"),
        "download": Command(DownloadSettings, download, "fetch official weights", "model"),
        "almanac": Command(AlmanacSettings, write_questions, "write the questions that ship"),
        "pretrain": Command(PretrainSettings, pretrain, "make the base that ships, from a seed"),
    }


def make_parser(table: dict[str, Command]) -> Parser:
    """Return the parser of the whole command line."""
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


def settings_of(command: Command, values: dict[str, Any]) -> Any:
    """Return the settings that the values make; raises UserError for a setting without value."""
    hints = get_type_hints(command.settings)
    for name, value in values.items():
        if value is None and type(None) not in get_args(hints[name]):
            raise UserError(f"{name} has no value: give one, or leave it out")
    return command.settings(**values)


def run(arguments: Sequence[str]) -> None:
    """Parse the command line and do what it says."""
    table = commands()
    parsed = make_parser(table).parse_args(named([with_underscores(a) for a in arguments], table))
    command, values = table[parsed.subcommand], parsed[parsed.subcommand].as_dict()
    del values["config"]
    command.action(settings_of(command, values))


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
