"""Disk space: what the checkpoints of a run take, and whether their disk has it.

A checkpoint holds the weights and AdamW's two moments; one that is written within an accumulated
step holds the gradients so far, too.  The newest few stay, and the one with the best validation
loss; while a new one is written, no old one is gone.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from minigpt2.errors import UserError
from minigpt2.model.adapters import LoRA
from minigpt2.model.config import GPT2Config
from minigpt2.outputs import exists
from minigpt2.wording import size

WORD = 32  # bytes of a token in the tokenizer's files, on average


class DiskNeed(NamedTuple):
    """The bytes of a run's checkpoints."""

    each: int  # the largest checkpoint
    best: int  # the best one, where there is validation, else 0
    keep: int  # newest checkpoints that stay; 0 for all
    merged: int = 0  # the model with its adapters, at the end

    @property
    def at_once(self) -> int:
        """The bytes of all checkpoints that are there at once; of two if all of them stay."""
        return (self.keep + 1 if self.keep else 2) * self.each + self.best + self.merged

    def __str__(self) -> str:
        if not self.keep:
            return f"each checkpoint takes up to {size(self.each)}, and all of them stay"
        text = f"checkpoints take up to {size(self.at_once - self.merged)}, {size(self.each)} each"
        return f"{text}, and the merged model {size(self.merged)}" if self.merged else text


def disk_need(
    config: GPT2Config,
    *,
    keep: int,
    validates: bool = False,
    accumulates: bool = False,
    models: int = 1,
    lora: LoRA | None = None,
    merges: bool = True,
) -> DiskNeed:
    """Return the bytes of a run's checkpoints.

    `validates` says whether there is a best one, `accumulates` whether a step has several
    micro-batches, `models` how many whole models the run trains.  With `lora` only adapters are in
    a checkpoint, and at the end the merged model is written, if the run `merges`.
    """
    p = lora.n_parameters(config) if lora else models * config.n_parameters
    merged = 4 * config.n_parameters if lora and merges else 0
    whole = 12 * p + WORD * config.vocab_size
    each = whole + (4 * p if accumulates else 0)
    return DiskNeed(each, whole if validates else 0, keep, merged)


def require_disk(need: DiskNeed, folder: Path, held: int = 0) -> str:
    """Return a line that says what the checkpoints take in a run's folder, and what is free there.

    `held` bytes of them are there already.  Raises UserError if less is free.
    """
    free = free_bytes(folder)
    needed, more = need.at_once, need.at_once - held
    if free is not None and more > free:
        least = need._replace(keep=1).at_once
        fits = least < need.at_once and max(0, least - held) <= free
        smaller = f"use --keep 1, which takes {size(least)}, or " if fits else ""
        raise UserError(
            f"the checkpoints of this run take up to {size(needed)}, but {folder} has {size(free)} "
            f"free: {smaller}choose an --out on another disk"
        )
    room = "" if free is None else f"; {size(free)} are free"
    return f"{need}, in {folder}{room}"


def bytes_of(folders: Iterable[Path]) -> int:
    """Return the bytes of the files in folders."""
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir())


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that this user may still write into a folder, or where it will be made.

    None if its file system does not tell.
    """
    place = folder.absolute()
    while not exists(place):
        place = place.parent
    try:
        total, _, free = shutil.disk_usage(place)
    except OSError:
        return None
    return free if total else None
