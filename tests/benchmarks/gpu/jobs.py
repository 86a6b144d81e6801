"""The jobs of `make bench-gpu`, by name: MODEL/PRECISION/ROWSxLENGTH or MODEL/PRECISION/batchSIZE.

The second form is tuning on the data set, in batches of SIZE examples.
"""

from typing import NamedTuple

from tests.benchmarks.peers.jobs import Job, dense, tuning
from tests.benchmarks.peers.worker import BARE, CONTENDERS

JOBS = (
    "gpt2-large/bfloat16/4x1024",
    "gpt2/bfloat16/8x1024",
    "gpt2/bfloat16/batch32",
    "gpt2/float32/8x1024",
)
COMPARED = 4  # steps whose losses are compared
PADDED, PACKED = "PyTorch, padded", "PyTorch, packed"
COMPILED, ONE_KERNEL = f"{PACKED}, compiled", f"{PACKED}, one kernel"
FIXED = ("ours", BARE, PADDED, PACKED, COMPILED)
VARYING = ("ours", BARE, PADDED, PACKED, ONE_KERNEL, f"{ONE_KERNEL}, compiled")
assert set(FIXED + VARYING) <= set(CONTENDERS)


class Effort(NamedTuple):
    """How much is measured.  Steps are taken in turns; the first one of a turn does not count."""

    turns: int
    steps: int  # of a turn
    warm_fixed: int  # steps before, where all have the same shape
    warm_varying: int  # and where PyTorch loads kernels for each new one
    profiled: int  # steps under the profiler
    compiled: str  # the jobs with compiled contenders: "all", or "16 bits, fixed"


FULL = Effort(5, 5, 6, 25, 8, "all")
SHORT = Effort(3, 5, 5, 25, 5, "16 bits, fixed")


class Plan(NamedTuple):
    """A job, and how it is measured."""

    spec: str
    job: Job
    precision: str
    varying: bool
    warm: int
    contenders: tuple[str, ...]


def plan_of(spec, data, effort):
    """The job of a name."""
    model, precision, what = spec.split("/")
    varying, short = what.startswith("batch"), precision != "float32"
    warm = effort.warm_varying if varying else effort.warm_fixed
    steps = warm + effort.turns * effort.steps + effort.profiled
    if varying:
        job = tuning(data, int(what.removeprefix("batch")), steps, model)
    else:
        job = dense(*map(int, what.split("x")), steps, model)
    names = VARYING if varying and short else FIXED
    if effort.compiled != "all" and (varying or not short):
        names = [name for name in names if "compiled" not in name]
    job = job._replace(name=f"{model}, {job.name.removeprefix(f'{model}, ')}, {precision}")
    return Plan(spec, job, precision, varying, warm, tuple(names))


def bytes_of(name, plan):
    """About what a contender takes of the GPU's memory; rather more than it does."""
    if name == BARE:
        return 3 * 2**30
    config, batches = plan.job.config, plan.job.batches
    rows = max(sum(len(ids) for ids, _ in batch) for batch in batches)
    if name == PADDED:
        rows = max(len(batch) * max(len(ids) for ids, _ in batch) for batch in batches)
    size = 4 if plan.precision == "float32" else 2
    kept = 40 * size * rows * config.n_embd * config.n_layer
    return 20 * config.n_parameters + kept + (8 + size) * rows * config.vocab_size + 2**30


def groups_of(plan, memory):
    """The contenders that are alive at the same time: all, or ours with one peer at a time."""
    if sum(bytes_of(name, plan) for name in plan.contenders) <= memory:
        return [plan.contenders]
    ours, *peers = plan.contenders
    return [(ours, peer) for peer in peers]
