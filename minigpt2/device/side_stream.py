"""Side stream: launches that nothing waits for soon, next to the others and not between them.

Why
    A stream runs one launch after the other, and at the end of each most multiprocessors wait for
    the last ones.  A product of 8,192 x 768 numbers in tiles of 128 x 256 has 192 tiles: an H200
    computes 132 of them at once, and then the other 60.  But the gradients of weights are needed
    late, by AdamW.  So their products go into a second stream, and fill what the others leave.

What must hold
    The launches and their numbers stay the same, and so do the bits.  What is in the side stream
    must not write what the main one reads meanwhile.  It uses arrays that the rest of the step has
    done with, whose memory would be given to the next array: they are held until the main stream
    has waited, at the latest when a step's capture ends.

Only a step that is captured (device/graph) has a side stream.  Launched one by one, kernels wait
for the host, and there is nothing to fill.

What it brings, on an H200, in ms a step of GPT-2 124M
    float32, 8 x 1,024 tokens                             154.1, with it 149.8
    bfloat16, 32 questions (about 960 rows)               3.88, with it 3.65
    bfloat16, 8 x 1,024 tokens                            16.4, with it 16.5 to 17.4
    In the last one the card is at the power that it may draw (700 W): it lowers its clocks from
    1,980 MHz to 1,500 to 1,850, and what is done at the same time is not done sooner.  So in a step
    of many rows in 16 bits only small launches go aside: those that add up partial sums
    (device/fused_columns), six a block, whose few threads take no power worth mentioning, and 2 to
    3 microseconds each.  What that brings is predicted, not measured: 0.2 ms of this step, and 0.5
    of one of GPT-2 Large on 4 x 1,024 tokens.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Literal

from minigpt2.backend import Array

MANY_ROWS = 2048  # of a step in 16 bits; between 960 and 4,096 nothing was measured
AHEAD = 4  # groups of launches that may be under way in the side stream; 0: there is none

Aside = Literal["all", "small"]  # which launches go into the side stream


def pays(rows: int, bytes_of_a_number: int) -> bool:
    """Return whether a step of so many rows is faster with all that may go into a side stream."""
    return bytes_of_a_number > 2 or rows < MANY_ROWS


def what_goes_aside(rows: int, bytes_of_a_number: int) -> Aside:
    """Return which launches of a step of so many rows go into the side stream."""
    return "all" if pays(rows, bytes_of_a_number) else "small"


class Groups:
    """What is in the side stream while a step is captured: groups of launches, oldest first."""

    def __init__(self, aside: Aside) -> None:
        self.aside = aside
        self.under_way: deque[tuple[Any, tuple[Array, ...]]] = deque()  # end, arrays in use
        self.begun = False  # whether the launches of a group are coming


_groups: dict[ModuleType, Groups] = {}  # of each library that captures


@cache
def side_stream(library: ModuleType) -> Any:
    """Return the side stream."""
    return library.cuda.Stream(non_blocking=True)


@contextmanager
def side_stream_open(library: ModuleType, aside: Aside) -> Iterator[None]:
    """Let `on_side_stream` use it within the context; at its end the main stream has waited.

    The context ends without waiting where an error ends it.
    """
    _groups[library] = Groups(aside)
    try:
        yield
        wait_for_side_stream(library)
    finally:
        del _groups[library]


@contextmanager
def on_side_stream(library: ModuleType, *used: Array, small: bool = False) -> Iterator[None]:
    """Launch what is in the context next to all that is launched after it.

    It may use `used`, and read what was launched before it has written.  A context in another one
    is a part of it.  `small` launches take little of the GPU.
    """
    groups = _groups.get(library)
    if groups is None or groups.begun or not AHEAD or not (small or groups.aside == "all"):
        yield
        return
    wait_for_side_stream(library, AHEAD - 1)
    main, side = library.cuda.get_current_stream(), side_stream(library)
    side.wait_event(main.record())
    side.use()
    groups.begun = True
    try:
        yield
    finally:
        groups.begun = False
        main.use()  # `with side` would not return to a stream that came into use by `use`
    groups.under_way.append((side.record(), used))


def wait_for_side_stream(library: ModuleType, but: int = 0) -> None:
    """Let the main stream wait for all groups `but` so many, the oldest first.

    The arrays that they have used are given up.
    """
    groups = _groups.get(library)
    while groups and len(groups.under_way) > but:
        event, _ = groups.under_way.popleft()
        library.cuda.get_current_stream().wait_event(event)
