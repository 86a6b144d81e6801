"""Fuzz all readers in turn, and print a table; the exit code is 1 if there are findings.

python -m tests.fuzz                              all readers, ten minutes each
python -m tests.fuzz --minutes 0.5 data settings  these, half a minute each
"""

import argparse
import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep

import psutil
from rich.console import Console
from rich.table import Table

from tests.fuzz.readers import READERS

STUCK = 60.0  # seconds of the processor without a new count: an input that no alarm ends
BRANCHES = re.compile(r"cov: (\d+)")  # in what Atheris prints


def fuzz(name, seconds, folder):
    """Run a reader; start it again where an input ends the process.  Return what it came to."""
    end, deaths, counts, places, findings, branches = monotonic() + seconds, 0, {}, set(), {}, 0
    while (left := end - monotonic()) > 1 and deaths < 20:
        run = [sys.executable, "-m", "tests.fuzz.run", name, str(left), str(deaths), str(folder)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "counts.json").unlink(missing_ok=True)
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(run, stdout=log, stderr=log)
            death = watched(process, folder)
        some = read_counts(folder)
        for kind, count in some.get("counts", {}).items():
            counts[kind] = counts.get(kind, 0) + count
        places |= set(some.get("places", ()))
        findings |= some.get("findings", {})
        log = (folder / "log").read_text(errors="replace")
        branches = max([branches, *map(int, BRANCHES.findall(log))])
        if death:
            deaths += 1
            content = (folder / "last").read_bytes() if (folder / "last").exists() else b""
            file = sha256(content).hexdigest()[:12]
            (folder / "findings" / file).write_bytes(content)
            findings[death] = [f"{death}: {log.strip().splitlines()[-1:]}", file]
    return counts, len(places), branches, findings


def watched(process, folder):
    """Wait for a process; return how it ended, "" if well."""
    inputs, spent = -1, 0.0
    while process.poll() is None:
        sleep(0.5)
        now = sum(read_counts(folder).get("counts", {}).values())
        try:
            used = psutil.Process(process.pid).cpu_times().user
        except psutil.Error:
            continue
        if now != inputs:
            inputs, spent = now, used
        elif used - spent > STUCK:
            process.kill()
            process.wait()
            return f"no end after {STUCK:.0f} s"
    return f"exit code {process.returncode}" if process.returncode else ""


def read_counts(folder):
    """The counts that a process has written last."""
    try:
        return json.loads((folder / "counts.json").read_text())
    except FileNotFoundError:
        return {}


def main():
    """Fuzz the readers that are named; return whether something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("readers", nargs="*", metavar="READER")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"))
    words, found = parser.parse_args(), False
    table = Table("reader", "minutes", "inputs", "accepted", "refused", "reasons", "branches")
    table.add_column("findings")
    for name in words.readers or READERS:
        folder = words.folder / name
        counts, places, branches, findings = fuzz(name, words.minutes * 60, folder)
        numbers = sum(counts.values()), counts.get("accepted", 0), counts.get("refused", 0), places
        cells = [f"{number:,}" for number in (*numbers, branches)]
        table.add_row(name, f"{words.minutes:g}", *cells, str(len(findings)))
        print(f"{name}: {cells[0]} inputs, {len(findings)} findings", flush=True)
        for place, (text, file) in findings.items():
            print(f"    {place}: {text}")
            print(f"        python -m tests.fuzz.run {name} {folder}/findings/{file}")
        found |= bool(findings)
    Console(width=120).print(table)
    return found


if __name__ == "__main__":
    sys.exit(main())
