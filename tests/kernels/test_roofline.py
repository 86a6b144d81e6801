"""Predicted times: the bytes in the formulas are those that the emulator counts."""

from collections import Counter

import numpy as np
import pytest

from minigpt2.device.emulator import Machine
from minigpt2.device.kernel_specs import KERNELS
from tests.kernels.gpus import GPUS
from tests.kernels.jobs import attend, embed, gate, learn, normalise, optimise, sum_columns
from tests.kernels.roofline import (
    PAGE,
    WORK,
    Load,
    Work,
    page_with,
    pairs_of_keys,
    pairs_of_tiles,
    seconds,
    table,
)
from tests.kernels.support import needs_compiler, run_on
from tests.ops.cases import ends

END = ends((128, (30,), (61,)), (37,))
SIZES = {
    "attention": (attend(END, 2, 64, blocks="large"), Load(END, 0, 2, 64, 0, 0, 0, 0)),
    "layer_norm": (normalise(300, 1280, False), Load(np.arange(300), 0, 20, 64, 0, 0, 0, 0)),
    "column_sums": (sum_columns(300, 3840), Load(np.arange(300), 0, 20, 64, 0, 0, 0, 0)),
    "gelu": (gate(32, 5120, True), Load(np.arange(32), 0, 0, 0, 5120, 0, 0, 0)),
    "embedding": (embed(30, 1280, 5), Load(np.arange(30), 6, 20, 64, 0, 0, 0, 0)),
    "cross_entropy": (learn(3, 50256), Load(np.arange(3), 0, 0, 0, 0, 3, 50256, 0)),
    "squares": (optimise(200000, 9, 1.0), Load(np.arange(1), 0, 0, 0, 0, 0, 0, 200000)),
    "adamw": (optimise(40000, 9, 1.0), Load(np.arange(1), 0, 0, 0, 0, 0, 0, 40000 * 32 / 28)),
}
IN_FLOAT = ("embedding", "adamw", "squares")  # jobs whose gradients are
# adamw: the job's copy is in float, 4 bytes a parameter more than in the table.
# embedding: once for 5 tokens, once for 7 positions.  cross_entropy: once without the gradient.
LAUNCHES = {
    "squares": 3,
    "adamw": 3,
    "embedding_backward": 2,
    "cross_entropy": 4 / 3,
    "cross_entropy_staged": 3 / 2,
}


def bytes_counted(job, dtype):
    """The bytes that each function requests, in whole sectors."""
    on, counted = Machine(traffic=True), Counter()
    run_on(on, job, dtype)
    for access in on.traffic:
        counted[access.kernel] += 32 * access.actual * (access.space == "global")
    return counted


@needs_compiler
@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [
        *((name, None, 4) for name in SIZES),
        *((name, np.float16, 2) for name in SIZES if name not in IN_FLOAT),
    ],
)
def test_the_bytes_of_the_formulas_are_those_that_are_counted(name, dtype, size):
    job, load = SIZES[name]
    counted = bytes_counted(job, dtype)
    kernels = [kernel for kernel in WORK if counted[kernel] and kernel.startswith(name)]
    assert kernels
    for kernel in kernels:
        traffic = WORK[kernel](load, size).traffic
        assert counted[kernel] / LAUNCHES.get(kernel, 1) == pytest.approx(traffic, rel=0.05), kernel
        assert traffic >= WORK[kernel](load, size).least


@needs_compiler
def test_the_bytes_of_ds_in_memory_are_those_that_are_counted():
    load = SIZES["attention"][1]
    counted = bytes_counted(attend(END, 2, 64, blocks="stored"), np.float16)
    for kernel in ("attention_delta", "attention_mma_dkv_stored", "attention_mma_dq_stored"):
        work, function = WORK[kernel](load, 2), KERNELS[kernel].function or kernel
        assert counted[function] == pytest.approx(work.traffic, rel=0.05), kernel
        assert work.traffic >= work.least


def test_tiles_are_counted_as_a_forest_shows_them():
    tree = ends((40, (30,), (61,)))  # 131 rows
    visible = np.arange(131)[:, None] >= np.arange(131)
    visible &= np.arange(131)[:, None] < tree[None]
    tiles = [
        [visible[i : i + 32, j : j + 32].any() for j in range(0, 131, 32)]
        for i in range(0, 131, 32)
    ]
    assert pairs_of_tiles(tree, 32, 32) == pairs_of_keys(tree, 32, 32) == np.sum(tiles)


def test_what_takes_longest_sets_the_time():
    a100 = GPUS["A100"]
    assert seconds(a100, Work(2.039e12, 0, 0), 0, False) == (1, "memory")
    assert seconds(a100, Work(0, 0, 19.5e12), 0, False) == (1, "operations")
    assert seconds(a100, Work(0, 0, 312e12), 0, True) == (1, "operations")
    assert seconds(a100, Work(0, 0, 0, 108), 1.41e9, True) == (1, "shared memory")
    assert seconds(a100, Work(0, 5120 * 1.41e9, 0), 0, True) == (1, "L2 cache")


@needs_compiler
def test_the_readme_has_the_table_of_these_kernels():
    assert page_with(table()) == PAGE.read_text(encoding="utf-8")
