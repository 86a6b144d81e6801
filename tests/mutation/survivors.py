"""The list of mutants that no test can notice, each with the reason: survivors.md.

A heading names the file, one below it the function, a paragraph gives the reason, and indented
blocks after it are the changes, as `diff` shows them, without line numbers.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).parent / "survivors.md"
OUTSIDE = "outside of functions"


class Key(NamedTuple):
    """What tells one mutant from others, as long as its own lines stay what they are."""

    file: str
    function: str  # Class.method; empty outside of all functions
    before: tuple[str, ...]  # the lines that go
    after: tuple[str, ...]  # the lines that come

    def __str__(self):
        lines = [f"    - {line}" for line in self.before] + [f"    + {line}" for line in self.after]
        return "\n".join([f"{self.file} {self.function or OUTSIDE}", *lines])


def read_list(text: str) -> Counter[Key]:
    """The mutants of a list; each must follow a reason."""
    mutants, file, function, reason, block = Counter(), "", "", "", ([], [])
    for line in [*text.splitlines(), ""]:
        if line.startswith("    "):
            block["-+".index(line[4])].append(line[6:])
            continue
        if any(block):
            assert reason, f"no reason: {block}"
            mutants[Key(file, function, tuple(block[0]), tuple(block[1]))] += 1
            block = [], []
        if line.startswith("## "):
            file = line[3:]
        elif line.startswith("### "):
            function, reason = line[4:].replace(OUTSIDE, ""), ""
        elif line:
            reason = line
    return mutants
