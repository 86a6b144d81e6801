"""Which lines of the kernels the jobs run: `python -m tests.kernels.coverage`.

Fails below LEAST of the lines of any file.
"""

import os
import re
import sys
import tempfile
from collections import Counter

from minigpt2.device.emulator import Machine
from minigpt2.shipped import shipped
from tests.kernels.jobs import JOBS
from tests.kernels.support import SHORT, run_on

LEAST = 0.95
FUNCTION = re.compile(r"^(?!//).*__(?:device|global)__", re.M)
DECODING = ("decode", "sample", "linear_row", "logits_row")
ROWS = ("column", "gelu", "layer_norm", "cross_entropy, ", "sum_rows")
SHORT_TOO = ("attention", "embedding", *ROWS, *DECODING)


def counts_of_jobs():
    """How often each line ran in all jobs, in float and in both short types."""
    on, counts = Machine(coverage=True), Counter()
    for name, job in JOBS.items():
        run_on(on, job)
        if name.startswith(SHORT_TOO):
            for dtype in SHORT.values():
                run_on(on, job, dtype)
    for module in on.modules:
        counts.update(module.line_counts())  # also with the lines that never ran
    return counts


def shares(counts):
    """Of each file of the kernels with code: the lines that ran, and those that did not."""
    paths = sorted(shipped("kernels").glob("*.cu*"))
    files = [path.name for path in paths if FUNCTION.search(path.read_text(encoding="utf-8"))]
    for file in files:
        lines = {line: count for (where, line), count in counts.items() if where == file}
        run = sorted(line for line, count in lines.items() if count)
        yield file, run, sorted(set(lines) - set(run))


def main():
    """Print the share of each file; returns 1 if one is below LEAST."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        results = list(shares(counts_of_jobs()))
    worst = 1.0
    for file, run, missed in results:
        share = len(run) / max(1, len(run) + len(missed))
        worst = min(worst, share)
        rest = f", not {', '.join(map(str, missed))}" if missed else ""
        print(f"{file:<21} {len(run):>4} of {len(run) + len(missed):>4} lines, {share:6.1%}{rest}")
    return int(worst < LEAST)


if __name__ == "__main__":
    sys.exit(main())
