"""Compile: from a kernel's text to a library that the emulator can run.

A kernel's text is C++ apart from a few names, which kernels/emulator/cuda.h defines.  So g++
compiles it, and links it with the machine that runs it, which is compiled once.  Results are
cached in the user's cache folder, by a hash of all inputs.  A library is a program: none is loaded
from a folder that another user could have written.

A checked build calls the machine at every access to memory.  A build for coverage counts how
often each line runs.
"""

import hashlib
import os
import re
import shutil
import stat
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
COMMON = [
    "-std=gnu++17",
    "-fPIC",
    "-w",
    "-g",
    "-fno-var-tracking",  # findings name lines; where a variable is at each moment, nobody asks
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
]
FAST = ["-O1", "-g0", "-march=native", "-ffp-contract=fast"]  # compiled in half of -O2's time
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
    """A launch that a GPU would refuse, or one that failed."""


class CompileError(EmulatorError):
    """A kernel that does not compile."""


def compiler() -> str | None:
    """Return the path of the C++ compiler: g++, or what CXX names; None if there is none."""
    return shutil.which(os.environ.get("CXX") or "g++")


def cache_folder() -> Path:
    """Return the folder of the compiled kernels; raises UserError if this user has no home.

    A relative path in XDG_CACHE_HOME does not count, as its specification says.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else home() / ".cache") / "minigpt2" / "kernels"


def home() -> Path:
    """Return this user's home folder; raises UserError if there is none."""
    try:
        folder = Path.home()
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute() or os.environ.get("HOME") == "":
        text = "the emulator keeps compiled kernels in the home folder, and this user has none"
        raise UserError(f"{text}: let XDG_CACHE_HOME name a folder")
    return folder


def kernels_in(code: str) -> dict[str, str]:
    """Return the names of a text's kernels, each with its launch bound as written, or "0"."""
    return {name: bound.split(",")[0] or "0" for bound, name in KERNEL.findall(code)}


def for_the_cpu(code: str) -> str:
    """Return a kernel's text as the C++ compiler gets it.

    Each kernel's shared memory gets a section of its own; dynamic shared memory becomes a pointer.
    """
    code = DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(dynamic_shared());", code)
    code = shared_in("no_kernel") + KERNEL.sub(with_section, code)
    exports = [f"EXPORT_KERNEL({name}, ({bound}))" for name, bound in kernels_in(code).items()]
    return "\n".join([code, *exports, ""])


def with_section(kernel: re.Match[str]) -> str:
    """Return the first words of a kernel, after lines that open a section for its shared memory."""
    before = kernel.string[: kernel.start()]
    directives = list(LINE.finditer(before))
    line = 1 + before.count("\n", directives[-1].end() if directives else 0)
    line += int(directives[-1][1]) - 2 if directives else 0
    file = f' "{directives[-1][2]}"' if directives else ""
    return f"\n{shared_in(kernel[2])}#line {line}{file}\n{kernel[0]}"


def shared_in(kernel: str) -> str:
    """Return the lines after which __shared__ puts variables into a kernel's own section."""
    section = f'__attribute__((section("shared_{kernel}")))'
    return f"#undef __shared__\n#define __shared__ static {section}\n#line 1\n"


def build(code: str, options: tuple[str, ...], mode: list[str], ucontext: bool = False) -> Path:
    """Return the path of the library that a kernel's text compiles to.

    Raises CompileError if it does not compile, UserError if there is no compiler that works.
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
        header = precompiled_header(cxx, tuple(mode))
        source = ["-x", "c++", "-include", header, "-c", "kernel.cu"]
        run([cxx, *flags, *source, "-o", "kernel.o"], folder)
        coverage = ["--coverage"] if mode is COUNTED else []
        linked = [*quick_linker(), "-o", "kernel.so", "kernel.o", *machine]
        run([cxx, "-shared", *coverage, *linked], folder)

    return cached_folder([text, *flags, *machine], make) / "kernel.so"


def quick_linker() -> list[str]:
    """Return the option for gold, which links a kernel in a third of the time, if it is there."""
    return ["-fuse-ld=gold"] if shutil.which("ld.gold") else []


@cache
def machine_objects(cxx: str, ucontext: bool) -> list[str]:
    """Return the paths of the machine's object files."""
    sources = machine_files(".cpp")
    flags = [*COMMON, "-O2", *(["-DUSE_UCONTEXT"] if ucontext else [])]

    def make(folder: Path) -> None:
        try:
            for source in sources:
                run([cxx, *flags, "-c", str(source), "-o", f"{source.stem}.o"], folder)
        except CompileError as error:
            reason = str(error).partition("\n")[0]
            text = f"the emulator cannot be compiled with {cxx} ({reason})"
            raise UserError(f"{text}; let CXX name one that works") from None

    texts = [path.read_text(encoding="utf-8") for path in machine_files(".h", ".cpp")]
    objects = cached_folder([cxx, *flags, *texts], make)
    return [str(objects / f"{source.stem}.o") for source in sources]


@cache
def precompiled_header(cxx: str, mode: tuple[str, ...]) -> str:
    """Return the path of a copy of cuda.h that g++ need not parse again for each kernel.

    g++ takes `cuda.h.gch`, in the same folder, if it was made with the same options.
    """
    headers = machine_files(".h")

    def make(folder: Path) -> None:
        for header in headers:
            shutil.copy(header, folder)
        run([cxx, *COMMON, *mode, "-x", "c++-header", "cuda.h", "-o", "cuda.h.gch"], folder)

    texts = [path.read_text(encoding="utf-8") for path in headers]
    return str(cached_folder([cxx, *COMMON, *mode, *texts], make) / "cuda.h")


def machine_files(*endings: str) -> list[Path]:
    """Return the paths of the machine's files with one of these endings, in order."""
    folder = shipped("kernels") / "emulator"
    return sorted(path for path in folder.iterdir() if path.suffix in endings)


def cached_folder(inputs: list[str], make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills for these inputs; it runs only if there is none yet.

    The folder appears complete, even if several processes make it at once.  Raises UserError if
    other users can write it.
    """
    name = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:24]
    cache = cache_folder()
    try:
        cache.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (cache.parent, cache):
            folder.mkdir(mode=0o700, exist_ok=True)
            require_own(folder)
    except OSError as error:
        text = f"the folder of compiled kernels, {cache}, cannot be made: {error.strerror or error}"
        raise UserError(f"{text}; let XDG_CACHE_HOME name another place") from None
    folder = cache / name
    if not folder.exists():
        unfinished = Path(tempfile.mkdtemp(dir=cache))
        try:
            make(unfinished)
            with suppress(OSError):  # another process was first
                unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    require_own(folder)
    return folder


def require_own(folder: Path) -> None:
    """Raise UserError unless a folder, or a link to one, is this user's, and no other's to write.

    The folder above may be one that all can write, as /tmp is, where nobody can move what is
    another's.
    """
    if not hasattr(os, "getuid"):  # Windows, where a home folder is its user's alone
        return
    above, status = folder.parent.stat(), folder.stat()
    text = f"kernels are not loaded from {folder}, which"
    advice = "remove it, or let XDG_CACHE_HOME name a folder of your own"
    if {status.st_uid, folder.lstat().st_uid} != {os.getuid()}:
        raise UserError(f"{text} belongs to another user: {advice}")
    is_shared = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
    if is_shared or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(f"{text} other users can write: {advice}")


def run(command: list[str], folder: Path) -> None:
    """Run a compiler in a folder.  Raises CompileError with its messages if it fails."""
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if process.returncode:
        raise CompileError(process.stderr.strip() or f"{command[0]} failed")
