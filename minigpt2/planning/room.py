"""Room: whether the memory is large enough for a run, said before its first step.

Linux grants more memory than there is.  A run that does not fit starts all the same, and ends in
its largest micro-batch, perhaps hours later, killed without a word.  So that one is counted first.
What is counted is right within a tenth: a run is refused if even nine tenths are too much.
"""

from collections.abc import Callable, Sequence
from functools import partial
from heapq import nlargest
from types import ModuleType
from typing import NamedTuple

import numpy as np
import psutil

from minigpt2.alignment.pairs import Pair
from minigpt2.data.batches import EpochBatches, Epochs
from minigpt2.errors import UserError
from minigpt2.model.adapters import LoRA
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.planning.alignment_memory import BEYOND, REFERENCE, Needs, aligned
from minigpt2.planning.alignment_profile import size_of_pairs
from minigpt2.planning.available import Available, memory_of_device
from minigpt2.planning.batch_profile import LAID_OUT, RunShape, choices, profile, size_of
from minigpt2.planning.device_memory import memory_on_device
from minigpt2.planning.memory_and_flops import (
    MemoryOptions,
    MicroBatch,
    PartsOf,
    memory,
    peak,
    state_bytes,
)
from minigpt2.training.precision import Precision
from minigpt2.wording import size

NARROW_ADAPTERS = LoRA(rank=8, alpha=16.0)  # that a run could tune, and leave its model as it is
CERTAIN = 0.9  # of what is counted, a step takes this much at least


class Room(NamedTuple):
    """What is there for a run, and what it has taken already."""

    available: Available
    held: int = 0  # bytes

    def require(self, needed: int, what: str, remedy: Callable[[int], str]) -> str | None:
        """Return a warning if `what` needs more bytes than are free, None if not.

        `remedy(bytes)` says what takes no more than that.  Raises UserError if it needs more than
        there is.
        """
        place, whole, free = self.available
        if CERTAIN * needed > whole:
            text = f"{what} would take {size(needed)}, but {place} has {size(whole)}"
            raise UserError(f"{text}: {remedy(whole)}")
        if needed > free + self.held:
            text = f"{what} takes {size(needed)}, but {place} has {size(free + self.held)} free"
            return f"{text} for it: {remedy(free + self.held)}"
        return None


def require_state(config: GPT2Config, library: ModuleType, lora: LoRA | None = None) -> None:
    """Raise UserError if what training holds in any case is more than a device has."""
    available = memory_of_device(library)
    if available:
        what, needed = "the weights, gradients and moments", state_bytes(config, lora)
        Room(available, held=needed).require(needed, what, smaller_model)


class Counted(NamedTuple):
    """The memory of a run that has its state: where it is, and what counts that of a step."""

    room: Room
    parts_of: PartsOf


def count_room(
    config: GPT2Config, library: ModuleType, precision: Precision, lora: LoRA | None = None
) -> Counted | None:
    """Return the room of a run whose state is made; None for a device without a count.

    `library` is the array library of the run's device; there is no count for an emulated one.
    """
    available = memory_of_device(library)
    if not available:
        return None
    state = state_bytes(config, lora)
    if library is np:
        held = max(state, psutil.Process().memory_info().rss)
        return Counted(Room(available, held), partial(memory, program=held - state))
    parts_of: PartsOf = partial(memory_on_device, precision=precision)
    held = peak(parts_of(config, MicroBatch(0, 0), MemoryOptions(lora=lora)))
    return Counted(Room(available, held), parts_of)


def check_step(
    config: GPT2Config,
    library: ModuleType,
    precision: Precision,
    batches: EpochBatches,
    shape: RunShape,
    steps: int,
) -> str | None:
    """Return a warning if a step of a run, which has its state, takes more than is free.

    Raises UserError if it takes more than there is.
    """
    counted = count_room(config, library, precision, shape.lora)
    if not counted:
        return None
    room, parts_of = counted

    def needed(batch: MicroBatch) -> int:
        return peak(parts_of(config, batch, shape.memory_options))

    def remedy(most: int) -> str:
        return proposal(config, shape, batches, parts_of, most)

    if needed(bound_of(batches)) - room.held <= room.available.free:
        return None
    return room.require(needed(largest_of(batches, steps)), "a step", remedy)


