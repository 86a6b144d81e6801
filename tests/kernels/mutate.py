"""Spoilt kernels: `python -m tests.kernels.mutate [--update]`.

It removes each barrier and each wait for copies in turn, lets each such wait leave one group more,
makes each test of a bound true, moves each bound by one, and passes over tiles of which one row
sees something.  Each change must be noticed: by the emulator's checks, by a launch that cannot
finish, or by a wrong result.  What no test notices, no test proves.  mutations.md in this folder
lists all changes.
"""

import argparse
import os
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from rich.progress import track

from minigpt2.device import launch
from minigpt2.device.compile import CompileError, EmulatorError
from minigpt2.device.emulator import Machine
from minigpt2.device.includes import text_of
from minigpt2.shipped import shipped
from tests.kernels.jobs import JOBS, STORED
from tests.kernels.support import SHORT, assert_close, exactly, run_on

TABLE = Path(__file__).parent / "mutations.md"
ENDS = r"(?:keys\.end|ends)\[key\]|min_end|largest_end|length"
SIZE = rf"N|C|F|P|V|W|R|BLOCKS|decayed|\(long long\)N \* H|row|{ENDS}"
DECODED = "D|S|COLUMNS|LANES|numbers|end|position|splits|limit"  # where tokens are decoded
SUMMED = "A|K|last|stop"  # of column_sum.cu and cross_entropy.cu
SEEN = re.compile(r"(max_end(?:\[\w+\])?|candidate) > (\w+)")  # whether a tile is seen
BARRIER = re.compile(r"__sync(?:threads|warp)\(\);")
WAIT = re.compile(r"wait_for_copies<([^;]+)>\(\);")
BEGINNING = re.compile(  # of a definition
    r'^(?:__device__ [^(;]*?(?P<function>\w+)\(|extern "C"|(?:template .*)?struct )', re.M
)
HEAD = """# Spoilt kernels

Written by `make mutate-kernels`. Each line is one change of a kernel, and how it is noticed.

| compiled file | line | change | noticed as |
| --- | --- | --- | --- |"""
JOBS_OF = {
    "adamw.cu": "adamw",
    **{
        f"attention{kind}{part}.cu": "attention"
        for kind in ("", "_mma")
        for part in ("", "_dkv", "_dq")
    },
    "attention_delta.cu": "attention",
    "attention_mma_dq_stored.cu": STORED,
    "column_sum.cu": ("column_sums", "layer_norm, 5"),
    "cross_entropy.cu": "cross_entropy",
    "decode_attention.cu": "decode",
    "embedding.cu": "embedding",
    "gelu.cu": "gelu",
    "layer_norm.cu": "layer_norm",
    "grad_norm.cu": "adamw",
    "linear_row.cu": ("linear_row", "logits_row"),
    "sample.cu": "sample",
    "sum_rows.cu": "sum_rows",
}


KINDS_OF = {  # of the numbers that a file's jobs run on, where float is not all
    **{
        f"attention_mma{part}.cu": (SHORT["float16"],) for part in ("", "_dq", "_dkv", "_dq_stored")
    },
    "cross_entropy.cu": (SHORT["float16"], None),
}


class Mutant(NamedTuple):
    """A change of one place in a file's text."""

    file: str
    line: str  # file:line, by the text's own #line directives
    what: str
    start: int
    stop: int
    instead: str


def place_of(text, position):
    """The file and the line of a position in a text."""
    before = text[:position]
    directive = list(re.finditer(r'#line (\d+) "(.*)"\n', before))[-1]
    return f"{directive[2]}:{int(directive[1]) + before.count(chr(10), directive.end())}"


def can_run(text, position):
    """Whether a position is in code that runs.

    It is not in a comment, in a definition of the preprocessor, or in a function that the file
    includes and does not call.
    """
    line = text[text.rfind("\n", 0, position) + 1 : position]
    if "//" in line or line.startswith("#"):
        return False
    name = list(BEGINNING.finditer(text, 0, position))[-1]["function"]
    return not name or len(re.findall(rf"^(?!//).*\b{name}[(<]", text, re.M)) > 1


