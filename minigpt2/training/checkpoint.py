"""Checkpoint: the whole state of a run in one folder, which is also a model.

    checkpoint-000120/
        config.json, model.safetensors, tokenizer, template    a model, which every command opens
        optimizer.safetensors    AdamW's m and v (P,); in the middle of an accumulated step also
                                 the gradients (P,), and the results of its micro-batches
        state.json               everything else, and a CRC-32 of each array and each other file

The number is that of the steps taken.  In the middle of a step the name ends with the number of
its micro-batches that are finished: checkpoint-000120-3.

A folder of this name is whole: it is written under a hidden name, fsynced and renamed (durable).
What a disk damages later, the checksums show.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.backend import Array, array_module
from minigpt2.checked import checked
from minigpt2.checksum import crc32
from minigpt2.durable import new_folder
from minigpt2.errors import OtherFormat, UserError, require_above_zero, require_at_least
from minigpt2.inference.model import Model, write_model
from minigpt2.outputs import json_text
from minigpt2.reading import parse_json, read_text
from minigpt2.tensor_writer import checksums_of, write_tensors
from minigpt2.tensors import TENSORS, new_array, open_tensors, read_into, require_tensor
from minigpt2.training.precision import Precision
from minigpt2.training.state import Best, State
from minigpt2.weights import LARGEST_STATE, STATE
from minigpt2.wording import shorten

OPTIMIZER = "optimizer.safetensors"
FORMAT = 1
Checksums = dict[str, Any]  # by file: its CRC-32, or those of its arrays


class Numbers(NamedTuple):
    """What a state holds besides its arrays."""

    step: int
    epoch: int
    position: int
    seed: int
    precision: Precision
    loss_scale: float
    finite_steps: int  # since the loss scale last changed
    validated: int
    best_loss: float | None
    best_step: int | None
    best_since: int | None  # as in state.Best
    partial: list[bool]  # for each finished micro-batch of the step, whether it has a result
    holding: list[str]  # tensors that have a gradient of the step


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, whose checksums were right."""

    folder: Path
    numbers: Numbers
    notes: dict[str, Any]  # of the run


class Snapshot(NamedTuple):
    """A state between two updates: its numbers, and its arrays where they are.

    The arrays do not change before the next update; those of a step that has begun (`partial`)
    not before its next micro-batch.
    """

    model: Model
    numbers: Numbers
    arrays: dict[str, Array]  # of the optimizer's file


def checkpoint_name(step: int, micro_batches: int = 0) -> str:
    """Return the name of a checkpoint's folder.

    >>> checkpoint_name(120), checkpoint_name(120, 3)
    ('checkpoint-000120', 'checkpoint-000120-3')
    """
    return f"checkpoint-{step:06d}" + (f"-{micro_batches}" if micro_batches else "")


def snapshot_of(state: State, model: Model) -> Snapshot:
    """Return the state of a run that tunes a model; nothing is copied."""
    arrays = {"m": state.m, "v": state.v}
    if state.partial:
        arrays["gradients"] = state.gradients.flat
        results = {f"result.{k}": r for k, r in enumerate(state.partial) if r is not None}
        arrays |= results
    numbers = Numbers(
        step=state.step,
        epoch=state.epoch,
        position=state.position,
        seed=state.seed,
        precision=state.precision,
        loss_scale=state.scale.value,
        finite_steps=state.scale.finite_steps,
        validated=state.validated,
        best_loss=state.best.loss if state.best else None,
        best_step=state.best.step if state.best else None,
        best_since=state.best.since if state.best else None,
        partial=[result is not None for result in state.partial],
        holding=sorted(state.gradients.holding) if state.partial else [],
    )
    return Snapshot(model._replace(parameters=state.parameters), numbers, arrays)


def write_checkpoint(
    path: Path,
    snapshot: Snapshot,
    notes: dict[str, Any],
    *,
    handed_over: Callable[[], None] = lambda: None,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Write a new checkpoint; `notes` are what the run needs besides, as JSON holds it.

    `handed_over` is called when the arrays are no longer read: the operating system has their
    numbers.  `before` is called before the checkpoint gets its name.  Raises UserError if it
    cannot be written.
    """
    with new_folder(path) as folder:
        files: Checksums = {
            TENSORS: write_model(folder, snapshot.model),
            OPTIMIZER: write_tensors(folder / OPTIMIZER, snapshot.arrays),
        }
        handed_over()
        others = [file for file in folder.iterdir() if file.name not in files]
        files |= {file.name: crc32(file.read_bytes()) for file in others}
        content = {
            "format": FORMAT,
            "files": files,
            "numbers": snapshot.numbers._asdict(),
            "notes": notes,
        }
        content["checksum"] = checksum_of(content)
        (folder / STATE).write_text(json_text(content, indent=1, ascii_only=True))
        before()


def checksum_of(content: dict[str, Any]) -> int:
    """Return the CRC-32 of what state.json holds, apart from its checksum."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return crc32(json_text(rest, ascii_only=True).encode())


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's numbers, and check all of its files.

    Raises UserError if something is missing or not as it was written, and OtherFormat for a
    checkpoint of another version.
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
    require_whole_files(folder, content["files"])
    if not isinstance(content["notes"], dict):
        raise UserError(f"{path} is not the state of a checkpoint")
    try:
        return Checkpoint(folder, numbers_of(content["numbers"]), content["notes"])
    except UserError as error:
        raise UserError(f"{path}: {shorten(str(error), 300)}") from None


def numbers_of(values: Any) -> Numbers:
    """Return the numbers that state.json holds.  Raises UserError if no state has them."""
    numbers = Numbers(**checked_fields(Numbers.__annotations__, values, "number"))
    require_at_least(0, numbers, "step", "epoch", "position", "seed", "finite_steps")
    require_at_least(-1, numbers, "validated")
    require_above_zero(numbers, "loss_scale")
    best = numbers.best_loss, numbers.best_step, numbers.best_since
    if best != (None, None, None) and (None in best or not isfinite(best[0] or 0)):
        raise UserError("best_loss, best_step and best_since are those of no validation")
    if numbers.holding and not numbers.partial:
        raise UserError("holding has names, and partial is empty")
    return numbers


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
    if not isinstance(files, dict) or not {TENSORS, OPTIMIZER} <= set(files):
        raise UserError(f"{folder / STATE} lacks the checksums")
    if missing := sorted(set(files) - names):
        raise UserError(f"there is no file {folder / shorten(missing[0])}")
    for name, expected in files.items():
        path = folder / name  # one of the names in the folder
        if not path.is_file():
            raise UserError(f"{path} is not a file")
        is_tensors = name in (TENSORS, OPTIMIZER)
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
    arrays = {"m": state.m, "v": state.v}
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
        read_into(name, stored[name], array, finite=name in ("m", "v"))
    state.step, state.epoch, state.position = numbers.step, numbers.epoch, numbers.position
    state.validated = numbers.validated
    best = numbers.best_loss, numbers.best_step, numbers.best_since
    state.best = None if None in best else Best(*best)  # type: ignore[arg-type]
    if state.precision == numbers.precision:
        state.scale.value, state.scale.finite_steps = numbers.loss_scale, numbers.finite_steps