def check_pairs(
    config: GPT2Config,
    library: ModuleType,
    precision: Precision,
    batches: Epochs[Pair],
    options: MemoryOptions,
) -> str | None:
    """Return a warning if a step on pairs takes more than is free, as `check_step` does.

    Raises UserError if it takes more than there is.
    """
    counted = count_room(config, library, precision)
    if not counted:
        return None
    room, parts_of = counted

    def needed(micro_batch: int, recompute: bool) -> int:
        longest = nlargest(micro_batch, batches.examples, key=lambda pair: pair.rows)
        batch = size_of_pairs(longest)
        return peak(parts_of(config, batch, options._replace(recompute=recompute)))

    def remedy(most: int) -> str:
        sizes = [batches.micro_batch >> k for k in range(batches.micro_batch.bit_length())]
        tries = [(size, recompute) for recompute in (False, True) for size in sizes]
        for choice in tries:
            if needed(*choice) <= most:
                break
        micro_batch, recompute = choice
        text = f"--micro-batch {micro_batch} --recompute {str(recompute).lower()}"
        least = "" if needed(*choice) <= most else "even "
        return f"{least}{text} takes {size(needed(*choice))}"

    return room.require(needed(batches.micro_batch, options.recompute), "a step", remedy)


def check_answers(
    config: GPT2Config,
    library: ModuleType,
    precision: Precision,
    sizes: Sequence[MicroBatch],
    options: MemoryOptions,
    rollout: Needs,
) -> str | None:
    """Return a warning if a step on drawn answers, or drawing them, takes more than is free.

    `sizes` are those of the run's micro-batch, and of one of 1, at most.  The models besides the
    policy are in memory already.  Raises UserError if it takes more than there is.
    """
    counted = count_room(config, library, precision)
    if not counted:
        return None
    room, parts_of = counted
    needed = [peak(aligned(config, batch, options, parts_of, rollout)) for batch in sizes]

    def remedy(most: int) -> str:
        return f"use a smaller --micro-batch; with 1 it takes {size(needed[-1])}"

    return room.require(needed[0], "a step", remedy)


def bound_of(batches: EpochBatches) -> MicroBatch:
    """Return the size of a micro-batch of the longest examples, none of which share a beginning."""
    rows = sum(nlargest(batches.micro_batch, (len(e.ids) for e in batches.examples)))
    return MicroBatch(rows, rows)


def largest_of(batches: EpochBatches, steps: int) -> MicroBatch:
    """Return the most rows and the most triples of a micro-batch of the first epochs.

    Those whose examples are the longest are laid out.
    """
    lengths = [len(example.ids) for example in batches.examples]
    longest = batches.longest(lengths, steps, LAID_OUT)
    sizes = [size_of(batches.lay_out(part)) for part in longest]
    return MicroBatch(max(s.rows for s in sizes), max(s.supervised for s in sizes))


def proposal(
    config: GPT2Config, shape: RunShape, batches: EpochBatches, parts_of: PartsOf, most: int
) -> str:
    """Return the options of a run that takes at most so many bytes, or the least that one takes."""
    longest = nlargest(shape.batch_size, batches.examples, key=lambda e: len(e.ids))
    count = partial(profile, examples=longest)
    for choice in choices(config, shape, count, lambda shape: parts_of):
        if choice.bytes <= most:
            break
    else:
        if state_bytes(config, shape.lora) > most:
            return nothing_fits(config, most, parts_of, shape.lora, may_adapt=True)
    smaller = choice.shape
    context = f"--context {smaller.context} " if smaller.context < shape.context else ""
    options = f"--micro-batch {smaller.micro_batch} --recompute {str(smaller.recompute).lower()}"
    least = "" if choice.bytes <= most else "even "
    return f"{least}{context}{options} takes {size(choice.bytes)}"


def nothing_fits(
    config: GPT2Config,
    most: int,
    parts_of: PartsOf,
    lora: LoRA | None = None,
    *,
    may_adapt: bool = False,
) -> str:
    """Return the memory that a model needs in any case, and what fits; a run `may_adapt` it."""
    parts = parts_of(config, MicroBatch(0, 0), MemoryOptions(lora=lora))
    least = peak(parts) - parts.get(BEYOND, 0)
    models = "weights, gradients, moments and models that are only read"
    held = models if REFERENCE in parts else "weights, gradients and moments"
    text = f"nothing fits: {held} alone take {size(least)}"
    if least < most and parts.get(BEYOND):
        return f"{text}, and drawing or scoring the answers {size(parts[BEYOND])}; draw fewer"
    text += f"; {smaller_model(most, least - state_bytes(config, lora), lora)}"
    if may_adapt and not lora and state_bytes(config, NARROW_ADAPTERS) < most:
        adapted = peak(parts_of(config, MicroBatch(0, 0), MemoryOptions(lora=NARROW_ADAPTERS)))
        text += f"; with --lora-rank {NARROW_ADAPTERS.rank} they take {size(adapted)}"
    return text


def smaller_model(most: int, besides: int = 0, lora: LoRA | None = None) -> str:
    """Return which official model fits into so many bytes, of which some hold other things."""
    fitting = [n for n, other in OFFICIAL.items() if besides + state_bytes(other, lora) < most]
    return f"{fitting[-1]} would" if fitting else "take a smaller model"
