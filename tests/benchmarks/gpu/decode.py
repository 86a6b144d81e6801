"""Decoding on a GPU beside PyTorch: `python -m tests.benchmarks.gpu.decode`.

One prompt, and many at once, are continued greedily with a key/value cache by this project, by
transformers' `generate`, and by a compiled loop over a cache of fixed size.  All have the same
random weights; they generate in turns, and medians count.  The floor of a token is the time in
which the weights and the cache are read once.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from minigpt2.device.devices import open_device
from minigpt2.errors import UserError
from minigpt2.model.config import GPT2Config
from tests.benchmarks.gpu.__main__ import BYTES, Weights, weights_folder
from tests.benchmarks.gpu.cards import card_of
from tests.benchmarks.gpu.floors import Load
from tests.benchmarks.peers.__main__ import HERE
from tests.benchmarks.peers.worker import Worker
from tests.benchmarks.work import MODELS

OURS = "decode: ours"
NAMES = (OURS, "decode: transformers", "decode: PyTorch, fixed cache, compiled")


class Continuing(NamedTuple):
    """Prompts that are continued."""

    config: GPT2Config
    prompts: list[list[int]]
    new: int


def job_of(config, sequences, length, new):
    """Random prompts."""
    prompts = np.random.default_rng(0).integers(config.vocab_size, size=(sequences, length))
    return Continuing(config, prompts.tolist(), new)


def floor_of(job, size, rates):
    """The least seconds of a token of all sequences: the mean over the tokens of the job."""
    config, sequences = job.config, len(job.prompts)
    read = config.n_parameters - config.n_positions * config.n_embd  # positions are looked up
    length = len(job.prompts[0]) + (job.new - 1) / 2
    cache = 2 * config.n_layer * config.n_embd * length * sequences
    return Load(2 * read * sequences, size * (read + cache)).seconds(rates)


def least_agreement(precision, sequences):
    """The share of sequences whose first token must be ours.

    In 16 bits two likely tokens may change places: half of many sequences, and none of a few.
    """
    if precision == "float32":
        return 0.9
    return 0.5 if sequences >= 8 else 0.0


def agreement(tokens, ours):
    """The share of first tokens, and of all tokens, that are ours."""
    same = np.array(tokens) == np.array(ours)
    return same[:, 0].mean(), same.mean()


def race(job, names, folder, how, options, say):
    """Let each continue all prompts once or twice to warm up, then in turns."""
    workers = {name: Worker(name, folder, job, how, options.patience) for name in names}
    measured, ours = {name: {"seconds": []} for name in names}, None
    least = least_agreement(how.precision, len(job.prompts))
    for worker in workers.values():
        worker.begin_build()
    for turn in range(2 + options.rounds):  # the first two warm up
        for name, worker in list(workers.items()):
            try:
                tokens, seconds = worker.step()
                if turn == 0:
                    ours = tokens if name == OURS else ours
                    first, everywhere = agreement(tokens, ours) if ours else (1.0, 1.0)
                    measured[name] |= {"same_first": first, "same": everywhere}
                    if first < least:
                        raise UserError(f"{first:.0%} of its first tokens are ours")
                if turn > 1:
                    measured[name]["seconds"].append(seconds)
            except UserError as error:
                say(f"  {name}: {error}")
                measured[name]["failed"] = str(error)
                workers.pop(name).end()
    for worker in workers.values():
        worker.end()
    return measured


def summed_up(job, measured, floor):
    """Medians, in place."""
    ours = measured.get(OURS, {}).get("seconds")
    for row in measured.values():
        if row["seconds"] and "failed" not in row:
            row["median"] = median(row["seconds"])
            row["tokens_per_second"] = len(job.prompts) * job.new / row["median"]
            row["times_ours"] = median(np.divide(row["seconds"], ours)) if ours else None
            row["share_of_floor"] = floor * job.new / row["median"]
    return measured


def table_of(results, title):
    """All jobs with all contenders."""
    table = Table(title=title, box=None)
    table.add_column("precision, sequences", no_wrap=True)
    table.add_column("contender", no_wrap=True)
    for column in ("tokens/s", "ms a token", "times ours", "floor, ms", "share", "same tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        job = f"{result['precision']}, {result['sequences']}"
        for name, row in result["contenders"].items():
            cells = ["failed", *"-----"]
            if "median" in row:
                ratio = row["times_ours"]
                cells = [
                    f"{row['tokens_per_second']:,.0f}",
                    f"{row['median'] / result['new'] * 1e3:.3f}",
                    "-" if ratio is None else f"{ratio:.2f}",
                    f"{result['floor'] * 1e3:.3f}",
                    f"{row['share_of_floor']:.0%}",
                    f"{row['same']:.0%}",
                ]
            table.add_row(job, name.removeprefix("decode: "), *cells)
            job = ""
    return table


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu.decode",
        description="Tokens a second of generation on a GPU beside PyTorch",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="gpt2", choices=MODELS)
    add("--precision", nargs="*", default=["float32", "bfloat16"], choices=BYTES)
    add("--sequences", nargs="*", type=int, default=[1, 32])
    add("--prompt", type=int, default=32, help="tokens of each prompt")
    add("--tokens", type=int, default=128, help="tokens to add")
    add("--rounds", type=int, default=3)
    add("--contenders", nargs="*", default=list(NAMES))
    add("--device", default="cuda", choices=["cuda", "emulated"], help="where all compute")
    add("--patience", type=float, default=90, help="seconds that no answer may take")
    add("--json", type=Path, metavar="FILE", help="where to write every number")
    add("--weights", metavar="FOLDER", help="where random weights are kept for the next run")
    return parser


def main(argv=None):
    """Measure, and print the table; returns 1 if a contender failed."""
    options = arguments().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    say = lambda text: console.print(text, highlight=False, markup=False)  # noqa: E731
    names = [name for name in options.contenders if name == OURS or find_spec("torch")]
    config, results, card = MODELS[options.model], [], None
    try:
        library = open_device(options.device)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with weights_folder(options.weights) as folder:
        weights = Weights(folder, config, options.model)
        weights.make()
        for precision in options.precision:
            card, size = card_of(library, precision), BYTES[precision]
            say(card.described(precision))
            for sequences in options.sequences:
                job = job_of(config, sequences, options.prompt, options.tokens)
                how = HERE._replace(device=options.device, precision=precision)
                floor = floor_of(job, size, card.rates)
                measured = race(job, names, weights.path, how, options, say)
                results.append(
                    {
                        "card": card._asdict(),
                        "model": options.model,
                        "precision": precision,
                        "sequences": sequences,
                        "new": job.new,
                        "floor": floor,
                        "contenders": summed_up(job, measured, floor),
                    }
                )
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1, default=float) + "\n")
    title = (
        f"Decoding, {options.model}, {options.tokens} tokens after {options.prompt}, {card.name}"
    )
    console.print(table_of(results, title))
    return int(any("failed" in c for r in results for c in r["contenders"].values()))


if __name__ == "__main__":
    sys.exit(main())
