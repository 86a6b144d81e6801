"""Spoilt lines of ops, data and training: `python -m tests.mutation [FILE ...]`.

Each line is changed in every way that a slip of the hand could, one change at a time, and the tests
that run it must notice: 95 % of the changes in each room, and survivors.md must explain each of
the others.  Files may be named, or folders; by default it is all three rooms.
"""

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from rich.progress import Progress

from tests.mutation.mutants import mutants_of
from tests.mutation.run import KILLED, SURVIVED, run_mutants
from tests.mutation.survivors import LIST, read_list

ROOMS = ("ops", "data", "training")
LEAST = 0.95  # of the mutants of a room must be noticed
EXAMPLES = "tests/book/test_examples.py::test_the_examples_print_what_the_chapter_shows"


def files_of(names: list[str]) -> list[str]:
    """The files of names of files and folders."""
    paths = [Path(name) for name in names]
    files = [path for path in paths if path.is_file()]
    files += [file for path in paths for file in path.rglob("*.py")]
    return sorted(str(file) for file in files if file.stat().st_size)


def tests_of(room: str, files: list[str]) -> list[str]:
    """The tests of a room, and the examples of its chapters."""
    modules = [file.removeprefix("minigpt2/").removesuffix(".py") for file in files]
    with_examples = [m for m in modules if ">>> " in Path(f"minigpt2/{m}.py").read_text("utf-8")]
    return [f"tests/{room}", *(f"{EXAMPLES}[{module}]" for module in with_examples)]


def outcomes_of(room: str, files: list[str], every: int, workers: int) -> list:
    """Try every so-and-so-many-th mutant of a room's files; return pairs of mutant and outcome."""
    mutants = [mutant for file in files for mutant in mutants_of(Path.cwd(), file)][::every]
    outcomes = []
    with Progress() as progress:
        task = progress.add_task(f"spoiling {room}", total=len(mutants))

        def report(mutant, outcome):
            outcomes.append((mutant, outcome))
            progress.advance(task)

        run_mutants(Path.cwd(), files, mutants, tests_of(room, files), workers, report)
    return outcomes


def summary(name: str, outcomes, explained: int, seconds: float) -> str:
    """A line of a room's or file's numbers."""
    count, wordings = len(outcomes), sum(mutant.is_wording for mutant, _ in outcomes)
    survived = [mutant for mutant, outcome in outcomes if outcome == SURVIVED]
    ways = Counter(outcome for _, outcome in outcomes if outcome not in (KILLED, SURVIVED))
    other = sum(1 for mutant in survived if not mutant.is_wording)
    score = 1 - len(survived) / count
    without = 1 - other / max(1, count - wordings)
    more = "".join(f", {n} of them {way}" for way, n in sorted(ways.items()))
    return (
        f"{name}: {count} changes, {count - len(survived)} noticed{more}, {len(survived)} not, "
        f"{explained} of those explained: {score:.1%} ({without:.1%} without texts of errors), "
        f"{seconds / 60:.0f} min"
    )


def main():
    """Try all mutants; return 1 if too many survive, or if one does that the list does not have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="files or folders of minigpt2/ops, data, training")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--every", type=int, default=1, help="try one change of so many")
    options = parser.parse_args()
    rooms = defaultdict(list)
    for file in files_of(options.names or [f"minigpt2/{room}" for room in ROOMS]):
        rooms[file.split("/")[1]].append(file)
    listed = read_list(LIST.read_text(encoding="utf-8"))
    is_good = True
    for room, files in rooms.items():
        start = time.monotonic()
        outcomes = outcomes_of(room, files, options.every, options.workers)
        survived = Counter(mutant.key for mutant, outcome in outcomes if outcome == SURVIVED)
        unexplained = survived - listed
        expected = Counter({key: n for key, n in listed.items() if key.file in files})
        tried = Counter(mutant.key for mutant, _ in outcomes)
        gone = expected - tried if options.every == 1 else Counter()
        for key in sorted(unexplained.elements()):
            print(f"not noticed, and not in {LIST.name}: {key}", file=sys.stderr)
        for key in sorted(gone.elements()):
            print(f"in {LIST.name}, but no change any more: {key}", file=sys.stderr)
        for key in sorted(((expected & tried) - survived).elements()):
            print(f"in {LIST.name}, but noticed: {key}")
        explained = len(list((survived & listed).elements()))
        print(summary(room, outcomes, explained, time.monotonic() - start))
        is_good &= not unexplained and not gone and survived.total() <= (1 - LEAST) * len(outcomes)
    return int(not is_good)


if __name__ == "__main__":
    sys.exit(main())
