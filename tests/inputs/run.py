"""Run: a row as a process of its own, with limits of time and memory, and all that it must not do.

The limit of time is relative to a control, a command that has nothing to refuse, so that a busy
machine is no fault.
"""

import atexit
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Event, Timer
from time import monotonic
from typing import IO, NamedTuple

from tests.inputs.row import Row, as_bytes, works, write_files

ROOT = Path(__file__).parent.parent.parent
SECONDS = 10.0  # for a row, on a machine where the control takes CONTROL_SECONDS
CONTROL_SECONDS = 1.0
MEMORY = 700 << 20  # bytes at the peak
ADDRESSES = 8 << 30  # bytes that a process may ask for
HUGE = 1 << 30  # bytes of a file that is not read
HOME = TemporaryDirectory(prefix="minigpt2-home-")  # where libraries keep what they prepare
atexit.register(HOME.cleanup)
CONTROL = works("the control", "show ok.json --count 1", "entry 0")
FAULTS = ("Traceback", "panicked", "Exception ignored", "Error:", "Warning:")
CONTROL_CODES = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")
WAITING = re.compile(r".*: (.* so far|[\d,]+ of [\d,]+(, .* left)?)")  # reports/progress


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str
    seconds: float
    memory: int  # bytes at the peak
    is_stopped: bool  # by the limit of time
    left: bool  # whether processes of its group were still alive


def shell_line(row: Row) -> str:
    """The line of a shell that sets the limits, closes the streams and becomes the command."""
    largest = f"ulimit -f {row.largest // 512}; " if row.largest else ""
    closed = " ".join(f"{number}>&-" for number in row.closed)
    return f'ulimit -v {ADDRESSES // 1024}; {largest}exec "$@" {closed}'


# A process begins with the memory of the one that started it, and Linux counts that as its peak.
# So a small process starts the command; it writes the command's peak, and ends as it ended.
STARTER = """
import os, sys
place, *words = sys.argv[1:]
os.set_inheritable(int(place), False)
process = os.fork()
if not process:
    os.execvp(words[0], words)
_, status, usage = os.wait4(process, 0)
os.write(int(place), str(usage.ru_maxrss * 1024).encode())
code = os.waitstatus_to_exitcode(status)
os._exit(code) if code >= 0 else os.kill(os.getpid(), -code)
"""


def execute(row: Row, folder: Path, seconds: float) -> Outcome:
    """Run the command of a row in a folder, in a process group of its own."""
    environment = {"PATH": os.environ["PATH"], "HOME": HOME.name, "PYTHONPATH": str(ROOT)}
    environment |= {"LANG": "C.UTF-8", "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONWARNINGS": "error", **row.variables}
    starter = [sys.executable, "-S", "-E", "-c", STARTER]
    words = [sys.executable, "-m", "minigpt2", *shlex.split(row.command)]
    started, stopped = monotonic(), Event()
    with ExitStack() as files:
        typed, out, err, peak = (files.enter_context(TemporaryFile()) for _ in range(4))
        typed.write(as_bytes(row.typed))
        typed.seek(0)
        process = subprocess.Popen(
            [*starter, str(peak.fileno()), "sh", "-c", shell_line(row), "sh", *words],
            cwd=folder,
            pass_fds=[peak.fileno()],
            env=environment,
            stdin=typed,
            stdout=files.enter_context(open(row.printed, "wb")) if row.printed else out,
            stderr=err,
            start_new_session=True,
        )

        def stop() -> None:
            stopped.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = Timer(seconds, stop)
        timer.start()
        process.wait()
        timer.cancel()
        return Outcome(
            process.returncode,
            *map(text_of, (out, err)),
            seconds=monotonic() - started,
            memory=int(text_of(peak) or 0),
            is_stopped=stopped.is_set(),
            left=is_alive(process.pid),
        )


def text_of(file: IO[bytes]) -> str:
    """What was written to a file; bytes that are not UTF-8 are halves of surrogate pairs."""
    file.seek(0)
    return file.read().decode(errors="surrogateescape")


def is_alive(group: int) -> bool:
    """Whether a process group still has processes; they are ended."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def contents_of(folder: Path) -> dict[str, str]:
    """All that is in a folder, by name: a file with the sum of its contents, unless it is huge."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        is_read = S_ISREG(status.st_mode) and status.st_size < HUGE
        name = str(path.relative_to(folder))
        contents[name] = sha256(path.read_bytes()).hexdigest() if is_read else ""
    return contents


def faults_of(
    row: Row, outcome: Outcome, before: dict[str, str], after: dict[str, str]
) -> Iterator[str]:
    """Yield what is wrong with an outcome."""
    err = [line for line in outcome.err.splitlines() if not WAITING.fullmatch(line)]
    everything = "\n".join([outcome.out, *err])
    if outcome.is_stopped:
        yield f"not over after {outcome.seconds:.0f} s"
    elif outcome.code != row.code:
        yield f"exit code {outcome.code} instead of {row.code}"
    if outcome.left:
        yield "left processes behind"
    if outcome.memory > MEMORY:
        yield f"took {outcome.memory >> 20} MB"
    if row.words not in everything and 2 not in row.closed:
        yield f"does not print {row.words!r}"
    if row.code and 2 not in row.closed and not (len(err) == 1 and err[0].startswith("minigpt2: ")):
        yield f"prints {len(err)} lines on the error stream"
    if row.code and outcome.out and not (row.makes or row.largest):
        yield "prints something on standard output"
    yield from (f"prints {text!r}" for text in FAULTS if text in everything)
    if codes := CONTROL_CODES.findall(everything.replace("\n", "")):
        yield f"prints the control characters {sorted(set(codes))}"
    yield from (f"changed {name}" for name in before if after.get(name) != before[name])
    tops = {Path(name).parts[0] for name in after.keys() - before.keys()}
    yield from (f"leaves {name}" for name in sorted(tops - set(row.makes.split())))
    yield from (f"does not leave {name}" for name in row.makes.split() if name not in tops)


def timed(row: Row) -> float:
    """Run a row without a fault, and return its seconds."""
    with TemporaryDirectory(prefix="minigpt2-inputs-") as folder:
        write_files(row.files, Path(folder))
        outcome = execute(row, Path(folder), 600)
    assert outcome.code == 0, outcome.err
    return outcome.seconds


def check(row: Row, control: float) -> list[str]:
    """Run a row; return its faults, the last of them all that it printed."""
    with TemporaryDirectory(prefix="minigpt2-inputs-") as name:
        folder = Path(name)
        write_files(row.files, folder)
        before = contents_of(folder)
        outcome = execute(row, folder, SECONDS * max(1, control / CONTROL_SECONDS))
        faults = list(faults_of(row, outcome, before, contents_of(folder)))
    printed = f"{outcome.out}{outcome.err}".rstrip()
    return [*faults, printed or "(nothing is printed)"] if faults else []
