"""Benchmark beside peers: jobs are the same for all, losses are compared, ratios are of one round.

PyTorch's contenders run in `make bench-peers` alone; here it is this project and the bare products.
"""

import json
from statistics import median

import numpy as np
import pytest
from rich.console import Console

from minigpt2.errors import UserError
from tests.benchmarks.peers import __main__ as peers
from tests.benchmarks.peers.jobs import dense, tuning
from tests.benchmarks.peers.worker import BARE
from tests.kernels.support import needs_compiler

QUIET = Console(quiet=True)


@pytest.mark.parametrize("way", [peers.in_turns, peers.one_at_a_time])
def test_contenders_take_turns_and_the_ratio_is_that_of_one_round(way):
    job = dense(2, 24, peers.COMPARED + 3, "tiny")
    result = way(job, ["ours", BARE], 3, QUIET)
    ours, bare = result["seconds"]["ours"], result["seconds"][BARE]
    assert len(ours) == len(bare) == 3 and min(ours + bare) > 0
    assert result["ratio"] == {"ours": 1, BARE: median(np.divide(bare, ours))}
    assert result["tokens"] == [2 * 24] * 3
    assert result["losses_differ_by"] == 0
    assert result["peak_memory"]["ours"] > 16 * job.config.n_parameters
    shown = Console(width=120)
    with shown.capture() as text:
        shown.print(peers.table_of([result]))
    assert BARE in text.get() and f"{result['ratio'][BARE]:.2f}" in text.get()


@pytest.mark.long
@needs_compiler
def test_on_a_device_the_same_contenders_take_the_same_steps():
    job = dense(1, 40, peers.COMPARED + 1, "tiny")
    here = peers.in_turns(job, ["ours"], 1, QUIET)
    there = peers.in_turns(job, ["ours", BARE], 1, QUIET, peers.HERE._replace(device="emulated"))
    assert here["operations"] == there["operations"] and there["losses_differ_by"] == 0


def test_the_best_number_of_threads_is_found_once(monkeypatch):
    asked = []
    monkeypatch.setattr(peers, "fastest", lambda name, *how: asked.append(name) or 1)
    monkeypatch.setattr(peers.os, "sched_getaffinity", lambda process: {0, 1})
    known = {}
    for name in ("PyTorch, padded", BARE, "PyTorch, packed", "ours", "PyTorch, padded"):
        threads = peers.chosen_threads(name, "folder", "job", peers.HERE, known)
        assert threads == (1 if name.startswith("PyTorch") else 2)
    assert asked == ["PyTorch, padded", "PyTorch, packed"]


def test_a_run_that_is_stopped_has_written_the_jobs_that_are_done(monkeypatch, tmp_path):
    def in_turns(job, *rest):
        if "4" in job.name:
            raise KeyboardInterrupt
        return {"job": job.name}

    monkeypatch.setattr(peers, "in_turns", in_turns)
    found = tmp_path / "found.json"
    options = ["--model", "tiny", "--batch", "--dense", "2x8", "4x8", "--json", str(found)]
    with pytest.raises(KeyboardInterrupt):
        peers.main(options)
    assert json.loads(found.read_text()) == [{"job": "tiny, dense 2 x 8"}]


class Says:
    """A contender that says losses."""

    def __init__(self, *losses):
        self.losses = iter(losses)

    def step(self):
        return next(self.losses), 1.0


def test_losses_that_differ_are_refused():
    job = dense(1, 4, 1, "tiny")
    same, other = [5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.001]
    found = {"ours": Says(*same), BARE: Says(*[None] * 4), "peer": Says(*same)}
    assert peers.compare(found, job, QUIET) == 0
    with pytest.raises(UserError, match=r"step 4: peer has loss 2\.001, not 2"):
        peers.compare({"ours": Says(*same), "peer": Says(*other)}, job, QUIET)


def test_a_tuning_job_has_whole_examples_with_their_prompts(tmp_path):
    data = tmp_path / "questions.json"
    data.write_text(json.dumps([{"instruction": f"Say {n}.", "output": str(n)} for n in range(4)]))
    job = tuning(data, 2, 3)
    assert [len(batch) for batch in job.batches] == [2, 2, 2]
    assert all(0 < prompt < len(ids) for batch in job.batches for ids, prompt in batch)
    assert job.tokens(0) == sum(len(ids) for ids, _ in job.batches[0])
