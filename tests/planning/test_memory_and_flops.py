"""Forecast: what is counted is what is held."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("resource")

from minigpt2.model.block import block
from minigpt2.model.config import OFFICIAL, GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model.recompute import recomputed, recomputed_input
from minigpt2.planning import memory_and_flops as forecast
from minigpt2.planning.memory_and_flops import (
    MemoryOptions,
    MicroBatch,
    crossing,
    kept_by_block,
    memory,
    operations,
    peak,
)
from tests.benchmarks.work import make_batch, visible_pairs

SMALL = GPT2Config(vocab_size=50, n_positions=64, n_embd=24, n_layer=3, n_head=3)
LARGE = OFFICIAL["gpt2-large"]
SCRIPT = """
import sys
import minigpt2.commands.train
from minigpt2.model.adapters import LoRA
from minigpt2.model.config import GPT2Config
from minigpt2.planning.memory_and_flops import peak
from tests.benchmarks.memory import measured
v, c, layers, heads, rows, segment, recompute, rank = map(int, (*sys.argv[1:8], sys.argv[9]))
config = GPT2Config(v, segment, c, layers, heads)
lora = LoRA(rank, 16) if rank else None
run = bool(recompute), float(sys.argv[8])
parts, found, _ = measured(config, rows, segment, *run, lora=lora)
print(peak(parts) / found)
"""


@pytest.mark.parametrize(
    "sizes",
    [
        (4096, 224, 4, 7, 2048, 256, 0, 0.0),  # activations rule
        (4096, 224, 4, 7, 2048, 256, 1, 0.0),
        (4096, 224, 4, 7, 1024, 64, 0, 0.1),  # with dropout
        (50257, 256, 3, 4, 400, 200, 1, 0.0),  # the table and the loss rule
        (50257, 512, 1, 8, 400, 200, 0, 0.0),  # and the strips of products
        (3000, 640, 6, 10, 300, 300, 0, 0.0),  # parameters rule
        (50257, 128, 2, 2, 1500, 500, 0, 0.0),  # the loss in several chunks
        (4096, 224, 4, 7, 2048, 256, 0, 0.0, 64),  # adapters: activations rule
        (50257, 256, 3, 4, 400, 200, 1, 0.0, 8),  # the loss rules
    ],
    ids=str,
)
def test_the_peak_of_a_run_is_foretold_within_a_tenth(sizes):
    sizes = sizes if len(sizes) == 9 else (*sizes, 0)
    command = [sys.executable, "-c", SCRIPT, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1, abs=0.1)


def arrays_in(saved, found):
    """The arrays that a saved tuple holds, each memory once."""
    for one in saved:
        if isinstance(one, np.ndarray):
            base = one if one.base is None else one.base
            found[id(base)] = base
        elif isinstance(one, tuple):
            arrays_in(one, found)
    return found


def numbers_in(arrays, others):
    """MemoryOptions many numbers the arrays hold that are not among the others."""
    return sum(array.size for key, array in arrays.items() if key not in others)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_block_keeps_as_many_numbers_as_are_counted(dropout, recompute):
    n, rng = 40, np.random.default_rng(0)
    parameters = initialise(SMALL, rng)
    x, end = rng.standard_normal((n, SMALL.n_embd), np.float32), np.full(n, n)
    options = {"n_head": SMALL.n_head, "drop": dropout, "recompute": recompute}
    _, saved = block(x, end, parameters.block(0), **options)
    given = {id(one): one for one in (parameters.flat.base, end)}
    held = arrays_in(saved, {})
    how = MemoryOptions(recompute, dropout > 0)
    assert numbers_in(held, given) == kept_by_block(SMALL, n, how)
    if recompute:
        made = arrays_in((recomputed(saved), recomputed_input(saved)), {})
        assert numbers_in(made, held | given) == forecast.recomputed(SMALL, n, how)


def test_every_parameter_costs_four_numbers():
    parts = memory(SMALL, MicroBatch(0, 0), MemoryOptions())
    stays = parts["weights"] + parts["gradients"] + parts["moments"]
    assert stays == 16 * SMALL.n_parameters


def test_recomputation_keeps_three_eighths_of_a_block_and_makes_one_again():
    n = 100
    once, again = (
        memory(SMALL, MicroBatch(n, 10), MemoryOptions(r))["activations"] for r in (False, True)
    )
    whole, part = (kept_by_block(SMALL, n, MemoryOptions(r)) for r in (False, True))
    assert once == 4 * SMALL.n_layer * whole
    assert part == pytest.approx(3 / 8 * whole, rel=0.03)
    assert again == 4 * (SMALL.n_layer * part + 12 * n * SMALL.n_embd + 2 * n)


def test_large_at_its_full_context_fits_14_gb_with_recomputation_alone():
    load = MicroBatch(1024, 1024)
    assert peak(memory(LARGE, load, MemoryOptions(recompute=True), 100_000_000)) < 14e9
    assert peak(memory(LARGE, load, MemoryOptions(recompute=False), 100_000_000)) > 14e9


def test_operations_are_those_of_the_visible_pairs_and_all_weights():
    segment, rng = 16, np.random.default_rng(0)
    batch = make_batch(SMALL, 64, segment, 0.5, 0, rng)
    done = operations(SMALL, MicroBatch(64, len(batch.rows)), segment, recompute=False)
    weights = 12 * SMALL.n_layer * SMALL.n_embd**2
    in_the_last = 9 * SMALL.n_embd**2  # weights behind attention: they meet supervised rows
    assert done["products"] == 6 * weights * 64 - 6 * in_the_last * (64 - len(batch.rows))
    assert done["attention"] == 14 * SMALL.n_layer * SMALL.n_embd * visible_pairs(batch)
    assert done["projection"] == 6 * SMALL.vocab_size * SMALL.n_embd * len(batch.rows)


def test_recomputation_makes_one_product_again():
    once, again = (operations(LARGE, MicroBatch(1024, 1024), 1024, r) for r in (False, True))
    product = 2 * LARGE.n_layer * 4 * LARGE.n_embd**2 * 1024
    assert again["products"] == pytest.approx(once["products"] + product)
    few = [operations(LARGE, MicroBatch(1024, 100), 1024, r)["products"] for r in (False, True)]
    rows = (LARGE.n_layer - 1) * 1024 + 100  # the last block makes u for supervised rows
    assert few[1] - few[0] == pytest.approx(2 * 4 * LARGE.n_embd**2 * rows)
    assert again["attention"] == once["attention"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_at_the_crossing_attention_takes_as_much_as_the_products(name):
    config = OFFICIAL[name]
    length = crossing(config)
    done = operations(config, MicroBatch(1000, 1000), length, recompute=False)
    assert done["attention"] == pytest.approx(done["products"], rel=1e-9)
    assert length == pytest.approx(10 * config.n_embd, rel=0.03)


def test_the_crossing_of_the_small_one_is_what_the_chapter_says():
    assert round(crossing(OFFICIAL["gpt2"]), -2) == 7900
    assert "7,900 rows" in forecast.__doc__
