"""Chat: a conversation in the terminal.

Each turn is rendered as in training (data/template), and what was said before stays
in the key/value cache, so a turn costs its own tokens only.  When the context is
full, the oldest turns are forgotten, and that is said.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from minigpt2.commands.generate import print_as_it_comes, rate
from minigpt2.data.template import ALPACA, Template
from minigpt2.data.tokenizer import Tokenizer
from minigpt2.device.devices import Device
from minigpt2.errors import UserError, require_at_least
from minigpt2.inference.kv_cache import Cache
from minigpt2.inference.model import open_model
from minigpt2.inference.sampling import Sampling, sample
from minigpt2.model.parameters import Parameters

FEED = 128  # rows that go through the cache at a time
HELP = """\
/reset         forget what was said
/system TEXT   say what the model should be told first, and forget what was said
/save FILE     write the conversation as JSON
/help          show this
/quit          end (also Ctrl-D); Ctrl-C stops an answer"""


@dataclass(frozen=True)
class ChatSettings(Sampling):
    """Talk with a model.

    Args:
        model: folder of a model, folder of a run, a .safetensors file, or a name
        system: what the model is told first, in place of the template's own opening
        max_new_tokens: longest answer
        seed: of the draws
        device: cpu, cuda, emulated or auto, as in `minigpt2 answer`
    """

    model: str = "tiny"
    system: str = ""
    max_new_tokens: int = 256
    seed: int = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "max_new_tokens")
        require_at_least(0, self, "seed")


class Exchange(NamedTuple):
    """A question and the tokens of its answer, as the model gave them."""

    question: str
    answer: list[int]


class Conversation:
    """What was said, and a model that has read it."""

    def __init__(
        self,
        parameters: Parameters,
        tokenizer: Tokenizer,
        template: Template | None,
        settings: ChatSettings,
    ):
        self.parameters, self.tokenizer, self.settings = parameters, tokenizer, settings
        self.template = template or ALPACA
        self.rng = np.random.default_rng(settings.seed)
        self.system = settings.system
        self.exchanges: list[Exchange] = []
        # Its rows are always those of the first tokens of `ids`.
        context = parameters.config.n_positions
        self.cache = Cache(parameters, sequences=1, prefix=0, suffix=context)

    def forget(self, count: int | None = None) -> None:
        """Forget the oldest exchanges, or all."""
        del self.exchanges[:count]
        self.cache.lengths[:] = 0

    def ids(self, exchanges: Sequence[Exchange], question: str) -> list[int]:
        """Return the ids of some exchanges and of a question that is to be answered."""
        ids: list[int] = []
        for asked, answer in (*exchanges, Exchange(question, [])):
            if ids:
                ids.append(self.tokenizer.end_of_text)
            again = self.template.later_prompt(asked)
            text = again if ids else self.template.first_prompt(asked, system=self.system)
            ids += self.tokenizer.encode(text) + answer
        return ids

    def make_room(self, question: str) -> int:
        """Forget the oldest exchanges until a question and its answer fit; return how many.

        An answer needs as many tokens as the settings allow, or a quarter of the context if
        that is less.  Raises UserError for a question that leaves no room by itself.
        """
        context = self.parameters.config.n_positions
        room = min(self.settings.max_new_tokens, context // 4)
        for count in range(len(self.exchanges) + 1):
            if len(self.ids(self.exchanges[count:], question)) + room <= context:
                if count:
                    self.forget(count)
                return count
        need = len(self.ids([], question))
        raise UserError(
            f"this has {need} tokens with its template; with {room} for the answer it is more "
            f"than the {context} that the model reads"
        )

    def answer(self, question: str) -> Iterator[int]:
        """Yield the tokens of the answer, and remember them, also when the caller stops early."""
        ids = self.ids(self.exchanges, question)
        answer: list[int] = []
        self.exchanges.append(Exchange(question, answer))
        for start in range(int(self.cache.lengths[0]), len(ids), FEED):
            h = self.cache.extend(np.array([ids[start : start + FEED]]))  # (1, n, C)
        while True:
            logits = h[:, -1] @ self.parameters["wte.weight"].T  # (1, V)
            (token,) = sample(logits, self.settings, self.rng, [ids + answer]).tolist()
            if token == self.tokenizer.end_of_text:
                return
            answer.append(token)
            yield token
            if len(answer) == self.settings.max_new_tokens or not self.cache.free:
                return
            h = self.cache.extend(np.array([[token]]))

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation as messages with roles."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        for question, answer in self.exchanges:
            said.append({"role": "user", "content": question})
            said.append({"role": "assistant", "content": self.tokenizer.decode(answer)})
        return said


def respond(conversation: Conversation, question: str) -> None:
    """Print the answer as it comes, and how fast; Ctrl-C ends it where it is."""
    forgotten = conversation.make_room(question)
    if forgotten:
        note(f"the context is full: the oldest {forgotten} exchanges are forgotten")
    started = perf_counter()
    try:
        count = print_as_it_comes(conversation.tokenizer, conversation.answer(question))
        note(rate(count, perf_counter() - started))
    except KeyboardInterrupt:
        print()
        note("stopped")


def obey(conversation: Conversation, line: str) -> None:
    """Do what a line that begins with / says; raises UserError if it cannot be done."""
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if command == "/reset":
        conversation.forget()
        note("forgotten")
    elif command == "/system" and argument:
        conversation.system = argument
        conversation.forget()
        note("the model will be told this first; what was said is forgotten")
    elif command == "/save" and argument:
        path = Path(argument)
        if path.exists():
            raise UserError(f"{path} exists already: choose another name")
        text = json.dumps({"messages": conversation.messages()}, ensure_ascii=False, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
        note(f"written to {path}")
    elif command == "/help":
        note(HELP)
    else:
        raise UserError(f"{line!r} is no command, or lacks its text; /help lists them")


def note(text: str) -> None:
    """Say something that is not the model's, on the error stream."""
    print(f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def lines() -> Iterator[str]:
    """Yield what the user says, line by line; Ctrl-C at the prompt starts a new line."""
    while True:
        try:
            if sys.stdin.isatty():
                yield input("> ").strip()
            elif line := sys.stdin.readline():
                yield line.strip()
            else:
                return
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()


def chat(settings: ChatSettings) -> None:
    """Talk until the user ends it."""
    with suppress(ImportError):  # line editing, where the system has it
        import readline  # noqa: F401
    conversation = Conversation(*open_model(settings.model, settings.device), settings)
    if sys.stdin.isatty():
        note(f"{settings.model}; /help lists the commands, Ctrl-D ends")
    for line in lines():
        if line == "/quit":
            return
        try:
            if line.startswith("/"):
                obey(conversation, line)
            elif line:
                respond(conversation, line)
        except UserError as error:
            note(str(error))
        except OSError as error:
            note(f"{error.filename}: {error.strerror}")