def mutants_of(file):
    """Every mutant of a file and of what it includes."""
    text = text_of(file)

    def mutant(what, start, stop, instead):
        return Mutant(file, place_of(text, start), what, start, stop, instead)

    for barrier in BARRIER.finditer(text):
        if can_run(text, barrier.start()):
            yield mutant(f"without {barrier[0][:-1]}", *barrier.span(), "")
    for wait in WAIT.finditer(text):
        if can_run(text, wait.start()):
            yield mutant(f"without {wait[0][:-1]}", *wait.span(), "")
            more = f"wait_for_copies<({wait[1]}) + 1>();"
            yield mutant(f"{wait[0][:-1]} leaves one group more", *wait.span(), more)
    for seen in SEEN.finditer(text):
        if can_run(text, seen.start()):
            yield mutant(f"{seen[0]} moved by one", *seen.span(), f"{seen[0]} + 1")
    sizes = f"{SIZE}|rows" if file.startswith("attention") else f"{SIZE}|{SUMMED}|{DECODED}"
    for bound in re.finditer(rf"(<=|>=|<|>) ({sizes})(?=[\s;,)&?|])", text):
        if not can_run(text, bound.start()):
            continue
        sign, size = bound[1], bound[2]
        moved = {"<": "<= {}", ">=": "> {}", "<=": "<= {} + 1", ">": ">= {}"}[sign].format(size)
        yield mutant(f"{sign} {size} moved to {moved}", *bound.span(), moved)
        line = text[text.rfind("\n", 0, bound.start()) + 1 : text.find("\n", bound.end())]
        if not re.search(r"\bfor \(", line):
            always = f"{sign} 1e18"  # true for <, a way out that is not taken for >
            yield mutant(f"{sign} {size} never tested", *bound.span(), always)


def noticed(mutant):
    """How a mutant is noticed; empty if it is not."""
    text = text_of(mutant.file)
    spoilt = text[: mutant.start] + mutant.instead + text[mutant.stop :]

    def text_for(file):
        return spoilt if file == mutant.file else text_of(file)

    on = Machine(check=True)
    names = [name for name in JOBS if name.startswith(JOBS_OF[mutant.file])]
    with mock.patch.object(launch, "text_of", text_for):
        for name, dtype in product(names, KINDS_OF.get(mutant.file, (None,))):
            bound = 2e-6 if dtype is None else 2.0**-9
            try:
                results = run_on(on, JOBS[name], dtype)
                if on.findings:
                    return on.findings[0].kind
                assert_close(results, JOBS[name](rounded_to(dtype)), bound)
            except CompileError:
                raise  # not a spoilt kernel, but a mistake of this program
            except EmulatorError as error:
                return re.sub(r"^\w+: (line \d+: )?|,? by thread.*", "", str(error).splitlines()[0])
            except AssertionError:
                return "a wrong result"
    return ""


def rounded_to(dtype):
    """What puts a reference's arrays: rounded as the kernel's are, then exact."""
    return lambda array: exactly(array if dtype is None else array.astype(dtype))


def with_notice(mutant):
    """A mutant with what notices it."""
    return mutant, noticed(mutant)


def written(results):
    """The text of the table."""
    rows = [f"| {m.file} | {m.line} | {m.what} | {notice} |" for m, notice in results]
    return "\n".join([HEAD, *rows, ""])


def without_lines(table):
    """A table's rows without what moves when a comment is written: the line's number, the kind."""
    rows = re.findall(r"^\| (\S+) \| (\S+):\d+ \| (.*?) \|", table, flags=re.M)
    return sorted(rows)


def main():
    """Try all mutants; returns 1 if one is not noticed, or if the table is not that of now."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the table anew")
    update = parser.parse_args().update
    files = sorted(path.name for path in shipped("kernels").glob("*.cu"))
    untouched = [Mutant(file, "", "nothing", 0, 0, "") for file in files]
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        with ProcessPoolExecutor(2) as pool:
            for mutant, notice in pool.map(with_notice, untouched):
                assert not notice, f"{mutant.file} as it is: {notice}"
            results = list(track(pool.map(with_notice, mutants), "spoiling kernels", len(mutants)))
    table = written(results)
    if update:
        TABLE.write_text(table, encoding="utf-8")
    missed = [mutant for mutant, notice in results if not notice]
    for mutant in missed:
        print(f"not noticed: {mutant.file} {mutant.line}: {mutant.what}", file=sys.stderr)
    same = without_lines(table) == without_lines(TABLE.read_text(encoding="utf-8"))
    if not same:
        print("mutations.md is not of these kernels: add --update", file=sys.stderr)
    print(f"{len(mutants)} spoilt kernels, {len(mutants) - len(missed)} noticed")
    return int(bool(missed) or not same)


if __name__ == "__main__":
    sys.exit(main())
