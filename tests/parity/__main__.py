"""Every number compared with the references': `make parity`, or `python -m tests.parity`.

Each row is a model and a quantity, its largest difference from transformers, and the bound; or a
loss of a policy, compared with trl's, or with PyTorch's gradient of the formula.
The models have random parameters and pass through a folder in the official layout, so the test
covers export too.  `--golden` writes the small models' reference numbers to golden.json, with which
`make test` compares without torch; without it they must agree with the file.
"""

import argparse
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from minigpt2.api import GPT2
from minigpt2.data.almanac import documents
from minigpt2.data.tokenizer import gpt2_tokenizer, open_tokenizer
from minigpt2.reward_weights import save_reward_parameters
from minigpt2.shipped import shipped
from minigpt2.weights import load_parameters, save_parameters
from tests.parity import adapters, ours, policies, preferences, reference
from tests.parity.cases import CASES, FULL, forest, parameters_of, rows_of
from tests.parity.golden import GOLDEN, fingerprint

BOUNDS = {
    "hidden rows": 1e-4,
    "logits": 1e-4,
    "loss": 1e-6,
    "gradients (relative)": 1e-5,
    "ten AdamW steps, loss": 1e-5,
    "greedy answers that differ": 0,
    "loaded = saved": 0.0,
    "scores of a reward model": 1e-5,
    "texts with other ids": 0,
    "policy loss": 1e-9,
    "policy gradient": 1e-9,
    "reward loss": 1e-9,
    "reward gradient": 1e-9,
    "score": 1e-9,
    "loss of ten steps": 1e-10,
    "gradients of adapters (relative)": 1e-11,
    "adapters after ten steps": 1e-10,
    "logits of our folder": 1e-4,
    "adapters of peft's folder": 0.0,
    "merged weights": 1e-7,
}


TEXTS = [
    *islice(documents(np.random.default_rng(0)), 200),
    "naïve café, 日本語, Ελλάδα, 🦜🦜 and\u200b\u00a0spaces",
    "  def f(x):\n\treturn x ** 2  # it's 1234567890\r\n\n",
    "".join(map(chr, range(32, 1200))),
]


class Row(NamedTuple):
    """One comparison."""

    case: str
    quantity: str
    worst: float
    where: str

    @property
    def passed(self):
        """Whether the difference is within its bound; a number that is not finite is not."""
        return self.worst <= BOUNDS[self.quantity]


def worst_of(case, quantity, differences):
    """The row of the largest of some named differences; NaN counts as largest."""
    return worst_of_all(case.name, quantity, differences)


def worst_of_all(name, quantity, differences):
    """The same for what has this name."""
    where, worst = max(differences, key=lambda d: np.inf if np.isnan(d[1]) else d[1])
    return Row(name, quantity, float(worst), where)


def relative(ours, theirs):
    """The size of a difference beside the size of the reference's."""
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def compare(case):
    """All rows of one case, and the reference's numbers for the golden file."""
    parameters, batch = parameters_of(case), forest(case)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_parameters(parameters, folder)
        again = load_parameters(folder)
        model = reference.open_reference(folder)
    yield worst_of(case, "loaded = saved", [("all", abs(again.flat - parameters.flat).max())])

    rows, logits = ours.hidden_rows(parameters, batch)
    states, scores = [], []
    for b, (chain, (theirs, their_logits)) in enumerate(
        zip(rows_of(case), reference.hidden_rows(model, case), strict=True)
    ):
        for layer, (mine, other) in enumerate(zip(rows, theirs, strict=True)):
            states.append((f"sequence {b}, layer {layer}", abs(mine[chain] - other).max()))
        scores.append((f"sequence {b}", abs(logits[chain] - their_logits).max()))
    yield worst_of(case, "hidden rows", states)
    yield worst_of(case, "logits", scores)

    loss, gradients = ours.loss_and_gradients_of(parameters, batch)
    their_loss, their_gradients = reference.loss_and_gradients_of(model, case)
    yield worst_of(case, "loss", [("", abs(loss - their_loss))])
    pairs = [(n, relative(g, their_gradients[n])) for n, g in gradients.items()]
    yield worst_of(case, "gradients (relative)", pairs)

    answers, their_answers = ours.greedy(parameters, case), reference.greedy(model, case)
    pairs = enumerate(zip(answers, their_answers, strict=True))
    differing = [(f"sequence {b}", float(mine != other)) for b, (mine, other) in pairs]
    yield worst_of(case, "greedy answers that differ", differing)

    scoring = ours.reward_model(parameters)
    with tempfile.TemporaryDirectory() as name:
        save_reward_parameters(scoring, Path(name), bias=0.5)  # the reference leaves it out
        theirs = reference.scores(name, case)
    pairs = enumerate(zip(ours.scores(scoring, case), theirs, strict=True))
    differences = [(f"sequence {b}", abs(mine - other)) for b, (mine, other) in pairs]
    yield worst_of(case, "scores of a reward model", differences)

    losses = np.array(ours.adamw_losses(parameters, batch, case.rate))
    their_losses = reference.adamw_losses(model, case)
    steps = [(f"step {s}", d) for s, d in enumerate(abs(losses - their_losses), 1)]
    yield worst_of(case, "ten AdamW steps, loss", steps)
    if case is not FULL:
        yield fingerprint(
            case, their_logits, their_loss, their_gradients, their_losses, their_answers
        )


