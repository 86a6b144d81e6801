"""Torture: kill whole runs at random moments, let them continue, and compare the bits.

    python -m tests.torture             as `make torture`
    python -m tests.torture --seed 7    other moments

Each run is started as a user starts it, with the same command line each time.  It is killed, again
and again, until it comes to its end.  Then its weights, moments, log, answers and summary are
compared with those of a run that nobody disturbed.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from tests.torture.runs import (
    KINDS,
    Session,
    differences,
    leftovers,
    make_inputs,
    results_of,
)
from tests.torture.traced import PHASES, START, Marks

KILL = signal.SIGKILL
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
USR1 = signal.SIGUSR1
PLAN = {  # by kind of run: how many of each signal
    "cpu": {KILL: 200, **dict.fromkeys((*ENDING, USR1), 20)},
    "recomputing": {KILL: 20},
    "adapters": {KILL: 20, signal.SIGTERM: 5},
    "emulated": {KILL: 20},
    "float16": {KILL: 20, signal.SIGTERM: 5, USR1: 5},
}
WRITING = "writing a checkpoint"
A_WRITE = 0.01  # seconds
STARTING = "Fatal Python error: init_"


class Broken(Exception):
    """A run that did not end as it should have."""


class Torture:
    """Runs of one kind: the one that nobody disturbs, and what the others are compared with."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder
        self.where = Counter()  # (signal, phase): how often
        self.runs, self.failed = 0, False
        self.lock = Lock()
        make_inputs(folder, kind)
        session = Session(kind, folder / "whole")
        session.wait_until(lambda: session.marks.phase != START)
        self.start = session.seconds
        if session.wait() != 0:
            raise Broken(f"the run that nobody disturbs: {session.errors}")
        self.seconds = session.seconds
        self.micro_batches = session.marks.micro_batches
        self.expected = results_of(folder / "whole")

    def break_run(self, number, count, seed):
        """Send a signal so many times, to a run after the other; each comes to its end."""
        rng, sent = random.Random(f"{seed} {self.kind.name} {number.name}"), 0
        while sent < count:
            with self.lock:
                if self.failed:
                    return
                self.runs += 1
                folder = self.folder / f"broken-{self.runs}"
            try:
                sent += self._whole_run(number, folder, rng, count - sent)
            except BaseException:
                self.failed = True
                raise
            shutil.rmtree(folder)

    def _whole_run(self, number, folder, rng, most):
        """Disturb a run at most so often, until it ends; returns how often it was disturbed."""
        sent = 0
        while True:
            session = Session(self.kind, folder)
            try:
                if sent == most or not self._moment_comes(session, rng):
                    self._require_end(session, 0)
                    if sent == 0 < most:  # as long as a whole run takes now, two at a time
                        self.seconds = (self.seconds + session.seconds) / 2
                    self._compare(number, folder, sent)
                    return sent
                phase = WRITING if session.marks.writing else PHASES[session.marks.phase]
                session.process.send_signal(number)
                if number == USR1:
                    session.wait(rng.random() * self.seconds)
                    session.process.kill()
                code = session.wait()
                if code or number == USR1:
                    sent += 1
                    self.where[number, phase] += 1
                if code == 0:  # it had just ended
                    self._compare(number, folder, sent)
                    return sent
                if number in ENDING:
                    self._require_end(session, 128 + number)
            finally:
                session.process.kill()
                session.process.wait()

    def _moment_comes(self, session, rng):
        """Wait for a random moment of a session; returns whether it came before the end.

        It is one of its whole life, one after its start, or one at which it writes a checkpoint.
        """
        choice = rng.choice(("life", "work", WRITING))
        finished = session.marks.micro_batches / self.micro_batches
        left = (self.seconds - self.start) * max(0.1, 1 - finished)
        if choice == "life":
            return session.wait(rng.random() * (self.start + left)) is None
        work = rng.random() * left
        if not session.wait_until(lambda: session.marks.phase != START):
            return False
        if session.wait(work if choice == "work" else work / 2) is not None:
            return False
        if choice == WRITING and not session.wait_until(lambda: session.marks.writing):
            return False
        return choice != WRITING or session.wait(rng.random() * A_WRITE) is None

    def _require_end(self, session, expected):
        """Fail unless a session ended with an exit code; before and after a run, signals end it."""
        code, errors = session.wait(), session.errors
        is_over = "run run is finished: " in errors  # nothing was left to continue
        early = expected and code == 128 - expected and (not errors or is_over)
        if expected == 128 + signal.SIGINT and session.marks.phase == START:
            # Until `main` is called, Python ends in its own words, while it starts or imports.
            early |= errors.startswith(STARTING)
            early |= code == -signal.SIGINT and errors.endswith("KeyboardInterrupt\n")
        stopped = not expected or errors.endswith("minigpt2: stopped\n")
        if not early and (code != expected or not stopped):
            raise Broken(f"{session.folder}: exit code {code}, not {expected}: {errors}")

    def _compare(self, number, folder, sent):
        """Fail unless a run that was disturbed left what the other one left.

        What a signal stops in words loses nothing: no micro-batch is computed twice, but for one
        each time that a device has computed ahead (training/ahead).
        """
        found, expected = results_of(folder), self.expected
        faults = differences(found, expected) + leftovers(folder)
        twice = Marks(folder / "marks").micro_batches - self.micro_batches
        ahead = sent if "--device" in self.kind.options else 0
        if number in ENDING and not 0 <= twice <= ahead:
            faults.append(f"{self.micro_batches + twice} micro-batches, not {self.micro_batches}")
        if faults:
            raise Broken(f"{folder}, after {sent} {number.name}: {', '.join(faults)}")


