"""Predicted times of the kernels: `python -m tests.kernels.roofline [--update]`.

A roofline is the least time that the hardware allows, not a measurement: the bytes that must come
from memory at its full rate, all bytes that the kernel requests at the L2 cache's rate, its passes
through shared memory at one a clock, or its operations at the peak, whichever takes longest.
Launches, barriers, special functions and what does not overlap come on top.

Formulas here give the bytes that a kernel requests; a test compares them with those that the
emulator counts.  Passes are what it counts for a pair of tiles.  `--update` writes the table into
kernels/README.md.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigpt2.device.attention_blocks import (
    FORWARD_ROWS,
    SLAB,
    SLAB_QUERIES,
    TILE,
    dkv_rows,
    dkv_stage,
    dq_rows,
    simple_rows,
    simple_tile,
)
from minigpt2.device.emulator import Machine
from minigpt2.device.kernel_specs import KERNELS, SHORT, options_of, parts_of, sets_of
from minigpt2.model.config import OFFICIAL
from minigpt2.shipped import shipped
from tests.kernels.gate.__main__ import TABLE, name_of
from tests.kernels.gpus import GPUS
from tests.kernels.jobs import attend
from tests.kernels.support import BITS, SINGLE, run_on
from tests.kernels.support import SHORT as SHORT_TYPES

PAGE = shipped("kernels") / "README.md"
MULTIPROCESSORS = 132  # of an H100; an A100 has 108, and a few blocks fewer
BEGIN, END = "<!-- predicted: make predict-kernels -->\n", "<!-- end -->\n"
TYPES = {"float": "float32", "f16": "float16", "bf16": "bfloat16"}


class Load(NamedTuple):
    """The sizes of a step."""

    end: np.ndarray  # (N,) of the forest
    tokens: int  # distinct ones among the rows
    H: int
    D: int
    F: int
    M: int  # triples in a chunk
    V: int
    P: int

    @property
    def N(self):
        """Rows."""
        return len(self.end)

    @property
    def C(self):
        """Features."""
        return self.H * self.D


class Work(NamedTuple):
    """Of one launch: bytes that must move, bytes that it requests, operations, pairs of tiles."""

    least: float
    traffic: float
    operations: float
    pairs: float = 0


def pairs_of_tiles(end, own, met):
    """Pairs of a tile of `own` queries and a tile of `met` keys that it sees something of."""
    n, pairs = len(end), 0
    max_end = [end[k : k + met].max() for k in range(0, n, met)]
    for q0 in range(0, n, own):
        last = (min(q0 + own, n) - 1) // met
        pairs += sum(1 for t in range(last + 1) if (t + 1) * met > q0 or max_end[t] > q0)
    return pairs


def pairs_of_keys(end, own, met):
    """The same for tiles of `own` keys: queries from the tile's first row to its furthest end."""
    n = len(end)
    return sum(-(-(end[k : k + own].max() - k) // met) for k in range(0, n, own))


def attention(kind):
    """The work of one of the kernels of attention without tensor cores."""
    rows_own = {"forward": 2, "dkv": 4, "dq": 3}[kind]  # of S N C: read once or written once
    least = {"forward": 4, "dkv": 6, "dq": 5}[kind]
    products = {"forward": 2, "dkv": 4, "dq": 3}[kind]

    def work(a, s):
        own, met = simple_rows(a.D), simple_tile(a.D, kind != "forward")
        count = a.H * (pairs_of_keys if kind == "dkv" else pairs_of_tiles)(a.end, own, met)
        met_bytes = count * (2 * s * met * a.D + (8 if kind == "dkv" else 4) * met)
        operations = count * own * met * a.D * 2 * products
        elements = s * a.N * a.C
        return Work(least * elements, rows_own * elements + met_bytes, operations, count)

    return work


def tensor_attention(kind):
    """The same on tensor cores, in large blocks; those of dq read o, and do twice, for Δ."""
    rows_own = {"forward": 2, "dkv": 4, "dq": 5}[kind]
    least = {"forward": 4, "dkv": 6, "dq": 6}[kind]
    products = {"forward": 2, "dkv": 4, "dq": 3}[kind]

    def work(a, s):
        met = dkv_stage(a.D, False) if kind == "dkv" else TILE
        own = {"forward": FORWARD_ROWS, "dkv": dkv_rows(False), "dq": dq_rows(a.D, False)}[kind]
        count = a.H * (pairs_of_keys if kind == "dkv" else pairs_of_tiles)(a.end, own, met)
        met_bytes = count * (2 * s * met * a.D + (8 if kind == "dkv" else 4) * met)
        operations = count * own * met * a.D * 2 * products
        elements = s * a.N * a.C
        return Work(least * elements, rows_own * elements + met_bytes, operations, count)

    return work


def bytes_of_ds(a):
    """The gradients of scores in memory, in 16 bits: whole slabs of 32 queries and 64 keys."""
    return a.H * pairs_of_keys(a.end, TILE, SLAB_QUERIES) * 2 * SLAB


def dkv_stored(a, s):
    """The same as without storing ds, and ds written."""
    work, ds = tensor_attention("dkv")(a, s), bytes_of_ds(a)
    return work._replace(least=work.least + ds, traffic=work.traffic + ds)


def dq_stored(a, s):
    """One product: ds read once, and a tile of keys for each block that sees it."""
    own, ds, elements = dq_rows(a.D, False), bytes_of_ds(a), s * a.N * a.C
    count = a.H * pairs_of_tiles(a.end, own, TILE)
    read = count * s * TILE * a.D
    return Work(2 * elements + ds, elements + ds + read, count * own * TILE * a.D * 2, count)


def flat(least, traffic, operations):
    """Work on N rows: multiples of S·N·C and operations an element."""
    return lambda a, s: Work(least * s * a.N * a.C, traffic * s * a.N * a.C, operations * a.N * a.C)


def wide(least, traffic, operations):
    """The same for rows of F."""
    return lambda a, s: Work(least * s * a.N * a.F, traffic * s * a.N * a.F, operations * a.N * a.F)


def embedding_backward(a, s):
    """dx once, and each row of the table that occurs is read and written.

    Each of the four warps reads where its run begins and ends, and if there is one its index; with
    every 128 features of a row it reads the row's place: each a sector.
    """
    least = s * a.N * a.C + 8 * a.tokens * a.C
    sectors = 8 * a.N + 8 * a.tokens + a.N * a.C / 128
    return Work(least, least + 32 * sectors, a.N * a.C)


def attention_delta(a, s):
    """o and do read, a number for each row and head written, four at once into a sector."""
    read = 2 * s * a.N * a.C
    return Work(read + 4 * a.N * a.H, read + 8 * a.N * a.H, 2 * a.N * a.C)


def adamw(a, s):
    """θ, g, m, v read, θ, m, v written, and the copy."""
    moved = (28 + (s if s == 2 else 0)) * a.P
    return Work(moved, moved, 15 * a.P)


def layer_norm_backward(a, s):
    """dy, x, d_residual read and dx written; gamma and the partial sums of each block.

    Each warp of a row reads μ and r, each in a sector of its own.
    """
    parts = parts_of(a.C, s)
    sets = sets_of(parts)
    blocks = min(-(-a.N // sets), MULTIPROCESSORS * max(1, 768 // (32 * parts * sets)))
    elements, warps = s * a.N * a.C, a.N * parts
    traffic = 4 * elements + blocks * (sets * s + 8) * a.C + 64 * warps
    return Work(4 * elements, traffic, 14 * a.N * a.C)


def runs_of_rows(n, bytes_of_a_row):
    """Blocks that share the rows of a matrix, each 512 bytes of them."""
    return min(-(-n // 32), 4 * MULTIPROCESSORS // -(-bytes_of_a_row // 512))


def gelu_backward(a, s):
    """dy and h read and dx written; of each block b for eight warps, and the partial sums."""
    elements, blocks = s * a.N * a.F, runs_of_rows(a.N, s * a.F)
    return Work(3 * elements, 3 * elements + blocks * (8 * s + 4) * a.F, 25 * a.N * a.F)


def column_sums(a, s):
    """The gradient of the bias of attention's first map: 3·C columns, and the partial sums."""
    least, blocks = s * a.N * 3 * a.C, runs_of_rows(a.N, s * 3 * a.C)
    return Work(least, least + blocks * 4 * 3 * a.C, 3 * a.N * a.C)


WORK: dict[str, Callable] = {
    "embedding_forward": flat(3, 3, 1),
    "embedding_backward": embedding_backward,
    "layer_norm_forward": flat(2, 4, 8),  # γ and β from the cache
    "layer_norm_backward": layer_norm_backward,
    "column_sums": column_sums,
    "gelu_forward": wide(2, 2.5, 15),  # b from the cache, once for two rows
    "gelu_backward": gelu_backward,
    "attention_forward": attention("forward"),
    "attention_delta": attention_delta,
    "attention_dkv": attention("dkv"),
    "attention_dq": attention("dq"),
    "attention_mma_forward": tensor_attention("forward"),
    "attention_mma_dkv": tensor_attention("dkv"),
    "attention_mma_dq": tensor_attention("dq"),
    "attention_mma_dkv_stored": dkv_stored,
    "attention_mma_dq_stored": dq_stored,
    "cross_entropy": lambda a, s: Work(2 * s * a.M * a.V, 3 * s * a.M * a.V, 10 * a.M * a.V),
    "cross_entropy_staged": lambda a, s: Work(*[2 * s * a.M * a.V] * 2, 10 * a.M * a.V),
    "squares": lambda a, s: Work(4 * a.P, 4 * a.P, 2 * a.P),
    "adamw": adamw,
}


def large():
    """Four sequences of 1,024 tokens through GPT-2 Large, 512 triples a chunk."""
    config, rows = OFFICIAL["gpt2-large"], 4096
    end = np.repeat(np.arange(1024, rows + 1, 1024), 1024)
    c, heads = config.n_embd, config.n_head
    return Load(end, 1500, heads, c // heads, 4 * c, 512, config.vocab_size, config.n_parameters)


# One sequence alone, two heads of 64: what the emulator counts passes on.
PASSES = Load(np.full(256, 256), 0, 2, 64, 0, 0, 0, 0)


def passes_of_a_pair(kernel, storage):
    """The passes through shared memory that the emulator counts for a pair of tiles."""
    if not kernel.startswith("attention") or kernel == "attention_delta":
        return 0
    blocks = "stored" if kernel.endswith("_stored") else "large"
    function = KERNELS[kernel].function or kernel
    accesses = [t for t in traffic_of_attention(storage, blocks) if t.kernel == function]
    return sum(t.actual for t in accesses if t.space == "shared") / WORK[kernel](PASSES, 2).pairs


@cache
def traffic_of_attention(storage, blocks):
    """Every access of the kernels of attention, both ways, as the emulator counts it."""
    on = Machine(traffic=True)
    job = attend(PASSES.end, PASSES.H, PASSES.D, blocks=blocks)
    run_on(on, job, SHORT_TYPES.get(TYPES[storage]))
    return on.traffic


def seconds(gpu, work, passes, tensor):
    """The predicted time, and what sets it."""
    peak = gpu.tensor if tensor else gpu.float32
    times = {
        "memory": work.least / gpu.memory,
        "L2 cache": work.traffic / gpu.cache,
        "shared memory": passes * work.pairs / gpu.clocks,
        "operations": work.operations / peak,
    }
    limit = max(times, key=times.get)
    return times[limit], limit


def rows(load, resources):
    """The table's rows: every kernel in float32 and in 16 bits."""
    for kernel, work_of in WORK.items():
        tensor = kernel.startswith("attention_mma")
        replaced = kernel.replace("attention", "attention_mma") in set(KERNELS) - {kernel}
        replaced |= f"{kernel}_staged" in KERNELS  # for 16 bits
        for storage in ("float",) if replaced else ("float", "f16"):  # on these GPUs
            if storage not in KERNELS[kernel].storage:
                continue
            work = work_of(load, 2 if storage in SHORT else 4)
            sizes = {"C": load.C, "D": load.D, "F": load.F, "K": 3 * load.C, "W": 50304}
            options = options_of(KERNELS[kernel], storage, sizes)
            cells = [f"`{kernel}`", TYPES[storage], f"{work.least / 1e6:,.1f}"]
            cells.append(f"{work.traffic / work.least:.1f}")
            passes = passes_of_a_pair(kernel, storage)
            for gpu in GPUS.values():
                time, limit = seconds(gpu, work, passes, tensor)
                share = resources[name_of(kernel, options, gpu.architecture)][2]
                cells += [f"{time * 1e6:,.1f}", limit, f"{share:.0%}"]
            yield [*cells, bound_of(storage)]


def bound_of(storage):
    """The largest error that the tests allow."""
    return f"{SINGLE:g}" if storage == "float" else f"4 · 2^-{BITS[TYPES[storage]]}"


def table():
    """The table as it stands in the README."""
    resources = json.loads(Path(TABLE).read_text(encoding="utf-8"))
    heads = ["kernel", "numbers", "least, MB", "traffic ÷ least"]
    for gpu in GPUS:
        heads += [f"{gpu}, µs", "set by", "occupancy"]
    heads.append("test bound")
    lines = [heads, ["---"] * len(heads), *rows(large(), resources)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page_with(text):
    """The README with this table in its place."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


def main():
    """Print the table, or write it; returns 1 if the README has another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write it into kernels/README.md")
    text = table()
    if parser.parse_args().update:
        PAGE.write_text(page_with(text), encoding="utf-8")
    print(text, end="")
    return int(page_with(text) != PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
