"""The terminal: what it obeys is spelled, what a stream cannot take is, too."""

import io
import os
import sys
import unicodedata
from time import sleep

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from minigpt2 import terminal
from minigpt2.errors import UserError
from minigpt2.reports.progress import progress
from minigpt2.reports.screen import Screen, new_table
from minigpt2.terminal import HIDDEN, LONGEST_ERROR, one_line, visible
from tests.fake_terminal import FakeTerminal, control_codes

ANYTHING = st.text(st.characters(blacklist_categories=()))
PLAIN = (
    "a\tb\nc, é, ﷽, 漢字, 👨\u200d👩\u200d👧, no\u200cjoin, no\xa0break, \u3000, :key:, [b], \\x1b"
)


@given(ANYTHING)
def test_nothing_that_a_terminal_obeys_is_left(text):
    for character in visible(text):
        if character not in "\n\t":
            assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp"), ascii(character)
            assert unicodedata.bidirectional(character) not in (
                *("LRE", "RLE", "PDF", "LRO", "RLO"),
                *("LRI", "RLI", "FSI", "PDI"),
            ), ascii(character)
    assert visible(visible(text)) == visible(text)
    visible(text).encode("utf-8")


def test_an_ordinary_text_stays_as_it_is():
    assert visible(PLAIN) == PLAIN


def test_a_byte_that_is_not_utf_8_is_spelled_as_a_byte():
    assert visible(os.fsdecode(b"caf\xe9.json")) == "caf\\xe9.json"
    assert visible("\ud83d") == "\\ud83d"


@given(ANYTHING)
def test_an_error_is_one_line_of_bounded_length(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1 and not HIDDEN.search(line)
    assert len(one_line(text * 3000)) <= LONGEST_ERROR + 5


def on(monkeypatch, encoding="utf-8", errors="minigpt2.spell", name="stdout"):
    """Replace a stream by a terminal in memory."""
    stream = FakeTerminal(encoding, errors)
    monkeypatch.setattr(sys, name, stream)
    return stream


HOSTILE = "\x1b]0;title\x07\x9b2J\r\u202eder\u2066\u2028x"


def test_every_way_to_print_spells_control_codes(monkeypatch):
    out, err = on(monkeypatch), on(monkeypatch, name="stderr")
    for function in (terminal.say, terminal.write, terminal.note, terminal.complain):
        function(HOSTILE)
    for stream in (out, err):
        assert stream.text().count("\\x1b]0;title\\x07\\x9b2J\\r\\u202eder\\u2066\\u2028") == 2
        assert control_codes(stream.text()) == set()


def test_a_model_s_text_goes_into_a_pipe_as_it_is(capsys):
    terminal.write(HOSTILE, end="")
    assert capsys.readouterr().out == HOSTILE
    terminal.say(HOSTILE)
    terminal.complain(HOSTILE)
    assert not HIDDEN.search("".join(capsys.readouterr()))


class Sneaky:
    """What a library may print: a renderable that yields a text of its own."""

    def __rich_console__(self, console, options):
        yield Text(HOSTILE)


def table_of(text):
    """A table with a text everywhere."""
    table = new_table(text, text, text)
    table.add_row(text, Text(text))
    table.caption = text
    return table


def test_the_screen_spells_control_codes_wherever_a_text_is(monkeypatch):
    out = on(monkeypatch)
    screen = Screen()
    printed = [HOSTILE, Text(HOSTILE), Sneaky(), table_of(HOSTILE), Table(HOSTILE)]
    for thing in printed:
        screen.print(thing)
    with progress(HOSTILE, console=screen), progress(HOSTILE, 3) as advance:
        advance(1)
    with Progress(TextColumn(HOSTILE), console=screen) as bar:
        bar.add_task(HOSTILE)
    text = out.text()
    assert control_codes(text) == set()
    assert text.count("\\u202eder") >= 10


def test_markup_and_emoji_codes_are_text(monkeypatch):
    out = on(monkeypatch)
    screen = Screen()
    words = "[bold]x[/bold] [/y] :key: [link=http://x]z[/link]"
    for thing in (words, table_of(words)):
        screen.print(thing)
    with progress(words, console=screen):
        sleep(0.3)
    assert out.text().count(words) >= 6


def test_the_cells_of_a_table_keep_their_columns(monkeypatch):
    out = on(monkeypatch)
    table = new_table("", "name", "size")
    for name in ("plain", "\x1b[2Jx"):
        table.add_row(name, "1")
    Screen().print(table)
    places = [line.rindex("1") for line in out.text().splitlines() if line.rstrip().endswith("1")]
    assert len(places) == 2 and places[0] == places[1] > 8


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii", "## \\xe9 \\u6f22 ..."), ("latin-1", "## é \\u6f22 ..."), ("utf-8", "██ é 漢 …")],
)
def test_what_an_encoding_lacks_is_spelled(monkeypatch, encoding, expected):
    out = on(monkeypatch, encoding)
    terminal.write("██ é 漢 …")
    assert out.text().strip() == expected


def stdin_of(monkeypatch, raw, encoding="utf-8"):
    """Replace standard input."""
    stream = io.TextIOWrapper(io.BytesIO(raw), encoding, errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", stream)


def test_input_that_is_not_in_its_encoding_is_refused_with_its_place(monkeypatch):
    stdin_of(monkeypatch, b"one\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"input is not UTF-8 text: .* holds \\xe9 in line 2$"):
        terminal.read_all()
    stdin_of(monkeypatch, "é".encode(), "ascii")
    with pytest.raises(UserError, match="standard input is not ASCII text"):
        terminal.read_all()
    stdin_of(monkeypatch, "é\n".encode())
    assert terminal.read_all() == "é\n"


def test_a_line_that_is_not_in_its_encoding_costs_that_line_only(monkeypatch):
    stdin_of(monkeypatch, b"caf\xe9\n" + "café\n\n".encode())
    with pytest.raises(UserError, match="this line is not UTF-8 text"):
        terminal.read_line()
    assert [terminal.read_line(), terminal.read_line()] == ["café\n", "\n"]
    with pytest.raises(EOFError):
        terminal.read_line()


def test_a_bug_shows_its_traceback_and_obeys_no_code_in_it(capsys):
    error = ValueError(HOSTILE)
    terminal.report_bug(ValueError, error, error.__traceback__)
    text = capsys.readouterr().err
    assert "ValueError: \\x1b]0;title" in text and "this is a bug" in text
    assert not HIDDEN.search(text)
    terminal.report_bug(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == ""


def test_bytes_that_cannot_be_read_are_an_error_as_ever():
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "minigpt2.spell")
