"""The benchmark of cost against length: its fit finds what it is given."""

import numpy as np
import pytest

from minigpt2.model.config import GPT2Config
from tests.benchmarks import cost

SMALL = GPT2Config(vocab_size=50, n_positions=64, n_embd=16, n_layer=2, n_head=2)


def test_the_fit_finds_its_terms():
    lengths = np.array(cost.LENGTHS)
    seconds = 0.3 + 2e-3 * lengths + 5e-7 * lengths**2
    assert cost.fit(lengths, seconds) == pytest.approx([0.3, 2e-3, 5e-7], rel=1e-6)


def test_the_fit_of_batches_is_a_line():
    sizes = np.array(cost.SIZES)
    assert cost.fit(sizes, 0.2 + 0.03 * sizes, 1) == pytest.approx([0.2, 0.03], rel=1e-6)


def test_operations_of_a_batch_are_those_of_its_sequences():
    one, four = (sum(cost.counted(SMALL, 32, n)) for n in (1, 4))
    assert four == pytest.approx(4 * one)


def test_linear_and_quadratic_operations_grow_so():
    (linear, pairs), (linear_twice, pairs_twice) = (cost.counted(SMALL, t) for t in (500, 1000))
    assert linear_twice / linear == pytest.approx(2)
    assert pairs_twice / pairs == pytest.approx(4, rel=0.01)


def test_runs_and_tells_everything(capsys):
    found = cost.times(SMALL, [(1, t) for t in (8, 16, 32, 64)], rounds=2)
    result = cost.of_lengths(SMALL, {t: taken for (_, t), taken in found.items()})
    cost.show(cost.Console(width=120), "small", result)
    shown = capsys.readouterr().out
    assert "ms · T" in shown and "GFLOP/s" in shown
    assert all(len(taken) == 2 for taken in result["raw"].values())


def test_batches_are_run_and_told(capsys):
    found = cost.times(SMALL, [(n, 8) for n in (1, 2, 4)], rounds=2)
    result = cost.of_batches(SMALL, 8, {n: taken for (n, _), taken in found.items()})
    cost.show_batches(cost.Console(width=120), "small", result)
    shown = capsys.readouterr().out
    assert "ms · B" in shown and "sequences of 8 tokens" in shown
    assert len(result["seconds"]) == len(result["fitted"]) == 3
