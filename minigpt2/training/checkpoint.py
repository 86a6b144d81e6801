"""Checkpoint: the whole state of a run in one folder, which is also a model.

    checkpoint-000120/
        config.json, model.safetensors, tokenizer, template    a model, which every command opens;
                                 of a run of adapters, only these (adapter_weights)
        optimizer.safetensors    AdamW's m and v (P,), and a value function; in the middle of a
                                 step also the gradients (P,) and the micro-batches' results
        state.json               everything else, and a CRC-32 of each array and each other file

The number is that of the steps taken.  In the middle of a step the name ends with the number of
its micro-batches that are finished: checkpoint-000120-3.

A folder of this name is whole: it is written under a hidden name, fsynced and renamed (durable).
What a disk damages later, the checksums show.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minigpt2.adapter_weights import tensors_file
from minigpt2.backend import Array
from minigpt2.checksum import crc32
from minigpt2.durable import new_folder
from minigpt2.inference.model import Model, RewardModel, write_model
from minigpt2.model.heads import value_tensors
from minigpt2.model_folders import STATE
from minigpt2.outputs import json_text
from minigpt2.tensor_writer import write_tensors
from minigpt2.training.precision import Precision
from minigpt2.training.state import State

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
    best_loss: float | None  # these three are state.Best, or None
    best_step: int | None
    best_since: int | None
    partial: list[bool]  # for each finished micro-batch of the step, whether it has a result
    holding: list[str]  # tensors that have a gradient of the step


class Snapshot(NamedTuple):
    """A state between two updates: its numbers, and its arrays where they are.

    The arrays do not change before the next update; those of a step that has begun (`partial`)
    not before its next micro-batch.
    """

    model: Model | RewardModel
    numbers: Numbers
    arrays: dict[str, Array]  # of the optimizer's file


def checkpoint_name(step: int, micro_batches: int = 0) -> str:
    """Return the name of a checkpoint's folder.

    >>> checkpoint_name(120), checkpoint_name(120, 3)
    ('checkpoint-000120', 'checkpoint-000120-3')
    """
    return f"checkpoint-{step:06d}" + (f"-{micro_batches}" if micro_batches else "")


def snapshot_of(state: State, model: Model | RewardModel) -> Snapshot:
    """Return the state of a run that tunes a model; nothing is copied."""
    arrays = {"m": state.m, "v": state.v, **value_tensors(state.parameters)}
    if state.partial:
        arrays["gradients"] = state.gradients.flat
        arrays |= {f"result.{k}": r for k, r in enumerate(state.partial) if r is not None}
    best = state.best
    numbers = Numbers(
        step=state.step,
        epoch=state.epoch,
        position=state.position,
        seed=state.seed,
        precision=state.precision,
        loss_scale=state.scale.value,
        finite_steps=state.scale.finite_steps,
        validated=state.validated,
        best_loss=best and best.loss,
        best_step=best and best.step,
        best_since=best and best.since,
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
            tensors_file(snapshot.model.parameters): write_model(folder, snapshot.model),
            OPTIMIZER: write_tensors(folder / OPTIMIZER, snapshot.arrays),
        }
        handed_over()
        others = [file for file in folder.iterdir() if file.name not in files]
        files |= {file.name: crc32(file.read_bytes()) for file in others}
        (folder / STATE).write_text(state_text(files, snapshot.numbers, notes))
        before()


def state_text(files: Checksums, numbers: Numbers, notes: dict[str, Any]) -> str:
    """Return what state.json holds."""
    content = {"format": FORMAT, "files": files, "numbers": numbers._asdict(), "notes": notes}
    content["checksum"] = checksum_of(content)
    return json_text(content, indent=1, ascii_only=True)


def checksum_of(content: dict[str, Any]) -> int:
    """Return the CRC-32 of what state.json holds, apart from its checksum."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return crc32(json_text(rest, ascii_only=True).encode())
