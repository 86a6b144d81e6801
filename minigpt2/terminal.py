"""Terminal: all that the program reads from its streams, and all that it writes to them.

Texts and names come from files, from models and from the command line.  A terminal obeys codes in
them: such a text could clear the screen, set the window's title, or reverse the order of what is
read.  So whatever goes to a terminal is `visible` first: a code is spelled, as \\x1b.

What a model writes for its own sake (answer, chat, generate) is the exception: into a file or a
pipe it goes as it is.  All else, and every error, is visible there, too.

This module writes lines; reports/screen writes tables and colours, reports/progress
writes bars.  No other module touches a stream.
"""

import codecs
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from traceback import format_exception
from types import TracebackType
from typing import TextIO

from minigpt2.errors import UserError
from minigpt2.wording import plural

# What a terminal or a browser obeys or hides: control characters but line breaks and tabs, line
# and paragraph separators, bidirectional embeddings, overrides and isolates, deprecated format
# characters, and halves of surrogate pairs, which stand for bytes that are not UTF-8.
HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")
LONGEST_ERROR = 2000  # characters
LONGEST_INPUT = 1 << 24  # characters
BUG = "minigpt2: this is a bug of minigpt2, whatever its input was"
PLAINER = {"█": "#", "…": "...", "→": "->", "↵": "\\n", "λ": "lambda", "–": "-"}


def spell(character: str) -> str:
    """Return the escape of a character; that of a byte that is not UTF-8 is the byte's."""
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(character)[1:-1]


def visible(text: str) -> str:
    r"""Return a text in which every character that a terminal obeys or hides is spelled.

    >>> visible("\x1b[2J\r is red: \u202eder\n")
    '\\x1b[2J\\r is red: \\u202eder\n'
    """
    return HIDDEN.sub(lambda match: spell(match[0]), text)


def one_line(text: str) -> str:
    r"""Return a text on one visible line; the middle of a very long one is left out.

    >>> one_line("a file\n  called\ta.json")
    'a file called\\ta.json'
    """
    line = visible(re.sub(r"\s*\n\s*", " ", text.strip())).replace("\t", "\\t")
    half = LONGEST_ERROR // 2
    return line if len(line) <= LONGEST_ERROR else f"{line[:half]} ... {line[-half:]}"


def spell_what_cannot_be_encoded(error: UnicodeError) -> tuple[str, int]:
    """Return what stands in for characters that a stream's encoding lacks: an error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    escapes = (PLAINER.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters)
    return "".join(escapes), error.end


codecs.register_error("minigpt2.spell", spell_what_cannot_be_encoded)


def open_streams() -> None:
    """Make the three streams usable: those that are closed read nothing and write nowhere.

    A character that a stream's encoding lacks is spelled; bytes that are not UTF-8 are read as
    halves of surrogate pairs, which `require_decoded` notices.  A width of 0 columns, which some
    programs set where there is no terminal, is none.
    """
    if os.environ.get("COLUMNS", "").strip("0 ") == "":
        os.environ.pop("COLUMNS", None)
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a closed stream's number would be that of the next file, and be written to
    os.close(number)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape" if mode == "r" else "minigpt2.spell")


def close(stream: TextIO) -> None:
    """Let a stream write nowhere from here on, and forget what it still holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def close_output() -> None:
    """Let standard output write nowhere from here on: its reader is gone, or its disk is full."""
    close(sys.stdout)


def close_errors() -> None:
    """Let the error stream write nowhere from here on: its terminal is gone."""
    close(sys.stderr)


def say(text: str) -> None:
    """Print a line."""
    print(visible(text))


def shown(text: str) -> str:
    """Return a text as standard output takes it: visible in a terminal, elsewhere as it is."""
    return visible(text) if sys.stdout.isatty() else text


def write(text: str, end: str = "\n") -> None:
    """Print a text that a model wrote, at once, as it is `shown`."""
    print(shown(text), end=end, flush=True)


def flush() -> None:
    """Hand everything that was printed to the reader; raises OSError if it cannot be written."""
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a remark, which is not a result: on the error stream, dim in a terminal."""
    line = visible(text)
    remark(f"\033[2m{line}\033[0m" if is_watched() else line)


def complain(text: str) -> None:
    """Print an error as one line on the error stream."""
    remark(f"minigpt2: {one_line(text)}")


def remark(line: str) -> None:
    """Print a line on the error stream; one that cannot be written is closed, and that is all."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        close(sys.stderr)


def remark_at_once(text: str) -> None:
    """Print a line on the error stream from the handler of a signal, past what buffers it."""
    if sys.__stderr__:
        with suppress(OSError, ValueError):
            os.write(sys.__stderr__.fileno(), f"minigpt2: {text}\n".encode("ascii"))


def report_bug(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of an exception that nothing caught; nothing for a second Ctrl-C."""
    if not issubclass(kind, KeyboardInterrupt):
        remark(visible("".join(format_exception(kind, error, trace))) + BUG)


def is_watched() -> bool:
    """Whether the error stream is a terminal."""
    return sys.stderr.isatty()


def is_typed() -> bool:
    """Whether standard input is a terminal, where a person types."""
    return sys.stdin.isatty()


def read_line() -> str:
    """Return a line of standard input, after a prompt if it is typed.

    Raises EOFError at the end, and UserError if it cannot be read.
    """
    with reading_input():
        line = input("> ") if is_typed() else sys.stdin.readline(LONGEST_INPUT + 1)
    if not line and not is_typed():
        raise EOFError
    return require_decoded(line, "this line", sys.stdin.encoding)


def read_all() -> str:
    """Return the whole of standard input; raises UserError if it cannot be read."""
    with reading_input():
        text = sys.stdin.read(LONGEST_INPUT + 1)
    return require_decoded(text, "standard input", sys.stdin.encoding)


@contextmanager
def reading_input() -> Iterator[None]:
    """Turn an error of the block, which reads standard input, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"standard input cannot be read: {error.strerror or error}") from None
    except UnicodeError as error:
        text = f"standard input is not {sys.stdin.encoding.upper()} text: {error}"
        raise UserError(text) from None


def require_decoded(text: str, name: str, encoding: str = "utf-8") -> str:
    """Return a text that came from outside.

    Raises UserError if bytes of it were not in the encoding, or if it is too long to be a text.
    """
    if len(text) > LONGEST_INPUT:
        raise UserError(f"{name} is longer than {plural(LONGEST_INPUT, 'character')}")
    if match := re.search("[\ud800-\udfff]", text):
        line = text.count("\n", 0, match.start()) + 1
        place = f" in line {line}" if "\n" in text.rstrip("\n") else ""
        byte = spell(match[0])
        raise UserError(f"{name} is not {encoding.upper()} text: it holds {byte}{place}")
    return text
