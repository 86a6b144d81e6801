"""Resume: a run that was stopped continues, bit for bit as if it had not been.

`--resume runs/questions-1` continues that run, with its own settings.  `--resume` alone continues
the newest unfinished run of the data set that has these settings; if there is none, it starts one.
So one command line serves for the first start and for every later one.

A run continues from its newest whole checkpoint; before the first checkpoint it starts again.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from minigpt2.checked import checked
from minigpt2.commands.run_paths import STARTED_IN, from_here
from minigpt2.errors import NothingLeft, OtherFormat, UserError, default_of
from minigpt2.model_folders import STATE, checkpoints_of
from minigpt2.outputs import json_text
from minigpt2.reading import parse_json, read_text
from minigpt2.reports.run_log import RUNS, SETTINGS, SUMMARY
from minigpt2.training.checkpoint_reader import Checkpoint, checked_fields, open_checkpoint
from minigpt2.training.fingerprint import Fingerprint, changes
from minigpt2.wording import shorten

# Settings that may change: they change no number, or are compared by what they lead to, below.
FREE = {
    *("out", "resume", "resume_anyway"),
    *("save_every", "save_minutes", "keep", "log_every", "tensorboard", "lora_merge"),
    *("data", "test", "columns", "skip_bad"),  # the examples and questions are compared
    *("device", "precision", "micro_batch", "recompute"),  # these round differently
}
READ_AGAIN = ("dpo", "ppo", "grpo")  # their model is the reference, too
OWN = ("model", "lora_rank", "lora_layers", "lora_rslora", "lora_alpha")  # of a run's weights
OUTSIDE = f"one that is not in {RUNS} is continued by --resume and its folder"
LARGEST = 1 << 26  # bytes of summary.json
ANSWERS = dict[str, list[list[str | bool]]]  # by test: each text, and whether it was in reach
NOTES = {  # of a checkpoint, which session writes
    "log_bytes": int,
    "log_checksum": int,
    "overflows": int,
    "seconds": float,
    "summary": dict[str, dict[str, Any] | list[Any]],
    "settings": dict[str, Any],
    "contents": dict[str, str],
    "rounding": dict[str, str],
    "extra": dict[str, Any],
}


class OtherCommand(UserError):
    """A run belongs to another command."""


def with_stored(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of settings; if a run is named to resume, its own, which these replace.

    Raises UserError if that folder holds no run.
    """
    run = values.get("resume")
    if not isinstance(run, Path):
        return dict(values)
    folder = run_folder(run)
    if "out" in values and values["out"] not in (None, folder):
        raise UserError(f"a run continues in its own folder, {folder}: leave out --out")
    return {**stored_settings(folder, kind), **values, "out": folder}


def run_folder(path: Path) -> Path:
    """Return the folder of the run that a path names: this folder, or that of its checkpoint.

    Raises UserError if it is none, or if the checkpoint is not its newest.
    """
    if (path / SETTINGS).is_file():
        return path
    run = path.parent
    if path.is_dir() and (run / SETTINGS).is_file() and path in (saved := checkpoints_of(run)):
        if path != saved[-1]:
            raise UserError(
                f"{path} is not the newest checkpoint of {run}: to go back to it, move "
                f"{saved[-1].name} and all others after it to another folder"
            )
        return run
    if path.is_file():
        raise UserError(
            f"{path} is a file: --resume needs the folder of a run, or comes last: {path} --resume"
        )
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: --resume needs the folder of a run")
    hint = "; to train a model further, use --model" if (path / "config.json").is_file() else ""
    raise UserError(f"{path} holds no run, as it has no {SETTINGS}{hint}")


def stored_settings(folder: Path, kind: type) -> dict[str, Any]:
    """Return the settings of a run, but for those with which it was resumed.

    Raises UserError if they are not those of the command that continues.
    """
    path = folder / SETTINGS
    values = parse_json(read_text(path), path)
    command = values.pop("command", "") if isinstance(values, dict) else ""
    if command and command != command_of(kind):
        text = f"{folder} is a run of {shorten(str(command))}, not of {command_of(kind)}"
        raise OtherCommand(text)
    started_in = str(values.pop(STARTED_IN, "")) if isinstance(values, dict) else ""
    names = {field.name for field in fields(kind)}
    if not isinstance(values, dict) or not set(values) <= names:
        unknown = next(iter(set(values) - names), "") if isinstance(values, dict) else ""
        hint = f": it has {shorten(unknown)!r}" if unknown else ""
        raise UserError(f"{path} holds the settings of another command{hint}")
    values = {name: v for name, v in values.items() if name not in ("resume", "resume_anyway")}
    try:
        values = checked(get_type_hints(kind), values, "the command")
    except UserError as error:
        raise UserError(f"{path}: {shorten(str(error), 300)}") from None
    return {name: from_here(name, value, started_in) for name, value in values.items()}


