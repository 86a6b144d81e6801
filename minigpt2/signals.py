"""Signals: a command ends where nothing is lost, or saves, when its user or its system says so.

SIGINT (Ctrl-C), SIGTERM (`kill`, a scheduler's end of time) and SIGHUP (a terminal that was closed)
end a command with the exit code 128 plus the signal's number.  SIGUSR1 asks for a checkpoint; a
command without checkpoints passes over it.  What is ignored (nohup) stays ignored.

Outside of `Signals` a signal ends the command at once.  Within it the first one is only noted, as
it may come in the middle of an update or of a file; `check` raises it where the state is whole.  A
second one ends the command at once.
"""

import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from minigpt2.terminal import remark_at_once

ENDED = 128  # plus the number of a signal: the exit code of what the signal ended
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
SAVING = "SIGUSR1"
STOPPING = "stopping, and saving what there is; a second signal stops at once, and saves nothing"


class Stopped(BaseException):
    """A signal to end the program."""

    def __init__(self, number: int, at_once: bool = True):
        super().__init__(number)
        self.number = number
        self.at_once = at_once  # anywhere: what was being changed is not whole


class Interrupted(Stopped, KeyboardInterrupt):
    """Ctrl-C that was noted, and raised where the state is whole."""


def exit_code(stop: BaseException) -> int:
    """Return the exit code of a program that a signal ended."""
    return ENDED + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def stop_in(error: BaseException | None) -> BaseException | None:
    """Return the stop that an exception is, or that it hides; None if there is none.

    A stop that comes at once may come where a library takes a lock, and then the lock's own error
    follows it, "release unlocked lock".  What fails after a stop that was noted, while the state
    is saved, is a fault of its own.
    """
    behind = error
    while behind is not None:
        is_stop = isinstance(behind, Stopped | KeyboardInterrupt)
        if is_stop and (behind is error or getattr(behind, "at_once", True)):
            return behind
        behind = behind.__context__
    return None


def be_stopped(number: int, frame: object) -> NoReturn:
    """End a command as Ctrl-C does: its records are written."""
    raise Stopped(number)


def pass_over(number: int, frame: object) -> None:
    """Do nothing: there is nothing to save."""


OWN: tuple[Any, ...] = (signal.SIG_DFL, signal.default_int_handler, be_stopped, pass_over)


def set_handler(name: str, handler: Any) -> tuple[int, Any] | None:
    """Let a signal call a handler; return its number, and the handler that it had.

    None, and nothing is changed, for a signal that is ignored, that a caller of the API has a
    handler for, or that the system lacks, and outside the main thread.
    """
    number = getattr(signal, name, None)
    if number is None or threading.current_thread() is not threading.main_thread():
        return None
    before = signal.getsignal(number)
    if before not in OWN:
        return None
    signal.signal(number, handler)
    return number, before


def catch_signals() -> None:
    """Turn signals to end the program into exceptions."""
    set_handler("SIGINT", signal.default_int_handler)
    for name in ENDING[1:]:
        set_handler(name, be_stopped)
    set_handler(SAVING, pass_over)


class Signals:
    """A block in which a signal to end the program waits until `check` is called.

    `save_requested` is True after SIGUSR1; who saves sets it back to False.  A signal that no
    `check` has raised is raised at the end of the block.
    """

    def __init__(self) -> None:
        self.save_requested = False
        self._number = 0  # of the signal that waits
        self._before: list[tuple[int, Any]] = []

    def __enter__(self) -> "Signals":
        changes = [set_handler(name, self._note) for name in ENDING]
        changes.append(set_handler(SAVING, self._request))
        self._before = [change for change in changes if change]
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise Stopped if a signal to end the program has come."""
        if self._number:
            kind = Interrupted if self._number == signal.SIGINT else Stopped
            raise kind(self._number, at_once=False)

    def checked(self, function: Callable[[int], None]) -> Callable[[int], None]:
        """Return a function of progress that also checks."""

        def advance(count: int) -> None:
            function(count)
            self.check()

        return advance

    def _note(self, number: int, frame: object) -> None:
        """Note the first signal; raise the second."""
        if self._number:
            raise Stopped(number)
        self._number = number
        remark_at_once(STOPPING)

    def _request(self, number: int, frame: object) -> None:
        """Note that the state is to be saved."""
        self.save_requested = True
