"""Chat: a conversation in the terminal.

Answers go to standard output, everything else to the error stream.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from minigpt2.commands.decoding import DecodingSettings
from minigpt2.errors import UserError
from minigpt2.inference.conversation import Conversation
from minigpt2.outputs import write_texts
from minigpt2.reports.stream import print_stream, rate
from minigpt2.terminal import is_typed, note, read_line, say
from minigpt2.wording import plural

HELP = """\
/undo                 forget the last question and its answer
/reset                forget the conversation
/system TEXT          set the system message, and forget the conversation; no TEXT removes it
/temperature NUMBER   draw the tokens of the next answers with this temperature; 0 draws none
/save FILE            write the conversation to a JSON file
/help                 list the commands
/quit                 end, like Ctrl-D; Ctrl-C stops an answer
A line that ends in \\ continues on the next one."""


@dataclass(frozen=True, kw_only=True)
class ChatSettings(DecodingSettings):
    """Talk with a model.

    Examples:
        minigpt2 chat runs/questions-1
        minigpt2 chat gpt2 --system "You answer in one sentence." --temperature 0.7

    Output:
        The answers; all else goes to the error stream.  In a terminal, control
        codes in them are spelled, as \\x1b.  A file or a pipe gets them as the
        model wrote them.

    Args:
        system: system message, instead of the opening of the model's template
    """

    system: str = ""
    max_new_tokens: int = 256


def chat(settings: ChatSettings) -> None:
    """Answer questions until the user ends the conversation."""
    with suppress(ImportError):  # line editing, where the system has it
        import readline  # noqa: F401
    conversation = Conversation(
        settings.open_model(),
        system=settings.system,
        max_new_tokens=settings.max_new_tokens,
        sampling=settings.sampling(),
        rng=settings.rng(),
    )
    if is_typed():
        note(f"{settings.model}: /help lists the commands, Ctrl-D ends")
    for line in read_lines():
        if line == "/quit":
            return
        try:
            if line.startswith("/"):
                run_command(conversation, line)
            elif line:
                respond(conversation, line)
        except UserError as error:
            note(str(error))


def read_lines() -> Iterator[str]:
    """Yield the lines that the user enters; Ctrl-C at the prompt starts a new line."""
    while True:
        try:
            lines = [read_line().strip()]
            while lines[-1].endswith("\\"):
                lines[-1] = lines[-1][:-1]
                lines.append(read_line().strip())
            yield "\n".join(lines)
        except EOFError:
            if is_typed():
                say("")
            return
        except KeyboardInterrupt:
            say("")
        except UserError as error:
            note(str(error))


def respond(conversation: Conversation, question: str) -> None:
    """Print the answer while the model writes it, then its speed; Ctrl-C stops it."""
    if forgotten := conversation.fit(question):
        turns = plural(forgotten, "turn")
        note(f"the context is full: forgot the oldest part of the conversation, {turns}")
    started = perf_counter()
    try:
        count = print_stream(conversation.tokenizer, conversation.answer(question))
        cut = "; cut: raise --max-new-tokens" if count == conversation.max_new_tokens else ""
        note(rate(count, perf_counter() - started) + cut)
    except KeyboardInterrupt:
        say("")
        note("stopped")


def run_command(conversation: Conversation, line: str) -> None:
    """Do what a line that begins with / asks for.  Raises UserError for an unknown command."""
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if command == "/reset":
        conversation.forget()
        note("the conversation is forgotten")
    elif command == "/undo":
        conversation.undo()
        note(f"the conversation has {plural(len(conversation.turns), 'turn')}")
    elif command == "/system":
        conversation.system = argument
        conversation.forget()
        state = "set" if argument else "removed"
        note(f"the system message is {state}, and the conversation is forgotten")
    elif command == "/temperature" and argument:
        set_temperature(conversation, argument)
        note(f"the temperature is {conversation.sampling.temperature:g}")
    elif command == "/save" and argument:
        save(conversation, Path(argument))
        note(f"written to {argument}")
    elif command == "/help":
        note(HELP)
    else:
        raise UserError(f"{line!r} is not a command, or lacks its text: /help lists the commands")


def set_temperature(conversation: Conversation, text: str) -> None:
    """Draw the next answers with a temperature.  Raises UserError if it is not a number >= 0."""
    try:
        temperature = float(text)
    except ValueError:
        raise UserError(f"temperature must be a number, not {text}") from None
    sampling = replace(conversation.sampling, temperature=temperature)
    conversation.sample_with(sampling, conversation.rng)


def save(conversation: Conversation, path: Path) -> None:
    """Write a conversation as data to tune on: a list of one entry, or a line of a .jsonl file.

    Raises UserError if the file exists.
    """
    entry = {"messages": conversation.messages()}
    whole, indent = (entry, None) if path.suffix == ".jsonl" else ([entry], 2)
    write_texts({path: json.dumps(whole, ensure_ascii=False, indent=indent) + "\n"})
