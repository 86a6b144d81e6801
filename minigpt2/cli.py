"""Command line: one sub-command a task, derived from the settings' classes.

Every setting is an option of the command line and a key of a settings file (YAML
or JSON, `--config`); what the command line says goes before what the file says.
What a user can mend is said in one line on the error stream, with exit code 2.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from jsonargparse import ArgumentParser

from minigpt2 import __version__
from minigpt2.errors import UserError

PROGRAM = "minigpt2"


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message on one line, and where help is; exit with 2."""
        text = " ".join(str(message).split())
        print(f"{PROGRAM}: {text} (see {PROGRAM} --help)", file=sys.stderr)
        raise SystemExit(2)


class Command(NamedTuple):
    """A sub-command: its settings' class, what it does with them, and a line of help."""

    settings: type
    action: Callable[[Any], Any]
    help: str


def commands() -> dict[str, Command]:
    """Return the sub-commands by name."""
    from minigpt2.data.almanac.write import AlmanacSettings, write_questions
    from minigpt2.inference.answer import AnswerSettings, answer
    from minigpt2.training.finetune import train
    from minigpt2.training.pretrain import PretrainSettings, pretrain
    from minigpt2.training.settings import TrainSettings

    return {
        "train": Command(TrainSettings, train, "tune a model on questions and answers"),
        "answer": Command(AnswerSettings, answer, "let a model answer a question"),
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
        usage = f"{PROGRAM} {name} [--config FILE] [--SETTING VALUE ...]"
        sub = Parser(usage=usage, description=f"{PROGRAM} {name}: {command.help}.")
        sub.add_argument("--config", action="config", help="settings file, YAML or JSON")
        sub.add_class_arguments(command.settings)
        subcommands.add_subcommand(name, sub, help=command.help)
    return parser


def with_underscores(argument: str) -> str:
    """Spell an option as the settings do: --batch-size is --batch_size."""
    if not argument.startswith("--"):
        return argument
    option, equals, value = argument.partition("=")
    return "--" + option[2:].replace("-", "_") + equals + value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    table = commands()
    parsed = make_parser(table).parse_args([with_underscores(a) for a in given])
    name = parsed.subcommand
    values = parsed[name].as_dict()
    del values["config"]
    try:
        table[name].action(table[name].settings(**values))
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped", file=sys.stderr)
        return 130
    return 0
