"""Checkpoint reader: a checkpoint is checked, all of it, and becomes the state of a run again.

Nothing is taken from a file before its checksum was compared.  A file that is missing, cut or
damaged is named, so that the run can continue from the checkpoint before.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.backend import array_module
from minigpt2.checked import checked
from minigpt2.checksum import crc32
from minigpt2.errors import OtherFormat, UserError, require_above_zero, require_at_least
from minigpt2.model.heads import value_tensors
from minigpt2.model_folders import STATE
from minigpt2.reading import parse_json, read_text
from minigpt2.tensor_writer import checksums_of
from minigpt2.tensors import (
    ADAPTER_TENSORS,
    TENSORS,
    new_array,
    open_tensors,
    read_into,
    require_tensor,
)
from minigpt2.training.checkpoint import FORMAT, OPTIMIZER, Numbers, checksum_of
from minigpt2.training.state import Best, State
from minigpt2.weights import LARGEST_STATE
from minigpt2.wording import shorten

MODELS = {TENSORS, ADAPTER_TENSORS}  # a checkpoint has one of these files
OF_A_STEP = ("gradients", "result.")  # begin the names of arrays that may overflow


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, whose checksums were right."""

    folder: Path
    numbers: Numbers
    notes: dict[str, Any]  # of the run


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's numbers, and check all of its files.

    Raises UserError if something is missing or not as it was written, and OtherFormat for a
    checkpoint of another version.
    """
    path, content = folder / STATE, read_state(folder)
    require_whole_files(folder, content["files"])
    if not isinstance(content["notes"], dict):
        raise UserError(f"{path} is not the state of a checkpoint")
    try:
        return Checkpoint(folder, numbers_of(content["numbers"]), content["notes"])
    except UserError as error:
        raise UserError(f"{path}: {shorten(str(error), 300)}") from None


def read_state(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint's state.json holds, as it was written.

    Raises UserError if it was not, and OtherFormat if another version has written it.
    """
    path = folder / STATE
    content = parse_json(read_text(path, LARGEST_STATE), path)
    fields = {"format", "files", "numbers", "notes", "checksum"}
    if not isinstance(content, dict) or not fields <= set(content):
        raise UserError(f"{path} is not the state of a checkpoint")
    try:
        is_written = content["checksum"] == checksum_of(content)
    except RecursionError:
        is_written = False  # nested deeper than anything that was written
    if not is_written:
        raise UserError(f"{path} is not what was written: its checksum differs")
    if content["format"] != FORMAT:
        text = f"{path} has format {content['format']!r:.60}, and this program knows {FORMAT}"
        raise OtherFormat(f"{text}: use the version of minigpt2 that wrote it, or a newer one")
    return content


def numbers_of(values: Any) -> Numbers:
    """Return the numbers that state.json holds.  Raises UserError if no state has them."""
    numbers = Numbers(**checked_fields(Numbers.__annotations__, values, "number"))
    require_at_least(0, numbers, "step", "epoch", "position", "seed", "finite_steps")
    require_at_least(-1, numbers, "validated")
    require_above_zero(numbers, "loss_scale")
    best_of(numbers)
    if numbers.holding and not numbers.partial:
        raise UserError("holding has names, and partial is empty")
    return numbers


def best_of(numbers: Numbers) -> Best | None:
    """Return the best validation.  Raises UserError if its numbers are those of none."""
    loss, step, since = numbers.best_loss, numbers.best_step, numbers.best_since
    if loss is None and step is None and since is None:
        return None
    if loss is None or step is None or since is None or not isfinite(loss):
        raise UserError("best_loss, best_step and best_since are those of no validation")
    return Best(loss, step, since)


def checked_fields(types: Mapping[str, Any], values: Any, noun: str) -> dict[str, Any]:
    """Return all values; raises UserError if one is missing or wrong: a `noun`, in words."""
    if not isinstance(values, dict):
        raise UserError("it is not the state of a checkpoint")
    fields = checked(types, values, "a checkpoint")
    if missing := sorted(set(types) - set(fields)):
        raise UserError(f"it has no {noun} {missing[0]}")
    return fields


def require_whole_files(folder: Path, files: Any) -> None:
    """Raise UserError unless a folder has these files, each with its checksums."""
    names = {path.name for path in folder.iterdir()} - {STATE}
    if not isinstance(files, dict) or OPTIMIZER not in files or MODELS.isdisjoint(files):
        raise UserError(f"{folder / STATE} lacks the checksums")
    if missing := sorted(set(files) - names):
        raise UserError(f"there is no file {folder / shorten(missing[0])}")
    for name, expected in files.items():
        path = folder / name  # one of the names in the folder
        if not path.is_file():
            raise UserError(f"{path} is not a file")
        is_tensors = name == OPTIMIZER or name in MODELS
        checksums = checksums_of(path) if is_tensors else crc32(path.read_bytes())
        if checksums != expected:
            raise UserError(f"{path} is not what was written: its checksum differs")


def restore(checkpoint: Checkpoint, state: State, *, partial: bool = True) -> None:
    """Give a state, which has the checkpoint's model, everything else that the checkpoint holds.

    The loss scale of another precision is left out, and a step that has begun if not `partial`:
    then it is taken from its beginning.  Raises UserError if the arrays are not the model's.
    """
    numbers, path = checkpoint.numbers, checkpoint.folder / OPTIMIZER
    stored = open_tensors(path)
    arrays = {**value_tensors(state.parameters), "m": state.m, "v": state.v}
    if partial and numbers.partial:
        arrays["gradients"] = state.gradients.flat
        xp = array_module(state.m)
        for k, has_result in enumerate(numbers.partial):
            name = f"result.{k}"
            if has_result:
                require_tensor(name, stored, path)
                arrays[name] = new_array(name, stored[name], xp)
            state.partial.append(arrays.get(name))
        state.gradients.clear()
        state.gradients.hold(numbers.holding)
    for name, array in arrays.items():
        require_tensor(name, stored, path)
        read_into(name, stored[name], array, finite=not name.startswith(OF_A_STEP))
    state.round_again()
    state.step, state.epoch, state.position = numbers.step, numbers.epoch, numbers.position
    state.validated = numbers.validated
    state.best = best_of(numbers)
    if state.precision == numbers.precision:
        state.scale.value, state.scale.finite_steps = numbers.loss_scale, numbers.finite_steps