def command_of(kind: type) -> str:
    """Return the command that a class of settings belongs to."""
    return kind.__name__.removesuffix("Settings").lower()


def changed_settings(settings: Any, stored: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that make another run of it, each with a part of a sentence."""
    changed = {}
    for field in fields(settings):
        name, now = field.name, getattr(settings, field.name)
        before = stored.get(name, default_of(field))
        before = from_here(name, before, str(stored.get(STARTED_IN, "")))
        if name not in FREE and json_text(now) != json_text(before):
            changed[name] = f"{name} is {in_words(now)}, and was {in_words(before)}"
    return changed


def in_words(value: Any) -> str:
    """Return the value of a setting as a user writes it."""
    return "not set" if value is None else shorten(json_text(value), 60)


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    path = folder / SUMMARY
    if not path.is_file():
        return False
    try:
        return "done" in parse_json(read_text(path, LARGEST), path)
    except (UserError, TypeError):
        return False


def find_unfinished(settings: Any, name: str) -> tuple[Path | None, str]:
    """Return the newest unfinished run that has these settings, and a line about it.

    `name` is that of its data set.  Raises UserError if the run that is named is finished;
    NothingLeft if the command line is one that started it.
    """
    if not settings.resume:
        return None, ""
    if settings.out and is_finished(settings.out):
        remedy = f"to train its model further, start a run with --model {settings.out}"
        kind = UserError if isinstance(settings.resume, Path) else NothingLeft
        raise kind(f"the run {settings.out} is finished: {remedy}")
    if isinstance(settings.resume, Path):
        return settings.out, ""
    others = ""
    for folder in [settings.out] if settings.out else runs_of(name):
        if (folder / SETTINGS).is_file() and not is_finished(folder):
            try:
                changed = changed_settings(settings, stored_settings(folder, type(settings)))
            except OtherCommand:
                if settings.out:
                    raise
                continue
            if not changed:
                return folder, ""
            what = "; ".join(changed.values())
            others = others or f"; in {folder} {what}: --resume {folder} continues that one"
    others = others or ("" if settings.out else f"; {OUTSIDE}")
    return None, f"no unfinished run has these settings, so a new one starts{others}"


def runs_of(name: str) -> list[Path]:
    """Return the folders of a data set's runs, the newest first."""
    numbered = re.compile(re.escape(name) + r"-([0-9]{1,9})")
    paths = RUNS.iterdir() if RUNS.is_dir() else ()
    matches = [(match, path) for path in paths if (match := numbered.fullmatch(path.name))]
    return [path for _, path in sorted(((int(m[1]), path) for m, path in matches), reverse=True)]


def open_newest(folder: Path) -> tuple[Checkpoint | None, list[Path]]:
    """Open a run's newest whole checkpoint, if there is one; return the damaged ones, too.

    Raises UserError if all that it has are damaged.
    """
    damaged: list[Path] = []
    faults: list[str] = []
    for path in reversed(checkpoints_of(folder)):
        try:
            return with_notes(open_checkpoint(path)), damaged
        except OtherFormat:  # it is not damaged
            raise
        except UserError as error:
            damaged.append(path)
            faults.append(str(error))
    if damaged:
        remedy = "to start again from the beginning, remove the checkpoints"
        raise UserError(f"{folder} has no whole checkpoint: {faults[0]}; {remedy}")
    return None, damaged


def with_notes(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose notes are those of a run; raises UserError if they are not."""
    try:
        notes = checked_fields(NOTES, checkpoint.notes, "note")
        checked({"before": ANSWERS}, {"before": notes["extra"].get("before", {})}, "a run")
        return checkpoint._replace(notes=notes)
    except UserError as error:
        text = shorten(str(error), 300)
        raise UserError(f"{checkpoint.folder / STATE}: {text}") from None


def difference(
    settings: Any, now: Fingerprint, checkpoint: Checkpoint
) -> tuple[dict[str, str], list[str]]:
    """Return what makes a run another one, by name, and what rounds its numbers differently.

    Raises UserError for another model where none is read: a run continues from its own weights, and
    with its own adapters.  The model below these may have moved: its weights are compared.
    """
    notes = checkpoint.notes
    changed = changed_settings(settings, notes["settings"])
    if getattr(settings, "lora_rank", 0):
        changed.pop("model", None)
    own = () if command_of(type(settings)) in READ_AGAIN else OWN
    for name in filter(changed.__contains__, own):
        raise UserError(
            f"{changed[name]}, but a run continues from its own weights, "
            f"{checkpoint.folder}: without --resume a new run starts from others"
        )
    for name, digest in now.contents.items():
        if notes["contents"].get(name) != digest:
            changed[name] = f"{name} are not those that the run began with"
    return changed, changes(now.rounding, notes["rounding"])
