"""Benchmark of pairs: the same batches for all, rows counted, this project's steps in turns.

trl's contenders run in `make bench-align` alone.
"""

import json

import pytest

from tests.benchmarks import pairs as bench
from tests.benchmarks.peers.pair_jobs import made_up, pair_jobs, read, rows_of_epoch
from tests.benchmarks.work import MODELS


@pytest.fixture
def preferences(tmp_path):
    """A file of pairs, of which one is equal."""
    path = tmp_path / "pairs.json"
    entries = [
        {"instruction": f"Say {n}.", "chosen": f"It is {n}.", "rejected": "It is."}
        for n in range(6)
    ]
    path.write_text(json.dumps([*entries, {**entries[0], "rejected": "It is 0."}]))
    return path


def test_pairs_are_read_from_a_file_or_made_up(preferences):
    assert len(read(preferences, "gpt2")) == 6
    pairs = made_up(1000)
    assert pairs == made_up(1000) and len(read(None, "gpt2")) == len(pairs)
    end = {pair.chosen[-1] for pair in pairs} | {pair.rejected[-1] for pair in pairs}
    assert end == {999} and all(len(pair.prompt) > 28 for pair in pairs)


def test_jobs_have_batches_of_pairs_and_a_pad_that_is_in_none(preferences):
    dpo, reward = pair_jobs(preferences, 4, 3, "gpt2")
    assert (dpo.name, reward.name) == ("DPO, pairs, batch 4", "reward model, pairs, batch 4")
    assert [len(batch) for batch in dpo.batches] == [4, 4, 4] and dpo.batches == reward.batches
    used = {token for batch in dpo.batches for pair in batch for ids in pair[:3] for token in ids}
    assert dpo.pad not in used and 0 <= dpo.pad < MODELS["gpt2"].vocab_size
    sizes = [len(example.ids) for pair in dpo.batches[0] for example in pair.examples]
    assert dpo.tokens(0) == sum(sizes)
    assert dpo.operations(0) > reward.operations(0) > 0


def test_a_forest_takes_the_fewest_rows():
    rows = rows_of_epoch(made_up(1000)[:64], 8)
    assert rows.padded > rows.packed > 2 * rows.forest


@pytest.mark.long
def test_our_steps_of_both_kinds_are_timed(tmp_path, capsys):
    found = tmp_path / "found.json"
    options = ["--model", "tiny", "--batch", "2", "--rounds", "1", "--json", str(found)]
    results = bench.main([*options, "--contenders", "ours, DPO", "ours, reward model"])
    assert [list(result["ratio"].values()) for result in results] == [[1.0], [1.0]]
    assert json.loads(found.read_text()) == json.loads(json.dumps(results))
    assert "times fewer" in capsys.readouterr().out
