"""NVRTC: a kernel's text compiled for a GPU, on a machine without one.

CuPy compiles with NVRTC, not with nvcc, and their languages differ: so the options are those that
CuPy itself passes, through its own binding.  This needs no driver.  ptxas reports the resources of
each kernel.
"""

import re
from typing import NamedTuple

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_\d+'.*?"
    r"(?P<stack>\d+) bytes stack frame, "
    r"(?P<out>\d+) bytes spill stores, (?P<back>\d+) bytes spill loads"
    r"\s*ptxas info\s*: Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


class Resources(NamedTuple):
    """What one kernel uses: registers of a thread, bytes of a block, bytes that did not fit."""

    registers: int
    shared: int
    spilled: int
    stack: int


class Unusable(Exception):
    """A text that does not compile, or not without a warning."""


def missing():
    """The reason why nothing can be compiled here; empty if it can."""
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # no CuPy, or CuPy finds no NVRTC
        return f"NVRTC is not available: {str(error).splitlines()[0]}"
    return ""


def log_of(text, options, architecture):
    """The compiler's log for a text.  Raises Unusable if it does not compile."""
    from cupy._core import core
    from cupy_backends.cuda.libs import nvrtc

    cupys = (*core.assemble_cupy_compiler_options(tuple(options)), "-ftz=true")
    program = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        chosen = (f"-arch=sm_{architecture}", "--device-as-default-execution-space")
        nvrtc.compileProgram(program, (*cupys, "--ptxas-options=-v", *chosen))
        return nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError:
        raise Unusable(nvrtc.getProgramLog(program).strip()) from None
    finally:
        nvrtc.destroyProgram(program)


def resources_in(log):
    """The resources of each kernel, from ptxas' log.  Raises Unusable if it has a warning."""
    warnings = [line for line in log.splitlines() if "warning" in line.lower()]
    if warnings:
        raise Unusable("\n".join(warnings))
    resources = {}
    for entry in ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        resources[entry["name"]] = Resources(
            int(entry["registers"]),
            int(shared[1]) if shared else 0,
            int(entry["out"]) + int(entry["back"]),
            int(entry["stack"]),
        )
    return resources
