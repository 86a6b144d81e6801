"""Memory of a run, step by step, in a process of its own: `python -m tests.training.memory_growth`.

Nothing but the run allocates there: a test's process has threads that receive messages.
"""

import gc
import json
import tracemalloc
from itertools import repeat

import numpy as np

from minigpt2.training.config import TrainingConfig
from tests.model.cases import FIRST, SECOND, random_parameters
from tests.stepping import take

# An array's interface is a dictionary, whose names Python interns and soon forgets, time and again,
# until its table of interned names is full and it makes another.  While they are held here, it does
# not.
NAMES = list(np.zeros(1).__array_interface__)


def traced(steps=60):
    """The bytes that are held after each step, and at the peak within it."""
    config, held, peaks = TrainingConfig(steps, 1e-3, 0, "linear"), [], []
    gc.collect()
    gc.freeze()
    for _ in take(random_parameters(), repeat([FIRST, SECOND]), config):
        gc.collect()  # the interpreter's lists of small objects fill up before anything is counted
    gc.freeze()  # what is there stays, so it need not be looked through again
    parameters = random_parameters()
    tracemalloc.start()
    for _ in take(parameters, repeat([FIRST, SECOND]), config):
        gc.collect()
        now, peak = tracemalloc.get_traced_memory()
        held.append(now)
        peaks.append(peak)
        tracemalloc.reset_peak()
    tracemalloc.stop()
    return held, peaks


if __name__ == "__main__":
    print(json.dumps(traced()))
