"""Torture: a run that is killed and stopped at a few moments; `make torture` has hundreds."""

import signal

import pytest

from tests.torture import __main__ as torture
from tests.torture.runs import KINDS, differences
from tests.torture.traced import PHASES


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_disturbed_ends_with_the_bits_of_the_whole_one(tmp_path, number):
    jobs = torture.Torture(KINDS[0]._replace(options=("--steps", "3")), tmp_path / "runs")
    assert jobs.micro_batches == 3 * 3
    jobs.break_run(number, 1, "any")
    ((sent, phase),) = jobs.where
    assert sent == number and phase in (*PHASES, torture.WRITING)


def test_a_difference_in_any_result_is_noticed():
    whole = {"model.safetensors": b"1", "log.jsonl": [{"step": 1}]}
    assert differences(whole, dict(whole)) == []
    assert differences({**whole, "log.jsonl": []}, whole) == ["log.jsonl"]
    assert differences({"log.jsonl": [{"step": 1}]}, whole) == ["model.safetensors"]
