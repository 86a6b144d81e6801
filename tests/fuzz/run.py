"""Run: a reader, input after input, in a process of its own that has limits.

    python -m tests.fuzz.run data 600 0 runs/fuzz/data     600 seconds from seed 0
    python -m tests.fuzz.run data FILE                     one input again

The folder gets `corpus/`, inputs that reach what no other did, with which the next run begins;
`findings/`; and two files for the process that watches this one: the last input, and the counts.
"""

import json
import os
import sys
from contextlib import nullcontext
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from warnings import simplefilter

BETWEEN = 1.0  # seconds between two writings of the counts
atheris = import_module("atheris") if find_spec("atheris") else None


class Record:
    """The files of a run, for the process that watches."""

    def __init__(self, folder: Path, seconds: float):
        for name in ("corpus", "findings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.folder, self.end, self.written = folder, monotonic() + seconds, 0.0
        self.last = os.open(folder / "last", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)

    def note(self, content: bytes) -> None:
        """Write an input before it is tried: should this process die, it is known."""
        os.pwrite(self.last, content, 0)
        os.truncate(self.last, len(content))

    def write(self, fuzzer) -> None:
        """Write the counts and findings, once in a while; end this process when time is over."""
        now = monotonic()
        if now < min(self.written + BETWEEN, self.end):
            return
        self.written = now
        findings = {}
        for place, (outcome, content) in fuzzer.findings.items():
            name = sha256(content).hexdigest()[:12]
            (self.folder / "findings" / name).write_bytes(content)
            findings[place] = outcome.text, name
        counts = {
            "counts": fuzzer.counts,
            "places": sorted(fuzzer.places),
            "findings": findings,
        }
        hidden = self.folder / ".counts"
        hidden.write_text(json.dumps(counts))
        hidden.rename(self.folder / "counts.json")
        if now >= self.end:
            os._exit(0)


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> None:
    """Try inputs until the time is over; this process ends then."""
    # Atheris follows the branches of what is imported here.
    with atheris.instrument_imports(include=["minigpt2"]) if atheris else nullcontext():
        from tests.fuzz.attempt import limit_memory
        from tests.fuzz.fuzzer import Fuzzer
        from tests.fuzz.readers import READERS
    record = Record(folder, seconds)
    with TemporaryDirectory(prefix="minigpt2-fuzz-") as work:
        fuzzer = Fuzzer(READERS[name], seed, Path(work))
        for content in fuzzer.seeds:
            (folder / "corpus" / sha256(content).hexdigest()).write_bytes(content)
        limit_memory()

        def try_input(content: bytes) -> None:
            record.note(content)
            fuzzer.attempt(content)
            record.write(fuzzer)

        if atheris:
            with_atheris(fuzzer, try_input, seed, folder)
        while True:
            try_input(fuzzer.changed(fuzzer.rng.choice(fuzzer.corpus)))


def with_atheris(fuzzer, try_input, seed, folder):
    """Let Atheris choose the inputs, and change half of them."""

    def change(content: bytes, largest: int, seed: int) -> bytes:
        if seed % 2:
            return atheris.Mutate(content, largest)
        if seed % 4:  # near what is accepted, which inputs that were refused are not
            content = fuzzer.rng.choice(fuzzer.seeds)
        return fuzzer.changed(content)[:largest]

    options = {
        "max_len": fuzzer.largest,
        "seed": seed + 1,
        "rss_limit_mb": 0,  # these limits are set here
        "timeout": 100_000,
        "report_slow_units": 100_000,
        "artifact_prefix": f"{folder}/",
    }
    words = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items())]
    atheris.Setup([*words, str(folder / "corpus")], try_input, custom_mutator=change)
    atheris.Fuzz()


def main(name, *rest):
    """Run a reader for a while, or try one input."""
    simplefilter("ignore", RuntimeWarning)  # as the command line does
    if len(rest) == 3:
        seconds, seed, folder = rest
        fuzz(name, float(seconds), int(seed), Path(folder))
    from tests.fuzz.attempt import attempt
    from tests.fuzz.readers import READERS

    with TemporaryDirectory(prefix="minigpt2-fuzz-") as work:
        print(attempt(READERS[name], Path(rest[0]).read_bytes(), Path(work) / "input"))


if __name__ == "__main__":
    main(*sys.argv[1:])
