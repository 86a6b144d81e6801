"""The rules of the book: table of contents, imports, rooms, equations, libraries, commands.

Every rule is a function from source text to a list of faults, each with its file and line.
"""

import ast
import sys
from typing import NamedTuple

from book.parse import (
    PACKAGE,
    contents_of,
    equations_of,
    imports_of,
    is_listed,
    lazy_lines,
    targets_of,
)

ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]


def at(module, line, what):
    """A fault as it is reported."""
    return f"{PACKAGE}/{module}.py:{line}: {what}"


# (a) The table of contents lists every module once, in parts, and numbers the chapters.


def table_faults(sources):
    """Modules that are missing, twice there, misnumbered, untitled or in no part."""
    faults, contents = [], contents_of(sources)
    modules = [entry.module for entry in contents.entries]
    for module in filter(is_listed, sources):
        if modules.count(module) != 1:
            faults.append(at(module, 1, f"{modules.count(module)} times in the table of contents"))
    chapters = [entry for entry in contents.entries if entry.number is not None]
    for place, (line, _, number, module, _) in enumerate(chapters, 1):
        if number != place:
            what = f"chapter {number}, {module}, comes as number {place}"
            faults.append(at("__init__", line, what))
    for line, part, _, module, title in contents.entries:
        if part is None:
            faults.append(at("__init__", line, f"{module} is in no part"))
        if module not in sources:
            faults.append(at("__init__", line, f"{module} has no file"))
            continue
        opening = ast.get_docstring(ast.parse(sources[module])) or ""
        if not opening.startswith((f"{title}:", f"{title}.")):
            faults.append(at(module, 1, f"docstring does not open with {title!r} and : or ."))
    return faults + part_faults(contents)


def part_faults(contents):
    """Parts out of order, without a title, or without a module; an appendix that is not last."""
    faults, parts = [], contents.parts
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        expected = ["Appendix"] if last and part.name == "Appendix" else ROMAN[place : place + 1]
        if [part.name] != expected:
            faults.append(at("__init__", part.line, f"part {part.name} where {expected} is next"))
        if not part.title:
            faults.append(at("__init__", part.line, f"part {part.name} has no title"))
        if not any(entry.part == part for entry in contents.entries):
            faults.append(at("__init__", part.line, f"part {part.name} has no module"))
    return faults


# (b) A module imports only modules above it in the table; between two rooms arrows go one way.


class Arrow(NamedTuple):
    """An import of one module by another, both listed in the table of contents."""

    module: str
    line: int
    text: str  # what the import names
    target: str


def read_arrows(sources):
    """(arrows between modules, faults of imports that name nothing in the package).

    __main__ files are left out: they may import all.
    """
    arrows, faults = [], []
    for module, text in sources.items():
        for imported in imports_of(module, text) if not module.endswith("__main__") else ():
            if imported.module.split(".")[0] != PACKAGE:
                continue
            targets = targets_of(imported, sources)
            if targets is None:
                faults.append(at(module, imported.line, f"imports {imported}, which is no module"))
                continue
            arrows += [Arrow(module, imported.line, str(imported), t) for t in sorted(targets)]
    return arrows, faults


def is_above(target, module, places):
    """Whether a module may import a target.

    A folder's __init__ may import what the folder holds, and what is above all that it holds;
    that of the package itself, which runs before every module, nothing.
    """
    if is_listed(module):
        return places[target] < places[module]
    folder = module.removesuffix("__init__")
    held = [place for listed, place in places.items() if folder and listed.startswith(folder)]
    return (folder and target.startswith(folder)) or places[target] < min(held, default=0)


def import_faults(sources):
    """Imports of a module that comes later.

    A file that the table does not list yet is table_faults' to report.  The package's __init__ may
    import all, but only once it is asked for it.
    """
    places, lazy = contents_of(sources).places, set(lazy_lines(sources["__init__"]))
    arrows, faults = read_arrows(sources)
    for module, line, text, target in arrows:
        if is_listed(module) and module not in places:
            continue
        if module == "__init__" and line in lazy:
            continue
        if not is_above(target, module, places):
            faults.append(at(module, line, f"imports {text}, but {target} comes later"))
    return faults


def room_of(module):
    """The room of a module: a top-level folder or file."""
    return module.split("/")[0]


def reachable(start, neighbours):
    """All that can be reached from a start, itself only by a circle."""
    reached, waiting = set(), list(neighbours.get(start, ()))
    while waiting:
        if (room := waiting.pop()) not in reached:
            reached.add(room)
            waiting += neighbours.get(room, ())
    return reached


def room_faults(sources):
    """Circles of rooms: one fault for each arrow between two rooms that lies on a circle."""
    first = {}
    for arrow in read_arrows(sources)[0]:
        ends = room_of(arrow.module), room_of(arrow.target)
        if ends[0] not in (ends[1], "__init__"):
            first.setdefault(ends, arrow)
    neighbours = {}
    for room, other in first:
        neighbours.setdefault(room, set()).add(other)
    return [
        at(arrow.module, arrow.line, f"{room} imports {other}, which leads back to {room}")
        for (room, other), arrow in sorted(first.items())
        if room in reachable(other, neighbours)
    ]


