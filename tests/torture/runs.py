"""Runs to break: how they are started, and whether two of them ended alike."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigpt2.data.tokenizer import open_tokenizer
from minigpt2.inference.model import Model, save_model
from minigpt2.model.config import GPT2Config
from minigpt2.model.initialisation import initialise
from minigpt2.model_folders import checkpoints_of
from minigpt2.shipped import shipped
from tests.strict_json import strict_json, strict_lines
from tests.torture.traced import START, Marks

ROOT = Path(__file__).parents[2]
TIMES = {"seconds", "supervised_per_second", "rows_per_second", "peak_memory"}
JSON = ("answers.json", "summary.json", "settings.json")
HOW = {"resume", "resume_anyway", "started_in"}  # settings that say how a run was started
POLL = 0.0005  # seconds between two looks at a session
LONGEST = 300  # seconds that a session may take


class Kind(NamedTuple):
    """A kind of run: its command line, and its model."""

    name: str
    options: tuple[str, ...] = ()
    width: int = 16
    layers: int = 2
    scale: float = 1.0  # of the embedding: large enough, it overflows in float16


OPTIONS = (
    *("train", "../questions.json", "--model", "../model", "--out", "run", "--resume"),
    *("--test", "../test.json", "--max-new-tokens", "6", "--samples", "1", "--seed", "3"),
    *("--batch-size", "5", "--micro-batch", "2", "--dropout", "0.1", "--prompt-weight", "0.3"),
    *("--validation", "0.25", "--evaluate-every", "2", "--patience", "2", "--save-every", "2"),
    *("--learning-rate", "0.1", "--log-every", "4"),
)
EMULATED = ("--steps", "4", "--device", "emulated")
KINDS = [
    Kind("cpu", ("--steps", "24")),  # it stops early, and its best step is not among the last
    Kind("recomputing", ("--steps", "24", "--recompute", "true", "--learning-rate", "0.03")),
    Kind("adapters", ("--steps", "24", "--lora-rank", "2")),
    Kind("emulated", EMULATED, layers=1),
    Kind(
        "float16",  # it overflows; without dropout, its steps are captured in graphs
        (*EMULATED, "--precision", "float16", "--dropout", "0"),
        width=32,
        layers=1,
        scale=1000.0,
    ),
]


def make_inputs(folder, kind):
    """Write the model and the questions of a kind of run into a folder."""
    folder.mkdir(parents=True)
    tokenizer = open_tokenizer(shipped("weights/tiny"))
    config = GPT2Config(tokenizer.n_vocab, 96, n_embd=kind.width, n_layer=kind.layers, n_head=1)
    parameters = initialise(config, np.random.default_rng(0))
    parameters["wte.weight"][...] *= kind.scale
    save_model(folder / "model", Model(parameters, tokenizer, None))
    entries = [{"instruction": f"Count to {n}.", "output": f"1 to {n}"} for n in range(20)]
    (folder / "questions.json").write_text(json.dumps(entries))
    (folder / "test.json").write_text(json.dumps(entries[:3]))


class Session:
    """A process that starts a run in a folder, or continues it."""

    def __init__(self, kind, folder):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.marks = Marks(folder / "marks")
        self.marks.phase, self.marks.writing = START, False
        command = ["-m", "tests.torture.traced", str(folder / "marks"), *OPTIONS, *kind.options]
        with (folder / "printed").open("ab") as out, (folder / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                preexec_fn=default_handlers,
            )
        self.started = time.monotonic()

    def wait(self, seconds=LONGEST):
        """Wait until the process ends, at most so long; returns its exit code, else None."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(max(0.0, seconds))

    def wait_until(self, condition):
        """Wait until something is true of the session; returns whether it was, before the end."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(POLL)
        return False

    @property
    def seconds(self):
        """The time since the process was started."""
        return time.monotonic() - self.started

    @property
    def errors(self):
        """What it wrote on its error stream."""
        return (self.folder / "errors").read_text()


def default_handlers():
    """Undo what the process that starts another one ignores."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


def without_times(value):
    """A value of JSON without what depends on the clock."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES | HOW}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def results_of(folder):
    """All that a finished run leaves, by name, without what depends on the clock."""
    run = folder / "run"
    newest = checkpoints_of(run)[-1]
    results = {path.name: path.read_bytes() for path in sorted(newest.iterdir())}
    state = without_times(strict_json(results.pop("state.json")))
    state.pop("checksum")
    for name in ("log_bytes", "log_checksum"):  # of a log with times
        state["notes"].pop(name)
    if (merged := run / "merged").exists():
        results |= {f"merged/{path.name}": path.read_bytes() for path in merged.iterdir()}
    page = (run / "report.html").read_text()
    return results | {
        "the newest checkpoint": newest.name,
        "state.json": state,
        "log.jsonl": without_times(strict_lines((run / "log.jsonl").read_text())),
        "report.html": re.sub(r"<svg.*?</svg>|<tr><td>resume.*", "", page, flags=re.S),
        **{name: without_times(strict_json((run / name).read_text())) for name in JSON},
    }


def differences(found, expected):
    """The names of results in which two runs differ."""
    names = found.keys() | expected.keys()
    return sorted(name for name in names if found.get(name) != expected.get(name))


def leftovers(folder):
    """Hidden files that a finished run should not have."""
    return sorted(path.name for path in (folder / "run").rglob(".*"))
