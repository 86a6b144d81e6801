"""A full-size GPT-2 Large compared with the reference: `make parity-large`.

It writes a file of 774,030,080 random parameters in the official layout, loads it here and with
transformers, each in a process of its own, and compares the logits and the loss of one sequence.
It prints what loading takes, in memory and in time, next to what reading the file takes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from rich.console import Console

from minigpt2.model.config import OFFICIAL
from minigpt2.tensors import TENSORS
from minigpt2.weights import load_parameters, save_parameters
from tests.parity import ours
from tests.parity.cases import forest, make_case, parameters_of

TOKENS, ROUNDS = 32, 5
BOUNDS = {"logits": 1e-4, "loss": 1e-6, "memory": 1.05, "time": 1.2}


def case_of(model):
    """One sequence for an official model."""
    return make_case(model, OFFICIAL[model], (TOKENS + 1,))


def peak():
    """The most memory this process has had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_whole(path):
    """Read a file into new memory, as plainly as can be."""
    whole = np.empty(path.stat().st_size, np.uint8)
    with open(path, "rb", buffering=0) as file:
        view, at = memoryview(whole), 0
        while at < len(whole):
            at += file.readinto(view[at:])
    return whole


def load_here(folder, _model):
    """Load once with an eye on memory, then load and read in turns with an eye on time."""
    path = folder / TENSORS
    before = peak()
    parameters = load_parameters(folder)
    memory = (peak() - before) / parameters.flat.nbytes
    del parameters
    loads, reads = [], []
    for _ in range(ROUNDS):
        for times, action, where in ((reads, read_whole, path), (loads, load_parameters, folder)):
            started = perf_counter()
            kept = action(where)
            times.append(perf_counter() - started)
            del kept
    pairs = sorted(a / b for a, b in zip(loads, reads, strict=True))
    return {
        "memory": memory,
        "load seconds": median(loads),
        "read seconds": median(reads),
        "time": median(pairs),
    }


def run_here(folder, model):
    """The logits and the loss, by this project."""
    case = case_of(model)
    batch = forest(case)
    parameters = load_parameters(folder)
    started = perf_counter()
    _, logits = ours.hidden_rows(parameters, batch)
    seconds = perf_counter() - started
    picked = logits[batch.rows, batch.targets].astype(np.float64)
    high = logits.max(-1, keepdims=True)
    lse = np.log(np.exp((logits - high).astype(np.float64)).sum(-1)) + high[:, 0]
    loss = float((lse[batch.rows] - picked).mean())
    np.save(folder / "ours.npy", logits)
    return {"loss": loss, "seconds": seconds, "peak": peak()}


def run_reference(folder, model):
    """The same by transformers."""
    from tests.parity import reference

    case = case_of(model)
    their = reference.open_reference(folder)
    started = perf_counter()
    ((_, logits),) = reference.hidden_rows(their, case)
    seconds = perf_counter() - started
    import torch

    targets = torch.tensor(case.sequences[0][1:])
    nll = torch.nn.functional.cross_entropy(torch.tensor(logits), targets, reduction="none")
    np.save(folder / "reference.npy", logits)
    return {"loss": nll.double().mean().item(), "seconds": seconds, "peak": peak()}


def in_a_process(part, folder, model):
    """Do one part in a process of its own; return what it found."""
    command = [sys.executable, "-m", "tests.parity.large", "--model", model]
    done = subprocess.run(
        [*command, "--part", part, "--folder", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def write_model(folder, model):
    """Write the file, in a process that is gone before anything is measured."""
    case = case_of(model)
    save_parameters(parameters_of(case), folder)
    return {}


PARTS = {"write": write_model, "load": load_here, "ours": run_here, "reference": run_reference}


def main():
    """Do all parts and compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gpt2-large", choices=OFFICIAL)
    parser.add_argument("--part", choices=PARTS, help="one part, in this process")
    parser.add_argument("--folder", type=Path, help="where the model is, for a part")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options.folder, options.model)))
        return 0
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with console.status(f"writing {options.model}"):
            in_a_process("write", folder, options.model)
        found = {}
        for part in ("load", "ours", "reference"):
            with console.status(part):
                found[part] = in_a_process(part, folder, options.model)
        logits = abs(np.load(folder / "ours.npy") - np.load(folder / "reference.npy")).max()
    load, mine, other = (found[part] for part in ("load", "ours", "reference"))
    results = {
        "logits": float(logits),
        "loss": abs(mine["loss"] - other["loss"]),
        "memory": load["memory"],
        "time": load["time"],
    }
    n = OFFICIAL[options.model].n_parameters
    console.print(f"{options.model}: {n:,} parameters, {4 * n / 1e9:.2f} GB, {TOKENS} tokens")
    for name, unit in (
        ("logits", "largest difference"),
        ("loss", "difference"),
        ("memory", "memory of loading / size of the parameters"),
        ("time", "time of loading / time of reading the file"),
    ):
        mark = "" if results[name] <= BOUNDS[name] else "  FAILED"
        console.print(f"  {unit:<44} {results[name]:9.2e}  bound {BOUNDS[name]:.2g}{mark}")
    console.print(
        f"  loading {load['load seconds']:.2f} s, reading {load['read seconds']:.2f} s; forward: "
        f"ours {mine['seconds']:.2f} s with {mine['peak'] / 1e9:.2f} GB, "
        f"reference {other['seconds']:.2f} s with {other['peak'] / 1e9:.2f} GB"
    )
    return int(any(not results[name] <= bound for name, bound in BOUNDS.items()))


if __name__ == "__main__":
    sys.exit(main())