# (c) Equations are defined once, in order, in a numbered chapter, and used.


def equation_faults(sources):
    """Equations that are misnumbered, not defined, or that nothing uses."""
    faults, numbers = [], contents_of(sources).numbers
    files = {module: equations_of(text) for module, text in sources.items()}
    known = {equation for file in files.values() for _, equation in file.defined}
    for module, file in files.items():
        own, expected = numbers.get(module), 1
        for line, (chapter, number) in file.defined:
            if own is None:
                faults.append(at(module, line, f"defines ({chapter}.{number}), but is no chapter"))
            elif (chapter, number) != (own, expected):
                what = f"defines ({chapter}.{number}) where ({own}.{expected}) is next"
                faults.append(at(module, line, what))
            expected = number + 1
        here = {equation for _, equation in file.defined}
        for line, (chapter, number) in file.cited + file.mentioned:
            is_tag = chapter in numbers.values() or (line, (chapter, number)) in file.cited
            if is_tag and (chapter, number) not in (here if chapter == own else known):
                faults.append(at(module, line, f"({chapter}.{number}) is not defined"))
        used = {equation for _, equation in file.cited + file.mentioned}
        for line, (chapter, number) in file.defined:
            if (chapter, number) not in used:
                faults.append(at(module, line, f"nothing uses ({chapter}.{number})"))
    return faults


# (d) The engine is NumPy alone, and nothing unpickles.

FORBIDDEN = {"torch", "transformers", "jax", "pickle"}
ENGINE = (
    "backend",
    "blas",
    "parallel",
    "ops/",
    "errors",
    "shipped",
    "model/",
    "tensors",
    "weights",
    "memory",
    "training/",
    "inference/",
    "device/",
)
# cuda is the finder of NVIDIA's libraries, which comes with CuPy; NumPy's bfloat16 is ml_dtypes'.
# isal computes what zlib computes, which is there without it.
ONLY_IN = {
    "cupy": "backend",
    "ml_dtypes": "training/precision",
    "cuda": "device/cublaslt",
    "isal": "checksum",
}
LIBRARIES = {PACKAGE, "numpy", "safetensors", "tiktoken"} | set(sys.stdlib_module_names)


def library_faults(sources):
    """Imports of libraries that have no place in the file."""
    faults = []
    for module, text in sources.items():
        for imported in imports_of(module, text):
            library = imported.module.split(".")[0]
            engine = module.startswith(ENGINE) and library not in LIBRARIES
            if library in ONLY_IN:
                misplaced = module != ONLY_IN[library]
            else:
                misplaced = library in FORBIDDEN or engine
            if misplaced:
                faults.append(at(module, imported.line, f"imports {library}"))
    return faults


# (e) A sub-command is a module of commands/ with the name that the user types.

SHARED_BY_COMMANDS = {
    "commands/align_exams": "what the models of align answer to the held-out questions",
    "commands/align_results": "the numbers of align, and its tables",
    "commands/align_stages": "the runs of which align consists",
    "commands/dataset": "the one opening of a data set",
    "commands/decoding": "the settings of the commands that let a model write",
    "commands/pair_run": "the setup of the commands on preference pairs",
    "commands/policy_run": "the setup of the commands that learn on policy",
    "commands/policy_settings": "the settings that these commands have in common",
    "commands/policy_steps": "what these commands do alike",
    "commands/rewards": "what scores answers",
    "commands/pair_steps": "what the commands on preference pairs print and do in a run",
    "commands/pair_settings": "the settings that the commands on preference pairs have in common",
    "commands/run_paths": "files that a run names, from the folder in which it is resumed",
    "commands/lora_settings": "the settings of adapters, which train and plan have",
    "commands/plan_settings": "the settings of plan, in a file of their own as they are many",
    "commands/plan_times": "what plan prints of the time and the operations of a run",
    "commands/resume": "which run continues, and from which checkpoint",
    "commands/run_settings": "the settings that all commands which train have in common",
    "commands/session": "the folder, the log and the checkpoints of a run",
    "commands/setup": "the one setup of a run",
    "commands/tests": "the questions that a run answers before and after",
    "commands/tuning_run": "what all commands which tune a model do with a run",
    "commands/train_settings": "the settings of train, in a file of their own as they are many",
}


def command_faults(names, sources):
    """Sub-commands without a module of their name, and modules of commands/ that are none."""
    modules = {f"commands/{name}" for name in names}
    missing = sorted(modules - sources.keys())
    faults = [at(module, 1, "a sub-command that has no file") for module in missing]
    present = {m for m in sources if m.startswith("commands/") and is_listed(m)}
    others = sorted(present - modules - SHARED_BY_COMMANDS.keys())
    faults += [at(module, 1, "is not a sub-command") for module in others]
    gone = sorted(SHARED_BY_COMMANDS.keys() - present)
    return faults + [at(module, 1, "is listed as shared, and has no file") for module in gone]
