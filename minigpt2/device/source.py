"""Source: the text of a kernel, all of it in one piece.

Why
    A file of kernels includes what several of them share.  CuPy keys its store of compiled
    kernels by their text alone, so a change to an included file would go unnoticed; and where the
    headers lie would be one more thing to tell every compiler.  So includes are put in place
    here, and every compiler is given the same text.  #line keeps lines and file names what they
    are on disk.
"""

import re
from functools import cache
from pathlib import Path

from minigpt2.shipped import shipped

INCLUDE = re.compile(r'#include "(\w+\.cuh)"\s*')


@cache
def text_of(file: str) -> str:
    """Return the text of a file in kernels/ with what it includes, each included file once."""
    return "\n".join(expanded(shipped("kernels"), file, set()))


def expanded(folder: Path, file: str, there: set[str]) -> list[str]:
    """Return a file's lines with its includes put in place, but for those that are there."""
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate((folder / file).read_text(encoding="utf-8").splitlines(), 1):
        found = INCLUDE.fullmatch(line)
        if not found:
            lines.append(line)
            continue
        if found[1] not in there:
            there.add(found[1])
            lines += expanded(folder, found[1], there)
        lines.append(f'#line {number + 1} "{file}"')
    return lines
