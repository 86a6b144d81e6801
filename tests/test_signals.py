"""Signals: real ones, sent to processes of their own, and what they leave."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from minigpt2.signals import (
    OWN,
    Interrupted,
    Signals,
    Stopped,
    be_stopped,
    catch_signals,
    exit_code,
    pass_over,
    stop_in,
)

ROOT = Path(__file__).parents[1]
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NUMBERS = [*ENDING, signal.SIGUSR1]
NOTICE = (
    "minigpt2: stopping, and saving what there is; a second signal stops at once, and saves "
    "nothing\n"
)

# A command that works in three parts and says what it does; a line on its standard input is a
# moment at which the test has sent what it wants to send.
WORK = """
import sys
from minigpt2.signals import Signals, Stopped, catch_signals, exit_code

def step(name):
    print(name, flush=True)
    sys.stdin.readline()

try:
    catch_signals()
    step("before")
    with Signals() as signals:
        try:
            step("first")
            step("longer")
            signals.check()
            step("last")
            print("save" if signals.save_requested else "go on", flush=True)
        except Stopped as stop:
            step("at once" if stop.at_once else "saving")
            print("saved", flush=True)
            raise
    step("after")
except (KeyboardInterrupt, Stopped) as stop:
    sys.exit(exit_code(stop))
"""
START = ["before", "first", "longer"]
WAITING = {*START, "last", "after", "at once", "saving"}
WHOLE = [*START, "last", "go on", "after"]


def as_a_shell_starts_it(ignored=()):
    """The handlers that a new process has, but for what is ignored."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)


def work(sent, *, ignored=()):
    """Run WORK, with signals sent in some of its parts; returns code, lines and errors."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", WORK],
        cwd=ROOT,
        text=True,
        preexec_fn=lambda: as_a_shell_starts_it(ignored),
        **pipes,
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            for number in sent.get(lines[-1], ()):
                process.send_signal(number)
            if lines[-1] in WAITING:
                with suppress(BrokenPipeError):
                    process.stdin.write("\n")
                    process.stdin.flush()
        _, errors = process.communicate()
    return process.returncode, lines, errors


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_within_the_block_waits_for_the_next_check(number):
    expected = 128 + number, [*START, "saving", "saved"], NOTICE
    assert work({"first": [number]}) == expected


def test_a_signal_after_the_last_check_is_raised_at_the_end_of_the_block():
    code, lines, errors = work({"last": [signal.SIGTERM]})
    assert (code, lines, errors) == (143, WHOLE[:-1], NOTICE)


@pytest.mark.parametrize(
    ("part", "number"), [*(("before", number) for number in ENDING), ("after", signal.SIGINT)]
)
def test_outside_of_the_block_a_signal_ends_the_program_at_once(part, number):
    lines = WHOLE[: WHOLE.index(part) + 1]
    assert work({part: [number]}) == (128 + number, lines, "")


@pytest.mark.parametrize(("first", "second"), [*pairwise(ENDING), (ENDING[-1], ENDING[0])])
def test_a_second_signal_stops_at_once(first, second):
    code, lines, _ = work({"first": [first], "longer": [second]})
    assert (code, lines) == (128 + second, [*START, "at once", "saved"])


def error_after(stop):
    """The error of a lock that a stop leaves open."""
    lock = threading.Lock()
    try:
        with lock:
            lock.release()  # as Condition.wait does until it has waited
            raise stop
    except BaseException as error:
        return error


@pytest.mark.parametrize("stop", [Stopped(signal.SIGTERM), KeyboardInterrupt()])
def test_a_stop_is_found_behind_the_error_that_it_causes(stop):
    error = error_after(stop)
    assert isinstance(error, RuntimeError) and stop_in(error) is stop and stop_in(stop) is stop


@pytest.mark.parametrize("kind", [Stopped, Interrupted])
def test_an_error_after_a_stop_that_was_noted_is_a_fault_of_its_own(kind):
    stop = kind(signal.SIGINT, at_once=False)
    assert stop_in(error_after(stop)) is None and stop_in(stop) is stop


def test_in_an_error_and_in_nothing_there_is_no_stop():
    assert stop_in(error_after(OSError())) is None and stop_in(None) is None


def test_a_second_signal_stops_the_saving_too():
    code, lines, _ = work({"first": [signal.SIGTERM], "saving": [signal.SIGTERM]})
    assert (code, lines) == (128 + signal.SIGTERM, [*START, "saving"])


def test_sigusr1_asks_for_a_checkpoint_and_nothing_ends():
    outside = {part: [signal.SIGUSR1] for part in ("before", "after")}
    assert work(outside) == (0, WHOLE, "")
    asked = ["save" if line == "go on" else line for line in WHOLE]
    assert work({**outside, "first": [signal.SIGUSR1]}) == (0, asked, "")


def test_what_is_ignored_stays_ignored():
    """As nohup ignores SIGHUP, and a shell Ctrl-C for a command in the background."""
    everywhere = dict.fromkeys(WAITING, NUMBERS)
    assert work(everywhere, ignored=NUMBERS) == (0, WHOLE, "")


@pytest.fixture
def handlers():
    """The handlers of a program that uses the API; those of the tests come back afterwards."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_handlers_of_a_program_come_back(handlers):
    before = handlers()
    with Signals():
        assert not set(handlers().values()) & set(OWN)
    assert handlers() == before
    with pytest.raises(ValueError), Signals():
        raise ValueError
    assert handlers() == before


def test_a_handler_of_the_callers_own_stays(handlers):
    def own(number, frame):
        raise ValueError

    for number in NUMBERS:
        signal.signal(number, own)
    catch_signals()
    with Signals():
        assert set(handlers().values()) == {own}


def test_a_command_turns_signals_into_exceptions(handlers):
    catch_signals()
    assert list(handlers().values()) == [
        signal.default_int_handler,
        *[be_stopped] * 2,
        pass_over,
    ]


def test_ctrl_c_is_a_keyboard_interrupt_for_a_program_that_uses_the_api(handlers):
    with pytest.raises(KeyboardInterrupt) as stop, Signals():
        os.kill(os.getpid(), signal.SIGINT)
    assert isinstance(stop.value, Interrupted) and not stop.value.at_once
    assert exit_code(stop.value) == 130 == exit_code(KeyboardInterrupt())
    with pytest.raises(Stopped) as stop, Signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert not isinstance(stop.value, KeyboardInterrupt)


def test_progress_can_check_too(handlers):
    counts = []
    with pytest.raises(Stopped), Signals() as signals:
        advance = signals.checked(counts.append)
        advance(2)
        os.kill(os.getpid(), signal.SIGHUP)
        advance(3)
        advance(4)
    assert counts == [2, 3]


def test_outside_the_main_thread_no_handler_changes(handlers):
    before, seen = handlers(), []

    def run():
        catch_signals()
        with Signals() as signals:
            signals.check()
            seen.append(handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before] and handlers() == before
