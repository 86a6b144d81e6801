"""Includes: the text of a kernel in one piece.

Why
    A kernel's file includes others with what several kernels share.  CuPy looks a compiled kernel
    up by the text that it was given, so it would not notice a change in an included file; and
    every compiler would have to know the folder of the headers.  So includes are expanded here,
    and every compiler gets the same text.  #line directives keep the lines and file names of the
    originals in messages.
"""

import re
from functools import cache
from pathlib import Path

from minigpt2.shipped import shipped

INCLUDE = re.compile(r'#include "(\w+\.cuh)"\s*')


@cache
def text_of(file: str) -> str:
    """Return the text of a file in kernels/, its includes expanded, each included file once."""
    return "\n".join(expanded_lines(shipped("kernels"), file, set()))


def expanded_lines(folder: Path, file: str, included: set[str]) -> list[str]:
    """Return a file's lines with its includes expanded, and add their names to `included`.

    A file that is already in `included` is not included again.
    """
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate((folder / file).read_text(encoding="utf-8").splitlines(), 1):
        include = INCLUDE.fullmatch(line)
        if not include:
            lines.append(line)
            continue
        if include[1] not in included:
            included.add(include[1])
            lines += expanded_lines(folder, include[1], included)
        lines.append(f'#line {number + 1} "{file}"')
    return lines
