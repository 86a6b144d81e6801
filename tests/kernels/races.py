"""Large launches under the checks: `python -m tests.kernels.races`.

The tests' jobs are as small as possible.  These are many tiles long and wide, in two orders of
threads and blocks, for races that only large launches have.  Any finding, and any error above the
tests' bounds, is a fault.
"""

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from rich.progress import track

from minigpt2.device.emulator import Machine
from tests.kernels.decoding_jobs import choose, decode, look_up_row, map_row
from tests.kernels.jobs import (
    LARGE,
    STORED,
    attend,
    embed,
    gate,
    learn,
    normalise,
    optimise,
    sum_columns,
)
from tests.kernels.support import BITS, SHORT, SINGLE, error_of, exactly, run_on
from tests.ops.cases import ends

LONG = ends((700,))
BUSHY = ends((150, *[(n, (n // 2,)) for n in range(3, 60, 4)]), (90,))
ORDERS = ({"order": "ascending"}, {"order": "random", "seed": 5})
JOBS = {
    **{f"attention, {len(LONG)} rows, heads of {d}": attend(LONG, 1, d) for d in (64, 128)},
    f"attention, a bush of {len(BUSHY)} rows": attend(BUSHY, 3, 64),
    f"{LARGE}{len(LONG)} rows": attend(LONG, 1, 64, blocks="large"),
    f"{LARGE}a bush of {len(BUSHY)} rows": attend(BUSHY, 1, 64, blocks="large"),
    f"{STORED}{len(LONG)} rows": attend(LONG, 1, 64, blocks="stored"),
    f"{STORED}a bush of {len(BUSHY)} rows": attend(BUSHY, 1, 64, blocks="stored"),
    "layer_norm, 700 x 1280": normalise(700, 1280, False),
    "column_sums, 1100 x 1280": sum_columns(1100, 1280),
    "gelu, 40 x 5120": gate(40, 5120, True),
    "embedding, 900 x 768": embed(900, 768, 50),
    "cross_entropy, 12 x 50257": learn(12, 50257),
    "cross_entropy, 12 x 50256": learn(12, 50256),
    "decode, 40 sequences": decode([90 + 7 * n for n in range(40)], 90, 290, 3, 64, 128),
    "linear_row, 3072 x 768": map_row(3072, 768, True, True),
    "logits_row, 768 x 5000": look_up_row(768, 5000, 5056),
    "sample, 20 x 50257": choose(20, 50257, 50304, 1.0),
    "adamw, 300001": optimise(300001, 200002, 1.0),
}
IN_FLOAT = ("adamw",)


def kinds_of(name):
    """The types that a job is run in."""
    if name.startswith((LARGE, STORED)):
        return ("float16",)
    return ("float32",) if name.startswith(IN_FLOAT) else ("float32", "float16")


def runs():
    """Each job, in float and in float16, in each order."""
    for name in JOBS:
        for kind in kinds_of(name):
            for order in ORDERS:
                yield name, kind, order


def faults_of(run):
    """What is wrong with a run."""
    name, kind, order = run
    job, dtype = JOBS[name], SHORT.get(kind)
    on = Machine(check=True, **order)
    results = run_on(on, job, dtype)
    exact = job(lambda array: exactly(array if dtype is None else array.astype(dtype)))
    bound = SINGLE if dtype is None else 4 * 2.0 ** -BITS[kind]
    worst = max(error_of(*pair) for pair in zip(results, exact, strict=True))
    wrong = [f"an error of {worst:.1e}"] if not worst <= bound else []
    wrong += [] if all(np.isfinite(result).all() for result in results) else ["not finite"]
    return run, worst, [*wrong, *map(str, on.findings)]


def main():
    """Run all; returns 1 if anything is wrong."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        work, failed = list(runs()), 0
        with ProcessPoolExecutor(2) as pool:
            results = track(pool.map(faults_of, work), "looking for races", len(work))
            for (name, kind, order), worst, faults in list(results):
                failed += bool(faults)
                title = f"{name}, {kind}, {order['order']}"
                print(f"{title:<55} error {worst:.1e}, {len(faults)} faults")
                for fault in faults:
                    print(f"  {fault}", file=sys.stderr)
    print(f"{len(work)} large launches, {failed} with faults")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
