"""How well the kernels use memory: sectors of global memory, passes through the shared banks.

An access in the source that costs more than BOUNDS times the ideal must be marked: its line ends
with [sectors] or [banks], and the file's first comment explains why.
"""

import re

import numpy as np
import pytest

from minigpt2.device.emulator import Machine
from minigpt2.shipped import shipped
from tests.kernels.decoding_jobs import choose, decode, fill, look_up_row, map_row
from tests.kernels.jobs import (
    add_rows,
    attend,
    embed,
    gate,
    learn,
    normalise,
    optimise,
    sum_columns,
    take,
)
from tests.kernels.support import needs_compiler, run_on
from tests.ops.cases import ends

pytestmark = needs_compiler
BOUNDS = {"global": 1.3, "shared": 1.1}  # times the ideal
MARKS = {"global": "[sectors]", "shared": "[banks]"}
TREE = ends((37, *[(n,) for n in (9, 30, 2, 17)]), (61, (20,), (33,)))
SIZES = {
    **{f"attention, heads of {d}": attend(TREE, 2, d) for d in (32, 64, 80, 128)},
    **{
        f"attention, {blocks}, heads of {d}": attend(TREE, 2, d, blocks=blocks)
        for blocks in ("large", "stored")
        for d in (32, 64, 80, 128)
    },
    "layer_norm": normalise(40, 1280, False),
    "column_sums": sum_columns(300, 1280),
    "gelu": gate(6, 5120, True),
    "embedding": embed(30, 1280, 5),
    "embedding, rows": take(9, 1280, 30),
    "sum_rows": add_rows(30, 1280, 9),
    "cross_entropy": learn(3, 50257),
    "cross_entropy in aligned rows": learn(3, 50256),
    "adamw": optimise(20000, 15000, 1.0),
    **{
        f"decode, heads of {d}": decode([280, 187, 170], 160, 130, 2, d, 96)
        for d in (32, 64, 80, 128)
    },
    "prompts": fill([30, 20], 10, 40, 12, 64),
    "linear_row": map_row(1280, 64, True, True),
    "logits_row": look_up_row(1280, 64, 64),
    "sample": choose(2, 50257, 50304, 1.0),
}
IN_FLOAT = ("adamw",)


def expensive():
    """Every access that costs too much, and its places in the source.

    Those are its own line, and for an inlined function the kernel's.
    """
    for name, job in SIZES.items():
        for dtype in (None,) if name in IN_FLOAT else (None, np.float16):
            on = Machine(traffic=True)
            run_on(on, job, dtype)
            for access in on.traffic:
                if access.actual > BOUNDS[access.space] * access.ideal:
                    yield access, set(re.findall(r"[\w.]+:\d+", access.line))


def marked(mark):
    """The lines of the kernels that bear a mark, as file:line, if their file says why."""
    for path in shipped("kernels").glob("*.cu*"):
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if mark in line and not line.startswith("//"):
                assert f"\n// {mark} " in text.split("#include")[0]
                yield f"{path.name}:{number}"


@pytest.mark.long
def test_an_access_costs_what_its_bytes_cost_or_its_file_says_why_not():
    accesses = list(expensive())
    for space, mark in MARKS.items():
        marks = set(marked(mark))
        over = [(access, places) for access, places in accesses if access.space == space]
        unmarked = [access for access, places in over if not places & marks]
        ratios = [f"{a.kernel} {a.line} {a.actual / a.ideal:.2f}" for a in unmarked]
        assert not ratios, f"{space}: {ratios}"
        assert marks <= set().union(*(places for _, places in over))  # no mark without need
