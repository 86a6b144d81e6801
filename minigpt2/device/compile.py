"""Compile: from a kernel's text to a library that the emulator can run.

A kernel's text is C++ but for a few names, which kernels/emulator/cuda.h defines.  So g++ compiles
it; the machine that runs it is compiled once, and both are linked.  What was made is kept under
the user's cache folder, by a hash of all that went in.

A checked build calls the machine at every access to memory.  A build for coverage counts how
often each line runs.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from minigpt2.errors import UserError
from minigpt2.shipped import shipped

KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\(([^)]*)\)\s*)?(\w+)\s*\('
)
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
LINE = re.compile(r'#line (\d+) "(.*)"')
COMMON = ["-std=gnu++17", "-fPIC", "-w", "-g", "-fvisibility=hidden", "-fno-strict-aliasing"]
FAST = ["-O2", "-march=native", "-ffp-contract=fast"]
CHECKED = [
    "-O1",
    "-fno-tree-vectorize",
    "-fno-tree-sra",
    "-ffp-contract=fast",
    "-fsanitize=thread",
    "--param",
    "tsan-instrument-func-entry-exit=0",
]
COUNTED = ["-O0", "--coverage", "-DCOUNT_LINES", "-ffp-contract=fast"]


class EmulatorError(RuntimeError):
    """A launch that a GPU would refuse, or one that went wrong."""


class CompileError(EmulatorError):
    """A kernel that does not compile."""


def compiler() -> str | None:
    """Return the C++ compiler: g++, or what CXX names; None where there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def cache_folder() -> Path:
    """Return where compiled kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "minigpt2" / "kernels"


def kernels_in(code: str) -> dict[str, str]:
    """Return the kernels of a text, each with its launch bound as it is written, or 0."""
    return {name: bound.split(",")[0] or "0" for bound, name in KERNEL.findall(code)}


def for_the_cpu(code: str) -> str:
    """Return a kernel's text as the C++ compiler is given it.

    Each kernel's shared memory gets a section of its own; dynamic shared memory becomes a pointer.
    """
    code = DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(dynamic_shared());", code)
    code = shared_in("no_kernel") + KERNEL.sub(with_section, code)
    exports = [f"EXPORT_KERNEL({name}, ({bound}))" for name, bound in kernels_in(code).items()]
    return "\n".join([code, *exports, ""])


def with_section(kernel: re.Match[str]) -> str:
    """Return a kernel's first words with a section for its shared memory before them."""
    before = kernel.string[: kernel.start()]
    directives = list(LINE.finditer(before))
    line = 1 + before.count("\n", directives[-1].end() if directives else 0)
    line += int(directives[-1][1]) - 2 if directives else 0
    file = f' "{directives[-1][2]}"' if directives else ""
    return f"\n{shared_in(kernel[2])}#line {line}{file}\n{kernel[0]}"


def shared_in(kernel: str) -> str:
    """Return the lines that let __shared__ put what follows into a kernel's section."""
    section = f'__attribute__((section("shared_{kernel}")))'
    return f"#undef __shared__\n#define __shared__ static {section}\n#line 1\n"


def build(code: str, options: tuple[str, ...], mode: list[str], ucontext: bool = False) -> Path:
    """Return the compiled library of a kernel's text.

    Raises CompileError if it does not compile, UserError if there is no compiler.
    """
    cxx = compiler()
    if not cxx:
        raise UserError("the emulator compiles kernels with g++ (or what CXX names): install it")
    machine = machine_objects(cxx, ucontext)
    defined = [option for option in options if option.startswith(("-D", "-I", "-U"))]
    text = for_the_cpu(code)
    flags = [*COMMON, *mode, *defined]

    def make(folder: Path) -> None:
        (folder / "kernel.cu").write_text(text, encoding="utf-8")
        front = shipped("kernels") / "emulator" / "cuda.h"
        run(
            cxx,
            *flags,
            "-x",
            "c++",
            "-include",
            front,
            "-c",
            "kernel.cu",
            "-o",
            "kernel.o",
            at=folder,
        )
        linked = ["--coverage"] if mode is COUNTED else []
        run(cxx, "-shared", *linked, "-o", "kernel.so", "kernel.o", *machine, at=folder)

    return kept(text, *flags, *map(str, machine), of=make) / "kernel.so"


@cache
def machine_objects(cxx: str, ucontext: bool) -> tuple[Path, ...]:
    """Return the compiled machine, which runs what kernels are compiled to."""
    folder = shipped("kernels") / "emulator"
    sources = sorted(folder.glob("*.cpp"))
    flags = [*COMMON, "-O2", *(["-DUSE_UCONTEXT"] if ucontext else [])]

    def make(place: Path) -> None:
        for source in sources:
            run(cxx, *flags, "-c", source, "-o", f"{source.stem}.o", at=place)

    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.[hc]*"))]
    place = kept(cxx, *flags, *texts, of=make)
    return tuple(place / f"{source.stem}.o" for source in sources)


def kept(*inputs: str, of: Callable[[Path], None]) -> Path:
    """Return the folder that `of` filled for these inputs, now or earlier.

    It appears whole, however many processes make it at once.
    """
    name = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:24]
    place = cache_folder() / name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            of(beside)
            with suppress(OSError):  # another process was first
                beside.rename(place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return place


def run(*command: str | Path, at: Path) -> None:
    """Run a compiler.  Raises CompileError with what it said if it fails."""
    found = subprocess.run(command, cwd=at, capture_output=True, text=True)
    if found.returncode:
        raise CompileError(found.stderr.strip() or f"{command[0]} failed")
