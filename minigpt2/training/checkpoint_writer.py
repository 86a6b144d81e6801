"""Checkpoint writer: checkpoints go to the disk in the background, from where the arrays are.

From one update to the next the weights and the moments do not change.  So a thread hands them to
the operating system while the next step goes forward and backward, and the next update waits until
that is done (`settle`).  Nothing is copied: GPT-2 Large has 9.3 GB of them.  That they reach the
disk, fsync, and get their name, no update waits for.  (J. Mohan et al., CheckFreq, FAST 2021; there
the state is copied first.)

In the middle of an accumulated step the gradients belong to the checkpoint.  The next micro-batch
changes them, so there it waits.
"""

import os
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

from minigpt2.durable import remove_folder
from minigpt2.inference.model import Model, RewardModel
from minigpt2.model_folders import STATE, checkpoints_of
from minigpt2.outputs import hidden_name, whole_file
from minigpt2.training.checkpoint import (
    Numbers,
    Snapshot,
    checkpoint_name,
    snapshot_of,
    state_text,
    write_checkpoint,
)
from minigpt2.training.checkpoint_reader import read_state
from minigpt2.training.state import State

NICE = 10  # how far behind the computing threads the writing one stands


class CheckpointWriter:
    """Writes the checkpoints of a run's folder; keeps the newest `keep` (0: all) and the best."""

    def __init__(
        self,
        folder: Path,
        model: Model | RewardModel,
        *,
        keep: int,
        before: Callable[[], None],
    ):
        """`before` is called before a checkpoint gets its name: it fsyncs what the notes name."""
        self.folder = folder
        self.model = model
        self.keep = keep
        self.before = before
        self.newest: Path | None = None  # the last that is whole
        self.seconds = 0.0  # that updates have waited
        self._thread: Thread | None = None
        self._handed_over = Event()
        self._error: BaseException | None = None

    def save(self, state: State, notes: dict[str, Any]) -> None:
        """Begin to write a checkpoint, when the one before is written.

        One that exists has these arrays: a state has the same ones each time it is reached.  Of it,
        only state.json is replaced, if the model has been validated since.  Raises UserError if the
        one before could not be written, and in the middle of a step if this one cannot.
        """
        self.finish()
        path = self.folder / checkpoint_name(state.step, len(state.partial))
        arguments = path, snapshot_of(state, self.model), deepcopy(notes)
        self._handed_over.clear()
        self._thread = Thread(target=self._write, args=arguments, daemon=True)
        self._thread.start()
        if state.partial:
            self.settle()

    def settle(self) -> None:
        """Wait until the arrays may change.  Raises UserError if they could not be written."""
        if self._thread:
            started = perf_counter()
            self._handed_over.wait()
            self.seconds += perf_counter() - started
        if self._error:
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint is on the disk.  Raises UserError if it cannot be written."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            error, self._error = self._error, None
            raise error

    def _write(self, path: Path, snapshot: Snapshot, notes: dict[str, Any]) -> None:
        """Write a checkpoint and remove what is no longer kept; note an error for the next call."""
        try:
            if sys.platform == "linux":  # elsewhere it would be that of the whole process
                os.nice(NICE)
            handed_over = self._handed_over.set
            if path.exists():
                update_checkpoint(path, snapshot.numbers, notes, before=self.before)
            else:
                write_checkpoint(path, snapshot, notes, handed_over=handed_over, before=self.before)
            self.newest = path
            self._remove_old(snapshot.numbers.best_step)
        except BaseException as error:
            self._error = error
        finally:
            self._handed_over.set()

    def remove_old(self, state: State) -> None:
        """Remove the checkpoints that a run, which was killed, had no time to remove."""
        self._remove_old(state.best.step if state.best else None)

    def _remove_old(self, best: int | None) -> None:
        """Remove all checkpoints but the newest ones and that of the best validation."""
        if self.keep:
            spared = self.folder / checkpoint_name(best) if best is not None else None
            for path in checkpoints_of(self.folder)[: -self.keep]:
                if path != spared:
                    remove_folder(path)


def update_checkpoint(
    path: Path, numbers: Numbers, notes: dict[str, Any], *, before: Callable[[], None]
) -> None:
    """Replace a checkpoint's state.json if a validation has changed the numbers of its state.

    `before` is as for `write_checkpoint`.  Raises UserError if it cannot be written.
    """
    stored = read_state(path)
    if stored["numbers"] != numbers._asdict():
        # A hidden name next to the folder is one that a next session of the run removes.
        with whole_file(path / STATE, replace=True, hidden=hidden_name(path)) as hidden:
            hidden.write_text(state_text(stored["files"], numbers, notes))
            before()