def memory_folder():
    """A folder in memory, where there is one: what a SIGKILL leaves needs no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main():
    """Torture runs of every kind; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tests.torture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[kind.name for kind in KINDS])
    parser.add_argument("--share", type=float, default=1.0, help="of the signals")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    wanted = parser.parse_args()
    print(f"the moments follow from seed {wanted.seed}", flush=True)
    folder, started = (
        Path(tempfile.mkdtemp(prefix="torture-", dir=memory_folder())),
        time.monotonic(),
    )
    failed = False
    for kind in KINDS:
        if wanted.kind in (None, kind.name):
            failed |= not torture(kind, folder / kind.name, wanted)
    print(f"{time.monotonic() - started:.0f} s in all", flush=True)
    if not failed and not wanted.keep:
        shutil.rmtree(folder)
    elif failed:
        print(f"the folders are in {folder}")
    return int(failed)


def torture(kind, folder, wanted):
    """Torture runs of one kind, two at a time; returns whether all ended with the same bits."""
    started = time.monotonic()
    try:
        jobs = Torture(kind, folder)
        counts = {n: max(1, round(c * wanted.share)) for n, c in PLAN[kind.name].items()}
        with ThreadPoolExecutor(2) as pool:
            parts = [(n, c // 2 + half * (c % 2)) for n, c in counts.items() for half in (0, 1)]
            work = [
                pool.submit(jobs.break_run, n, c, f"{wanted.seed}/{k}")
                for k, (n, c) in enumerate(parts)
            ]
            for one in work:
                one.result()
    except Broken as error:
        print(f"{kind.name}: {error}", flush=True)
        return False
    for number, count in counts.items():
        places = {phase: n for (sent, phase), n in sorted(jobs.where.items()) if sent == number}
        listed = ", ".join(f"{n} {phase}" for phase, n in places.items())
        print(f"{kind.name}: {count} {number.name} ({listed})", flush=True)
    seconds = time.monotonic() - started
    print(f"{kind.name}: {jobs.runs} runs ended with the bits of the whole one; {seconds:.0f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())
