"""Progress: shown in a terminal and in a file, and never among the results."""

import sys
from errno import EIO
from time import sleep

import pytest

from minigpt2.reports import progress as chapter
from minigpt2.reports import screen
from minigpt2.reports.progress import Work, bars, progress, tracked
from minigpt2.wording import duration
from tests.fake_terminal import FakeTerminal


@pytest.fixture
def quick(monkeypatch):
    """Lines after a moment."""
    monkeypatch.setattr(chapter, "FIRST", 0.05)
    monkeypatch.setattr(chapter, "NEXT", 0.05)


def wait_for(text, capsys, seconds=10.0):
    """Wait until the error stream has a text; return what it has."""
    written = ""
    for _ in range(int(seconds / 0.02)):
        written += capsys.readouterr().err
        if text in written:
            return written
        sleep(0.02)
    raise AssertionError(f"{text!r} is not in {written!r}")


def test_a_long_task_writes_lines_on_the_error_stream_alone(quick, capsys):
    with progress("counting sheep", total=4000) as advance:
        wait_for("counting sheep: 0 of 4,000\n", capsys)
        advance(1000)
        written = wait_for("counting sheep: 1,000 of 4,000, ", capsys)
        assert written.rstrip("\n").endswith(" left")
    with progress("waiting"):
        assert " s so far\n" in wait_for("waiting: ", capsys)
    assert capsys.readouterr().out == ""


def test_the_innermost_task_is_mentioned(quick, capsys):
    with progress("outer", total=2) as advance:
        advance(1)
        with progress("inner", total=5) as advance_inner:
            advance_inner(2)
            wait_for("inner: 2 of 5, ", capsys)
        wait_for("outer: 1 of 2, ", capsys)


def test_a_task_within_another_waits_for_its_own_moment(monkeypatch, capsys):
    pauses, now = [], [0.0]

    class Clock:
        def wait(self, seconds):
            pauses.append(seconds)
            now[0] += seconds
            if now[0] == 2:  # the inner task began half a second ago
                chapter._under_way.append(Work("inner"))
                chapter._under_way[-1]._started = 1.5
            return len(pauses) > 2

    monkeypatch.setattr(chapter, "monotonic", lambda: now[0])
    monkeypatch.setattr(chapter, "_under_way", [Work("outer")])
    lines = chapter.Lines()
    lines._over = Clock()
    lines._print()
    assert pauses[:2] == [2, 1.5]
    assert capsys.readouterr().err.startswith("inner: ")


def test_a_short_task_writes_nothing(capsys):
    assert list(tracked("encoding", [3, 1, 2])) == [3, 1, 2]
    with pytest.raises(ValueError), progress("failing"):
        raise ValueError
    written = capsys.readouterr()
    assert written.out == written.err == ""


def test_lines_come_ever_more_seldom(monkeypatch, capsys):
    pauses, now = [], [0.0]

    class Clock:
        def wait(self, seconds):
            pauses.append(seconds)
            now[0] += seconds
            return now[0] > 3600

    monkeypatch.setattr(chapter, "monotonic", lambda: now[0])
    monkeypatch.setattr(chapter, "_under_way", [Work("training", 100)])
    lines = chapter.Lines()
    lines._over = Clock()
    lines._print()
    assert pauses[0] == 2 and pauses[1] == 10 and 300 < pauses[-1] < 400
    written = capsys.readouterr().err.splitlines()
    assert len(written) == len(pauses) - 1 < 50
    assert set(written) == {"training: 0 of 100"}


def test_the_time_that_is_left_is_at_the_speed_of_this_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(chapter, "monotonic", lambda: now[0])
    work = Work("training", total=100, before=60)
    assert work.state == "60 of 100"
    work.advance(10)
    now[0] = 20.0
    assert work.state == f"70 of 100, {duration(60)} left"


class Terminal:
    """A stream that is a terminal, and keeps what is written."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("streams", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_in_a_terminal_it_is_a_bar_and_results_stay_where_they_belong(streams, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminals = {name: Terminal() for name in streams}
    for name, terminal in terminals.items():
        monkeypatch.setattr(sys, name, terminal)
    with progress("reading [bold]x[/bold]", total=3) as advance:
        advance(1)
        sleep(0.3)
        with progress("inside"):
            sleep(0.3)
        print("result")
    shown = terminals[streams[0]].text
    assert "reading [bold]x[/bold]" in shown and "1 of 3" in shown and "inside" in shown
    assert "\x1b[?25h" in shown  # the cursor is back
    if streams == ("stderr",):
        assert capsys.readouterr().out == "result\n" and "result" not in shown
    else:
        assert "result" in shown


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_terminal_that_is_closed_does_not_hide_what_ended_the_block(stream, monkeypatch, capsys):
    def fail(text):
        raise OSError(EIO, "Input/output error")

    terminal, closed = FakeTerminal(), []
    monkeypatch.setattr(sys, stream, terminal)
    for name, closing in (("stdout", "close_output"), ("stderr", "close_errors")):
        monkeypatch.setattr(screen, closing, lambda name=name: closed.append(name))
    with pytest.raises(KeyError), progress("working", 10, screen.Screen(until_closed=True)):
        monkeypatch.setattr(terminal, "write", fail)
        raise KeyError
    assert closed == [stream]


def test_a_dumb_terminal_gets_lines(quick, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("waiting"):
        sleep(0.3)
    assert "waiting: " in terminal.text and "\x1b[?25" not in terminal.text


def test_bars_are_one_row_for_each_task():
    with progress("outer", 3), progress("inner"):
        assert bars().row_count == 2
    assert bars().row_count == 0