def compare_tokenizers():
    """How many texts get other ids, with the tokenizer that ships and with GPT-2's own."""
    for name, tokenizer in (
        ("tiny", open_tokenizer(shipped("weights/tiny"))),
        ("gpt2", gpt2_tokenizer()),
    ):
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(Path(folder))
            theirs = reference.open_reference_tokenizer(folder)
            alone = Path(folder) / "alone"
            reference.save_tokenizer(folder, alone)  # tokenizer.json without the other two
            assert not (alone / "vocab.json").exists()
            again = open_tokenizer(alone)
        for kind, ours_now in ((name, tokenizer), (f"{name}, tokenizer.json", again)):
            wrong = [text for text in TEXTS if ours_now.encode(text) != theirs(text)]
            yield Row(kind, "texts with other ids", len(wrong), repr(wrong[0]) if wrong else "")


def compare_answers():
    """How many greedy answers differ of a model whose vocabulary is tokenizer.json alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference.save_tokenizer(shipped("weights/tiny"), folder)
        save_parameters(load_parameters(shipped("weights/tiny")), folder)
        prompts = ["The capital of France", "2 + 2 =", "Once there were"]
        model, theirs = (
            GPT2.from_pretrained(folder, device="cpu"),
            reference.answers(folder, prompts),
        )
        mine = [model.generate(prompt, max_new_tokens=12, temperature=0) for prompt in prompts]
    pairs = zip(prompts, mine, theirs, strict=True)
    wrong = [(prompt, float(one != other)) for prompt, one, other in pairs]
    yield worst_of_all("tiny, tokenizer.json", "greedy answers that differ", wrong)


def compare_policies():
    """How far losses of policies, reward models and adapters are from the references'."""
    found = *policies.comparisons(), *preferences.comparisons(), *adapters.comparisons()
    for name, quantity, difference in found:
        yield Row(name, quantity, float(difference), "")


def show(rows, console):
    """Print the table."""
    table = Table("model", "quantity", "largest difference", "bound", "where", "")
    for row in rows:
        mark = "" if row.passed else "FAILED"
        bound = f"{BOUNDS[row.quantity]:.0e}"
        table.add_row(row.case, row.quantity, f"{row.worst:.1e}", bound, row.where, mark)
    console.print(table)


def main():
    """Compare everything; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--golden", action="store_true", help="write the golden numbers anew")
    parser.add_argument("--no-full", action="store_true", help="leave out the 124M model")
    options = parser.parse_args()
    console, started = Console(width=110), perf_counter()
    rows, golden = [], {}
    for case in CASES if options.no_full else [*CASES, FULL]:
        for found in compare(case):
            if isinstance(found, Row):
                rows.append(found)
            else:
                golden[case.name] = found
    rows += [*compare_tokenizers(), *compare_answers(), *compare_policies()]
    show(rows, console)
    if options.golden:
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    failed = sum(not row.passed for row in rows)
    stale = not close(golden)
    if stale:
        console.print(f"{GOLDEN.name} is not what the reference gives: add --golden")
    console.print(f"{len(rows) - failed} of {len(rows)} agree, {perf_counter() - started:.0f} s")
    return 1 if failed or stale else 0


def close(golden):
    """Whether the golden file holds these numbers to rounding."""
    stored = json.loads(GOLDEN.read_text())
    return stored.keys() == golden.keys() and all(
        np.allclose(stored[case][key], numbers, rtol=1e-4, atol=1e-5)
        for case, found in golden.items()
        for key, numbers in found.items()
    )


if __name__ == "__main__":
    sys.exit(main())
