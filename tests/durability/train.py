"""`minigpt2 train` on a model that is as small as can be, as a program that writes checkpoints."""

import json
import os
from contextlib import ExitStack, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

import numpy as np

from minigpt2.cli import main
from minigpt2.errors import UserError
from minigpt2.inference.model import Model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model_folders import checkpoints_of
from minigpt2.tensors import TENSORS
from minigpt2.training.checkpoint import OPTIMIZER
from minigpt2.training.checkpoint_reader import open_checkpoint
from minigpt2.training.checkpoint_writer import CheckpointWriter
from tests.data.small import MERGES, small_tokenizer

STEPS, KEEP = 3, 2
NAMES = ("runs",)  # one of which an error names
DISK = 3 * 4096  # bytes that one disk has more than the one before
LAST = "answers.json"  # that a run writes after its last checkpoint
# What differs from run to run, in the log.
TIMES = {"seconds", "supervised_per_second", "rows_per_second", "peak_memory"}
OPTIONS = f"""
    --template qa --steps {STEPS} --save-every 1 --keep {KEEP} --batch-size 2 --validation 0.25
    --evaluate-every 1 --samples 1 --max-new-tokens 2 --learning-rate 0.01 --log-every 1
""".split()


def make_inputs(folder):
    """Write a base model and a data set into a folder."""
    tokenizer = small_tokenizer(MERGES)
    config = GPT2Config(tokenizer.n_vocab, n_positions=32, n_embd=4, n_layer=1, n_head=1)
    parameters = initialise(config, np.random.default_rng(0))
    save_model(folder / "base", Model(parameters, tokenizer, None))
    entries = [{"instruction": f"Say {i}.", "input": "", "output": str(i)} for i in range(8)]
    (folder / "data.json").write_text(json.dumps(entries))


@cache
def inputs():
    """The folder of the base model and the data set."""
    folder = Path(mkdtemp(prefix="durability-"))
    make_inputs(folder)
    return folder


def write(root, relies_on=lambda path: None, *, in_background=False):
    """Begin a run in root/runs/x, or continue it; return the exit code.

    Its checkpoints are written one call after the other, or in the background of its steps.
    """
    run = Path(root) / "runs" / "x"
    if is_finished(run):
        return 0
    arguments = ["train", inputs() / "data.json", "--model", inputs() / "base", "--out", run]
    with ExitStack() as patches:
        patches.enter_context(relying(relies_on))
        patches.enter_context(patch("minigpt2.reports.run_page.run_curves", no_picture))
        if not in_background:
            patches.enter_context(patch.object(CheckpointWriter, "save", save_and_wait))
        return main([*map(str, arguments), *OPTIONS, "--resume"])


def save_and_wait(writer, *arguments, save=CheckpointWriter.save):
    """Write a checkpoint before the run continues: the calls have the same order each time."""
    save(writer, *arguments)
    writer.finish()


def no_picture(*arguments, **options):
    """Draw nothing: that takes longer than all else, and writes no file."""
    return ""


def is_finished(run):
    """Whether the summary says that the run has ended."""
    path = run / "summary.json"
    return path.exists() and "done" in json.loads(path.read_text())


class relying(ExitStack):
    """A context in which it is known what `train` relies on: what its functions have written."""

    def __init__(self, relies_on):
        super().__init__()
        self.relies_on = relies_on

    def __enter__(self):
        writer, log = "minigpt2.training.checkpoint_writer", "minigpt2.reports.run_log"
        self.note(f"{writer}.write_checkpoint", lambda path, *others, **options: [path])
        for module in (log, "minigpt2.outputs"):
            self.note(f"{module}.write_texts", lambda texts, **options: texts)
        return self

    def note(self, name, paths_of):
        """Note the paths that a function has written when it returns."""
        module, function = name.rsplit(".", 1)
        real = getattr(__import__(module, fromlist=[function]), function)

        def noting(*arguments, **options):
            result = real(*arguments, **options)
            for path in paths_of(*arguments, **options):
                self.relies_on(path)
            return result

        self.enter_context(patch(name, noting))


def faults(root):
    """What is wrong with the checkpoints that are visible."""
    run = Path(root) / "runs" / "x"
    for path in checkpoints_of(run) if run.is_dir() else ():
        try:
            open_checkpoint(path)
        except UserError as error:
            yield str(error)


@cache
def reference():
    """What a run leaves that nothing has interrupted."""
    folder = Path(mkdtemp(prefix="durability-"))
    with redirect_stdout(StringIO()):
        assert write(folder) == 0
    return result(folder)


def result(root):
    """What a run leaves, but for times."""
    run = Path(root) / "runs" / "x"
    newest = checkpoints_of(run)[-1]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "names": sorted(os.listdir(run)),
        "checkpoint": newest.name,
        "weights": (newest / TENSORS).read_bytes(),
        "moments": (newest / OPTIMIZER).read_bytes(),
        "log": [{k: v for k, v in entry.items() if k not in TIMES} for entry in log],
        "answers": json.loads((run / "answers.json").read_text()),
    }


def differences(root, aside=None):
    """How the end of a run differs from one that nothing has interrupted.

    `aside` is a checkpoint that was damaged, and has another name now.
    """
    expected, actual = reference(), result(root)
    names = [name for name in actual["names"] if not (aside and name.endswith(f"-{aside}"))]
    actual = {**actual, "names": names}
    for name in expected:
        if expected[name] != actual[name]:
            yield f"the {name} of the run differ: {actual[name]!r:.200}"
