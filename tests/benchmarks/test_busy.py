"""Beside a busy process, generation and tuning keep their bounds."""

import os
import signal
import subprocess
import sys

import pytest

from minigpt2.parallel import cores


def two_cores():
    """Leave two cores to this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


@pytest.mark.long
@pytest.mark.skipif(cores() < 2, reason="one core: there is none to leave to a busy process")
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no way to make a process stop")
def test_beside_a_busy_process_generation_and_tuning_keep_their_bounds():
    command = [sys.executable, "-m", "tests.benchmarks.busy", "--rounds=2", "--most=12"]
    run = subprocess.run(
        [*command, "--scale=1"], preexec_fn=two_cores, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
