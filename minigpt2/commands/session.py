"""Session: one process's part of a run, with the run's folder, its log, checkpoints and signals.

A run may have several: each one that is stopped leaves a checkpoint, from which the next continues.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from minigpt2.commands.resume import (
    command_of,
    difference,
    find_unfinished,
    open_newest,
)
from minigpt2.commands.run_paths import STARTED_IN
from minigpt2.durable import FolderLock, remove_leftovers
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, RewardModel
from minigpt2.model.config import GPT2Config
from minigpt2.model_folders import checkpoints_of, set_aside
from minigpt2.outputs import write_json
from minigpt2.planning.disk_space import bytes_of, disk_need, require_disk
from minigpt2.reports.progress import progress
from minigpt2.reports.run_log import RUNS, SETTINGS, RunLog, claim_folder, require_free
from minigpt2.signals import Signals, Stopped, stop_in
from minigpt2.training.checkpoint_reader import Checkpoint, restore
from minigpt2.training.checkpoint_writer import CheckpointWriter
from minigpt2.training.fingerprint import Fingerprint
from minigpt2.training.run import Hooks
from minigpt2.training.state import State
from minigpt2.training.step import NotFinite
from minigpt2.wording import plural

BEGINNING: dict[str, Any] = {"log_bytes": 0, "log_checksum": 0, "summary": {}, "overflows": 0}


class Session(ExitStack):
    """A context in which a run is started, or continues; the folder is locked while it lasts.

    Raises UserError if the run cannot continue, or another process writes it.
    """

    def __init__(self, settings: Any, name: str):
        """`name` is that of the data set: runs/<name>-1 is the folder of its first run."""
        super().__init__()
        self.settings = settings
        self.name = name
        self.checkpoint: Checkpoint | None = None
        self.lock: FolderLock
        self.log: RunLog
        self.signals: Signals
        self.extra: dict[str, Any] = {}  # notes of the command
        self.changed: dict[str, str] = {}  # what makes it another run than the one that continues
        self._started = perf_counter()
        self._folder: Path | None = None
        self._damaged: list[Path] = []
        self._line = ""
        self._resumed = False
        self._now: Fingerprint

    def __enter__(self) -> "Session":
        """Lock the run that continues, if there is one, and check its newest checkpoint."""
        super().__enter__()
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> None:
        """Look for the run that continues."""
        self._folder, self._line = find_unfinished(self.settings, self.name)
        if self._folder is None:
            self._require_free()
        else:
            self.lock = self.enter_context(FolderLock(self._folder))
            remove_leftovers(self._folder)
            with progress(f"checking the checkpoints of {self._folder}"):
                self.checkpoint, self._damaged = open_newest(self._folder)

    def _require_free(self) -> None:
        """Raise UserError if the run's folder is taken, and say what a run in it has of its own."""
        try:
            require_free(self.settings.out)
        except UserError as error:
            raise UserError("; ".join([str(error), *self._line.split("; ", 1)[1:]])) from None

    @property
    def model(self) -> str | None:
        """The model from which the run continues; None if it begins."""
        return str(self.checkpoint.folder) if self.checkpoint else None

    def __exit__(self, kind: Any, error: Any, *rest: Any) -> Any:
        """Release what the session holds; say how a run that was stopped continues."""
        if stop_in(error) and hasattr(self, "log"):
            self.log.say("stopped", f"to continue: --resume {self.log.folder}")
        return super().__exit__(kind, error, *rest)

    def require_disk(self, config: GPT2Config, **options: Any) -> str:
        """Return a line about the space of the checkpoints; the options are those of disk_need.

        Raises UserError if it is not free.
        """
        folder = self._folder or self.settings.out or RUNS
        need = disk_need(config, keep=self.settings.keep, **options)
        return require_disk(need, folder, held=bytes_of(checkpoints_of(folder)))

    def start(self, now: Fingerprint, steps: int) -> RunLog:
        """Claim the folder of a run of so many steps, and open its log.

        Raises UserError if the run that continues would not be the same, or is longer already.
        """
        lines = self._compare(now)
        if self.checkpoint and (taken := self.checkpoint.numbers.step) > steps:
            raise UserError(
                f"{self._folder} has taken {plural(taken, 'step')} already, and the run would end "
                f"after {steps:,}: let it take at least {taken:,}"
            )
        self._now = now
        self._resumed = resumed = self._folder is not None
        self._folder = folder = self._folder or claim_folder(self.settings.out, self.name)
        if not resumed:
            self.lock = self.enter_context(FolderLock(folder))
            remove_leftovers(folder)
        lines += [f"{path} is damaged: it is now {set_aside(path).name}" for path in self._damaged]
        events = getattr(self.settings, "tensorboard", False)
        self.signals = self.enter_context(Signals())
        if not resumed:  # the first file of a run: with it, the run can be resumed
            self._write_settings(folder, replace=False)
        self.log = self.enter_context(RunLog(folder, tensorboard=events, resumed=resumed))
        if resumed:
            notes = self.checkpoint.notes if self.checkpoint else BEGINNING
            lines += filter(None, [self.log.continue_from(notes)])
        if self._line:
            self.log.say("resume", self._line)
        if self.checkpoint:
            self._started -= self.checkpoint.notes["seconds"]
            self.extra = dict(self.checkpoint.notes["extra"])
            after = plural(self.checkpoint.numbers.step, "step")
            self.log.say("resume", f"{folder} continues after {after}")
        elif resumed:
            self.log.say("resume", f"{folder} has no checkpoint yet: it starts again")
        for line in lines:
            self.log.say("warning", line)
        return self.log

    def _compare(self, now: Fingerprint) -> list[str]:
        """Return lines about what has changed.  Raises UserError if it is another run now."""
        if not self.checkpoint:
            return []
        self.changed, rounding = difference(self.settings, now, self.checkpoint)
        changed = "; ".join(self.changed.values())
        if changed and not self.settings.resume_anyway:
            raise UserError(
                f"{self._folder} cannot continue as the same run: {changed}; "
                "--resume-anyway continues with what is now, without --resume a new run starts"
            )
        lines = [f"it continues as another run: {changed}"] if changed else []
        if "model" in self.changed:
            lines.append(f"model is the reference alone: the weights are those of {self.model}")
        if rounding:
            lines.append(f"it continues, but not bit for bit ({'; '.join(rounding)})")
        return lines

    def _write_settings(self, folder: Path, *, replace: bool) -> None:
        """Write the settings with which the run can be resumed."""
        settings = {"command": command_of(type(self.settings)), **self._stored_settings()}
        write_json(folder / SETTINGS, settings, replace=replace)

    def _stored_settings(self) -> dict[str, Any]:
        """Return the settings, with the folder in which their relative paths begin."""
        return {**asdict(self.settings), STARTED_IN: os.getcwd()}

    @property
    def seconds(self) -> float:
        """The time that the run has taken, in all its sessions."""
        return perf_counter() - self._started

    def notes(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides the state."""
        return self.log.notes() | {
            "settings": self._stored_settings(),
            "contents": self._now.contents,
            "rounding": self._now.rounding,
            "seconds": self.seconds,
            "extra": self.extra,
        }

    @contextmanager
    def saving(self, state: State, model: Model | RewardModel) -> Iterator[Callable[..., Hooks]]:
        """Restore the state if the run continues; yield what makes a run's hooks.

        When a signal stops the block, the state is saved first.
        """
        if self.checkpoint:
            now, before = self._now.rounding, self.checkpoint.notes["rounding"]
            same = all(now.get(name) == before.get(name) for name in ("precision", "micro_batch"))
            restore(self.checkpoint, state, partial=same and not self.changed)
        keep, folder = self.settings.keep, self.log.folder
        if self._resumed:  # only now, for with these settings it can continue
            self._write_settings(folder, replace=True)
        writer = CheckpointWriter(folder, model, keep=keep, before=self.log.sync)
        writer.remove_old(state)

        def save() -> None:
            self.lock.require()
            writer.save(state, self.notes())

        def between() -> None:
            if self.signals.save_requested:
                self.signals.save_requested = False
                save()
                self.log.say("saving", f"after step {state.step:,}, as SIGUSR1 asks")
            self.signals.check()

        def hooks(**others: Any) -> Hooks:
            return Hooks(save=save, between=between, settle=writer.settle, **others)

        try:
            yield hooks
            writer.finish()
        except Stopped as stop:
            if not stop.at_once:  # else the state may be in the middle of an update
                with progress("saving a checkpoint", console=self.log.console):
                    save()
                    writer.finish()
                self.log.say("saved", f"{checkpoints_of(folder)[-1]}")
            raise
        except BaseException as error:
            with suppress(UserError):
                writer.finish()
            if isinstance(error, NotFinite):
                saved = checkpoints_of(folder)
                last = saved[-1] if saved else "none yet"
                raise UserError(f"{error}; the last good checkpoint: {last}") from None
            if isinstance(error, UserError):
                self.lock.require_folder()  # if it was moved, that is why
            raise
