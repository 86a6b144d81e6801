"""Arguments: the words of a command line as names of settings, each with the text of its value.

    train questions.json --batch-size 4 --recompute --model=gpt2
        data = questions.json, batch_size = 4, recompute = true, model = gpt2

A command's first setting needs no name, and may be anywhere among the options.  A setting that is
true or false needs no value.  Behind `--` no word is an option.
"""

import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from minigpt2.errors import UserError
from minigpt2.wording import shorten

OPTION = re.compile(r"--([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
SHORT_OPTION = re.compile(r"-[A-Za-z]\w*")
TRUTHS = ("true", "false", "yes", "no", "on", "off", "0", "1")  # words that follow a flag
FREE = {"-h": "help", "--help": "help", "--print-config": "print_config"}  # these have no value
QUOTE = "; put a text of several words in quotation marks"
SEVERAL = {  # what to do with several words, for settings that need no name
    "data": "; put several files in a folder, and name that",
    "prompt": QUOTE,
    "question": QUOTE,
}
# What a setting or a command is called elsewhere.
ALSO = {
    "ask": "answer",
    "bf16": "precision",
    "checkpoint": "model",
    "dataset": "data",
    "eval": "evaluate",
    "finetune": "train",
    "fp16": "precision",
    "gradient_checkpointing": "recompute",
    "lr": "learning_rate",
    "max_length": "context",
    "max_steps": "steps",
    "max_tokens": "max_new_tokens",
    "num_train_epochs": "epochs",
    "output": "out",
    "output_dir": "out",
    "sample": "generate",
    "tune": "train",
    "wd": "weight_decay",
}


def read_arguments(
    words: Sequence[str],
    hints: Mapping[str, Any],
    first: str,
    refused: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[str, str]]:
    """Return the names and values of a command's options, in their order.

    `hints` are the types of the command's settings; `first` is the one that needs no name, or "".
    `refused` are settings of other commands, each with the reason why this one does not have it.
    The names `help` and `print_config` have no value.  Raises UserError.
    """
    queue = deque(words)
    pairs: list[tuple[str, str]] = []
    free: list[str] = []
    flag, hint = "", SEVERAL.get(first, "")
    while queue:
        word, before, flag = queue.popleft(), flag, ""
        if word == "--":
            free += queue
            break
        if freely := FREE.get(word.replace("_", "-")):
            pairs.append((freely, ""))
        elif match := OPTION.fullmatch(word):
            name = match[1].replace("-", "_")
            kind = hints.get(name)
            if kind is None:
                raise UserError(refused.get(name) or unknown_option(f"--{match[1]}", hints))
            left = len(queue)
            value = following(match[1], queue, kind) if match[2] is None else match[2]
            flag = word if match[2] is None and len(queue) == left else ""
            pairs.append((name, value))
        elif SHORT_OPTION.fullmatch(word):
            raise UserError(unknown_option(word, hints))
        else:
            free.append(word)
            if before and len(free) == 1 + bool(first):  # probably meant as the flag's value
                hint = f"; {before} is true or false"
    if surplus := free[bool(first) :]:
        raise UserError(f"unexpected: {shorten(' '.join(surplus))}{hint}")
    return with_first(pairs, free, first)


def with_first(pairs: list[tuple[str, str]], free: list[str], first: str) -> list[tuple[str, str]]:
    """Return the pairs with the word that has no name, if there is one; raises UserError."""
    if free and first in dict(pairs):
        raise UserError(f"{first} is given twice: {free[0]} and --{first} {dict(pairs)[first]}")
    return [(first, word) for word in free] + pairs


def following(option: str, queue: deque[str], kind: Any) -> str:
    """Take the value of an option from the words behind it; raises UserError if there is none.

    `kind` is the option's type.  One that may be true or something else needs no value either.
    """
    if kind is bool and not (queue and queue[0].lower() in TRUTHS):
        return "true"
    if not queue or queue[0] in ("--", *FREE) or OPTION.fullmatch(queue[0]):
        if bool in get_args(kind):
            return "true"
        raise UserError(f"--{option.replace('_', '-')} needs a value")
    return queue.popleft()


def unknown_option(option: str, names: Collection[str]) -> str:
    """Return a sentence about an option that names no setting.

    >>> unknown_option("--stesp", ["steps", "seed"])
    'there is no option --stesp; did you mean --steps?'
    >>> unknown_option("--lr", ["learning_rate"])
    'there is no option --lr; did you mean --learning-rate?'
    """
    known = [*names, *FREE.values()]
    meant = nearest(option.lstrip("-").replace("-", "_").lower(), known)
    hint = f"; did you mean --{meant.replace('_', '-')}?" if meant else ""
    return f"there is no option {option.replace('_', '-')}{hint}"


def unknown_command(word: str, commands: Collection[str]) -> str:
    """Return a sentence about a word that names no command.

    >>> unknown_command("trian", ["train", "plan"])
    "there is no command 'trian'; did you mean 'train'?"
    """
    if not word:
        return f"a command is missing: {', '.join(commands)}"
    if word.startswith("-") and not nearest(word.lstrip("-"), ["help", "version"]):
        return f"a command comes before {word}: {', '.join(commands)}"
    if word.startswith("-"):
        return unknown_option(word, ["version"])
    meant = nearest(word.lower(), commands)
    return f"there is no command {word!r}" + (f"; did you mean {meant!r}?" if meant else "")


def nearest(word: str, names: Collection[str]) -> str:
    """Return the name that was probably meant: usual elsewhere, begun or misspelt; else ""."""
    begun = [name for name in names if len(word) > 1 and name.startswith(word)]
    candidates = (ALSO.get(word, ""), *begun, *get_close_matches(word, names, n=1))
    return next((name for name in candidates if name in names), "")
