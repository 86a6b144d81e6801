"""The rules of the book, read from its source: chapters, imports, equations, shapes, libraries.

Every rule is a function from source text to a list of faults, each with its file and line.  The
package must have none, and for every rule a broken book of a few lines must have some: a reader of
source that finds nothing because it reads nothing would pass the first half.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from minigpt2.ops.attention import cached_tile_plan
from tests.gradcheck import CHAPTERS, cases_of, sizes_of
from tests.gradients import draw
from tests.ops.cases import SIZES

PACKAGE = "minigpt2"
ROOT = Path(__file__).parent.parent / PACKAGE


def read_sources(root=ROOT):
    """Source text by module path: 'ops/layer_norm', 'ops/__init__', 'backend', ..."""
    paths = sorted(root.rglob("*.py"))
    return {path.relative_to(root).with_suffix("").as_posix(): path.read_text() for path in paths}


def at(module, line, what):
    """A fault as it is reported."""
    return f"{PACKAGE}/{module}.py:{line}: {what}"


def is_chapter(module):
    """Whether a module is a chapter; __init__ and __main__ files are not."""
    return module.rsplit("/")[-1] not in ("__init__", "__main__")


# (a) The table of chapters in minigpt2/__init__.py is the list of modules.


class Chapter(NamedTuple):
    """One line of the table: its place in the reading order, and its number if it has one."""

    place: int
    number: int | None
    module: str
    title: str


def chapters_of(sources):
    """The table of chapters in the package's docstring."""
    lines = (ast.get_docstring(ast.parse(sources["__init__"]), clean=False) or "").splitlines()
    rows = (re.fullmatch(r"\s+(\d+|·)\s\s+(\w+(?:/\w+)*)\s\s+(\S.*?)\s*", line) for line in lines)
    return [
        Chapter(place, int(row[1]) if row[1] != "·" else None, row[2], row[3])
        for place, row in enumerate(filter(None, rows), 1)
    ]


def numbers_of(sources):
    """The place in the reading order of each module in the table."""
    return {chapter.module: chapter.place for chapter in chapters_of(sources)}


def chapter_numbers(sources):
    """The number of each module that has one: only these define equations."""
    return {c.module: c.number for c in chapters_of(sources) if c.number is not None}


def table_faults(sources):
    """Chapters that are missing, twice there, misnumbered, untitled or in the wrong folder."""
    faults, chapters = [], chapters_of(sources)
    modules = [chapter.module for chapter in chapters]
    for module in filter(is_chapter, sources):
        if modules.count(module) != 1:
            faults.append(at(module, 1, f"{modules.count(module)} times in the table of chapters"))
    expected = 0
    for _, number, module, title in chapters:
        expected += number is not None
        if number is not None and number != expected:
            faults.append(
                at("__init__", 1, f"chapter {number}, {module}, comes as number {expected}")
            )
        if module not in sources:
            faults.append(at("__init__", 1, f"chapter {number}, {module}, has no file"))
        else:
            opening = ast.get_docstring(ast.parse(sources[module])) or ""
            if not opening.startswith((f"{title}:", f"{title}.")):
                faults.append(at(module, 1, f"docstring does not open with {title!r} and : or ."))
    return faults


# (b) A chapter imports only from chapters with a smaller number.


class Import(NamedTuple):
    """`import module` or `from module import name`, with the module's full name."""

    line: int
    module: str
    name: str | None


def imports_of(module, text):
    """Every import of a module, also inside functions, with relative ones resolved."""
    folder = [PACKAGE, *module.split("/")[:-1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(node.lineno, origin, alias.name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            for argument in node.args[:1]:
                yield Import(node.lineno, getattr(argument, "value", "?"), None)


def origins(one, sources):
    """The chapters that an import from the package reaches; None if there is no such thing."""
    numbers = numbers_of(sources)
    path = one.module.split(".")[1:]
    inside = "/".join([*path, one.name]) if one.name else None
    for whole in filter(None, ("/".join(path), inside)):
        if whole in numbers:
            return {whole}
    if inside and (below := {m for m in numbers if m.startswith(inside + "/")}):
        return below
    if not path:
        return set() if one.name == "__version__" else None
    folder = "/".join(path)
    for behind in imports_of(f"{folder}/__init__", sources.get(f"{folder}/__init__", "")):
        if one.name and behind.name == one.name and behind.module.startswith(PACKAGE + "."):
            return origins(behind, sources)
    return {m for m in numbers if m.startswith(folder + "/")} or None


def place_of(module, numbers):
    """A chapter's number; a folder's __init__ stands after the folder's last chapter."""
    if is_chapter(module):
        return numbers[module]
    folder = module.removesuffix("__init__")
    return max((n + 1 for m, n in numbers.items() if folder and m.startswith(folder)), default=0)


def import_faults(sources):
    """Imports of a chapter that a reader has not met.

    __main__ files may import all; a file that has no number yet is table_faults' to report.
    """
    faults, numbers = [], numbers_of(sources)
    for module, text in sources.items():
        if module.endswith("__main__") or (is_chapter(module) and module not in numbers):
            continue
        for one in imports_of(module, text):
            if one.module.split(".")[0] != PACKAGE:
                continue
            said = f"{one.module}.{one.name}" if one.name else one.module
            reached = origins(one, sources)
            if reached is None:
                faults.append(at(module, one.line, f"imports {said}, which is no chapter"))
                continue
            for later in sorted(m for m in reached if numbers[m] >= place_of(module, numbers)):
                faults.append(at(module, one.line, f"imports {said}, chapter {numbers[later]}"))
    return faults


# (c) Equations are defined once, in order, and used.

TAG = re.compile(r"(?<!\w)\((\d+)\.(\d+)\)")


class Equations(NamedTuple):
    """(line, (chapter, number)) for each equation that a file defines, mentions, and cites.

    Two spaces set the number of an equation apart; a sentence may end a line with (k.n), too.
    """

    defined: list  # a docstring's line that ends in (k.n), set apart
    mentioned: list  # (k.n) elsewhere in a docstring
    cited: list  # (k.n) in a comment


def docstring_lines(text):
    """(line number, line) of every docstring, as they stand in the source."""
    lines = text.splitlines()
    holders = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, holders) and ast.get_docstring(node) is not None:
            string = node.body[0].value
            yield from enumerate(lines[string.lineno - 1 : string.end_lineno], string.lineno)


def comments_of(text):
    """(line number, comment) of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def equations_of(text):
    """The equations of one file."""
    found = Equations([], [], [])
    for line, words in sorted(docstring_lines(text)):
        for tag in TAG.finditer(words):
            apart = words[: tag.start()].endswith("  ") and tag.end() == len(words.rstrip())
            equation = (int(tag[1]), int(tag[2]))
            (found.defined if apart else found.mentioned).append((line, equation))
    for line, comment in comments_of(text):
        found.cited.extend((line, (int(tag[1]), int(tag[2]))) for tag in TAG.finditer(comment))
    return found


def equation_faults(sources):
    """Equations that are misnumbered, not defined, or that nothing uses."""
    faults, numbers = [], chapter_numbers(sources)
    files = {module: equations_of(text) for module, text in sources.items()}
    known = {equation for file in files.values() for _, equation in file.defined}
    for module, file in files.items():
        own = numbers.get(module, file.defined[0][1][0] if file.defined else None)
        expected = 1
        for line, (chapter, number) in file.defined:
            if (chapter, number) != (own, expected):
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


# (d) A shape in a trailing comment is the real shape.

SHAPES = re.compile(r"#\s*(\([^()]*\)(?:,\s*\([^()]*\))*)")


class Shaped(NamedTuple):
    """An assignment or a return statement whose shapes a comment tells."""

    first: int
    last: int
    targets: list  # source text of what is assigned; empty for a return
    shapes: list  # one list of dimensions for each target, or one for all


def shapes_in(comment):
    """The shapes that a comment begins with: '# (N, 3C), (C,)' -> [['N', '3*C'], ['C']]."""
    told = SHAPES.match(comment)
    shapes = []
    for inside in re.findall(r"\(([^()]*)\)", told[1]) if told else ():
        if inside.strip() and "," not in inside:
            return []
        dimensions = [dimension.strip() for dimension in inside.split(",") if dimension.strip()]
        dimensions = [re.sub(r"(\d)\s*(?=[A-Za-z])", r"\1*", one) for one in dimensions]
        shapes.append([re.sub(r"\s*[·×]\s*", "*", one) for one in dimensions])
    try:
        for expression in (part for shape in shapes for one in shape for part in one.split("=")):
            ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        return []
    return shapes


def targets_of(node):
    """Source text of everything that an assignment assigns, in order."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    flat = [t.elts if isinstance(t, ast.Tuple | ast.List) else [t] for t in targets]
    return [ast.unparse(target).lstrip("*") for elements in flat for target in elements]


def read_shapes(text):
    """(statements, fields, strays): where shapes are told; strays stand where no test reads them.

    Fields map the name of a NamedTuple to the line and shape of each of its fields.
    """
    told = {line: shapes_in(comment) for line, comment in comments_of(text)}
    told = {line: shapes for line, shapes in told.items() if shapes}
    statements, fields, read = [], {}, set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases):
            own = [f for f in node.body if isinstance(f, ast.AnnAssign) and f.end_lineno in told]
            fields[node.name] = {f.target.id: (f.end_lineno, told[f.end_lineno][0]) for f in own}
            read.update(field.end_lineno for field in own)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return):
            lines = [n for n in range(node.lineno, node.end_lineno + 1) if n in told]
            if lines and lines[0] not in read:
                targets = [] if isinstance(node, ast.Return) else targets_of(node)
                shapes = told[lines[0]]
                statements.append(Shaped(node.lineno, node.end_lineno, targets, shapes))
                read.update(lines)
    return statements, fields, sorted(set(told) - read)


class Watch:
    """Runs code and compares the arrays in its frames with the shapes that its comments tell.

    A name that `sizes` does not know, such as the rows of a block, stands for what it is first
    found to be, and keeps that within one call; a loop that comes back to the line begins anew.
    """

    def __init__(self, file, text, sizes):
        self.file, self.sizes = file, sizes
        self.statements, self.fields, _ = read_shapes(text)
        self.frames = {}  # frame -> [statement that is being run, names bound: (value, line)]
        self.checked, self.faults = set(), []

    def run(self, call, *arguments):
        """Call with the watch on."""
        before = sys.gettrace()
        sys.settrace(self.enter)
        try:
            call(*arguments)
        finally:
            sys.settrace(before)
            self.frames.clear()

    def enter(self, frame, event, value):
        """Watch the functions of the file, but not the comprehensions within them."""
        code = frame.f_code
        if code.co_filename != self.file or code.co_name.startswith("<"):
            return None
        self.frames.setdefault(frame, [None, {}])
        return self.step

    def step(self, frame, event, value):
        """A statement is done when the next line, or the return, lies outside of it."""
        running, bound = self.frames[frame]
        line = frame.f_lineno if event == "line" else 0
        if event in ("line", "return"):
            if running and not running.first <= line <= running.last:
                self.done(frame, running, bound, value)
                running = None
            starts = [s for s in self.statements if s.first <= line <= s.last]
            self.frames[frame][0] = starts[0] if starts else running
        if event == "return":
            self.look_into(value)
        return self.step

    def done(self, frame, statement, bound, returned):
        """Compare everything that a finished statement assigned or returned."""
        for name in [name for name, (_, line) in bound.items() if line >= statement.first]:
            del bound[name]
        values = [look_up(target, frame) for target in statement.targets]
        if not statement.targets:
            values = list(returned) if isinstance(returned, tuple) else [returned]
            values = values[: len(statement.shapes)]
        several = len(statement.shapes) > 1
        shapes = statement.shapes if several else statement.shapes * len(values)
        names = statement.targets or ["the result"] * len(values)
        if len(shapes) != len(values):
            self.report(statement.first, f"{len(shapes)} shapes for {len(values)} values")
        for name, value, shape in zip(names, values, shapes, strict=False):
            self.compare(statement.first, name, value, shape, bound)

    def report(self, line, what):
        """Keep a fault, once."""
        if (fault := f"{self.file}:{line}: {what}") not in self.faults:
            self.faults.append(fault)

    def look_into(self, value):
        """Compare the fields of every named tuple of the file that a function returns."""
        for one in (value, *value) if isinstance(value, tuple) else ():
            bound, fields = {}, self.fields.get(type(one).__name__, {})
            own = set(fields) <= set(getattr(one, "_fields", ()))  # another chapter's has its name
            for field, (line, shape) in fields.items() if own else ():
                self.compare(line, field, getattr(one, field), shape, bound)

    def compare(self, line, name, value, shape, bound):
        """Report a shape that is not the one told."""
        if getattr(value, "shape", None) is None:
            return
        self.checked.add(line)
        fits = len(shape) == len(value.shape)
        for dimension, size in zip(shape, value.shape, strict=False):
            fits = fits and self.fits(dimension, size, line, bound)
        if not fits:
            known = {**self.sizes, **{name: size for name, (size, _) in bound.items()}}
            told = ", ".join(shape)
            meant = ", ".join(str(evaluate(one.split("=")[0], known)) for one in shape)
            self.report(line, f"{name} is told to be ({told}) = ({meant}), and is {value.shape}")

    def fits(self, dimension, size, line, bound):
        """Whether an axis has the size told; a name met for the first time is bound to it."""
        for expression in dimension.split("="):
            expression = expression.strip()
            if expression.isidentifier() and expression not in {**self.sizes, **bound}:
                bound[expression] = (size, line)
            known = {**self.sizes, **{name: size for name, (size, _) in bound.items()}}
            if evaluate(expression, known) not in (size, "?"):
                return False
        return True


def evaluate(expression, known):
    """The value of a dimension, or '?' if it has a name that is not known yet."""
    names = {node.id for node in ast.walk(ast.parse(expression.strip())) if hasattr(node, "id")}
    return eval(expression, {"__builtins__": {}}, known) if names <= set(known) else "?"


def look_up(target, frame):
    """The value that an assignment's target has now, or None if it has none."""
    try:
        return eval(target, frame.f_globals, frame.f_locals)
    except (NameError, AttributeError, IndexError, KeyError):
        return None


def own_modules(case, sources):
    """The modules that a case shows: an op's own, or all of the folder that the case is about."""
    name = case.name.split(",")[0]
    own = [module for module in filter(is_chapter, sources) if module.split("/")[-1] == name]
    if own and not own[0].startswith("ops/"):
        folder = own[0].split("/")[0] + "/"
        return [module for module in filter(is_chapter, sources) if module.startswith(folder)]
    return own


def watch_case(case, sizes, module, text):
    """The watch on a module after the forward and the backward pass of one case."""
    watch = Watch(str(ROOT / f"{module}.py"), text, sizes)
    arguments, dy = draw(case)
    cached_tile_plan.cache_clear()  # what is remembered runs no line
    watch.run(case.forward, *arguments)
    watch.run(case.backward, dy, arguments)
    return watch


# (e) The engine is NumPy alone, and nothing unpickles.

FORBIDDEN = {"torch", "transformers", "jax", "pickle"}
ENGINE = (
    "backend",
    "ops/",
    "errors",
    "shipped",
    "device/",
    "model/",
    "memory",
    "tensors",
    "weights",
    "parallel",
    "blas",
    "training/schedule",
)
LIBRARIES = {PACKAGE, "numpy", "safetensors", "tiktoken"} | set(sys.stdlib_module_names)


def library_faults(sources):
    """Imports of libraries that have no place in the file."""
    faults = []
    for module, text in sources.items():
        for one in imports_of(module, text):
            library = one.module.split(".")[0]
            engine = module.startswith(ENGINE) and library not in LIBRARIES
            cupy = library == "cupy"
            if library in FORBIDDEN or (cupy and module != "backend") or (engine and not cupy):
                faults.append(at(module, one.line, f"imports {library}"))
    return faults


# The package follows the rules.

SOURCES = read_sources()
CASES = [(case, sizes_of(module)) for module in CHAPTERS for case in cases_of(module)]


def none(faults):
    """Fail with all faults, one a line, if there are any."""
    assert not faults, "\n" + "\n".join(faults)


def test_every_module_is_a_chapter():
    none(table_faults(SOURCES))


def test_a_chapter_imports_only_what_has_been_read():
    none(import_faults(SOURCES))


def test_equations_are_defined_in_order_and_used():
    none(equation_faults(SOURCES))


def test_libraries_stay_in_their_place():
    none(library_faults(SOURCES))


@pytest.fixture(scope="module")
def watches():
    """(module, watch) for every case and every module that it shows."""
    return [
        (module, watch_case(case, sizes, module, SOURCES[module]))
        for case, sizes in CASES
        for module in own_modules(case, SOURCES)
    ]


def test_shapes_are_as_told(watches):
    none([fault for _, watch in watches for fault in watch.faults])


def test_every_shape_that_an_op_tells_is_compared_with_a_real_one(watches):
    compared = {(module, line) for module, watch in watches for line in watch.checked}
    missed = []
    for module in (module for module in SOURCES if module.startswith("ops/")):
        statements, fields, strays = read_shapes(SOURCES[module])
        told = {statement.first for statement in statements}.union(strays)
        told |= {line for shapes in fields.values() for line, _ in shapes.values()}
        unread = [line for line in sorted(told) if (module, line) not in compared]
        missed += [at(module, line, "a shape that no test reads") for line in unread]
    none(missed)
    assert len(compared) >= 60


# A broken book does not.

BOOK = {
    "__init__": '''"""A book.

    N  rows

     1  backend      Backend
     2  ops/twice    Twice
     3  ops/thrice   Three times
     4  cli          Commands
"""

__version__ = "1"
''',
    "__main__": "from .cli import main\n",
    "backend": '"""Backend: which library."""\nimport os\nimport numpy as np\n',
    "ops/__init__": "from .twice import twice\n",
    "ops/twice": '''"""Twice: x and x again.

    y = x + x                 (2.1)
    dx = 2 dy, from (2.1)     (2.2)
    z = y / 2                 (2.3)
    z is x, which follows from (2.3)
    by counting.
"""
from minigpt2.backend import np

def twice(x):
    """Return y."""
    return x + x  # (N, C)  (2.1)

def twice_backward(dy):
    return 2 * dy  # (N, C)  (2.2)
''',
    "ops/thrice": '''"""Three times. And no more."""
from . import twice
from .twice import twice as double
''',
    "cli": '''"""Commands: what to type."""
from . import __version__
import rich
from .ops import twice
''',
}


def broken(module, old, new):
    """The book with one passage replaced, or one more file where there is nothing to replace."""
    assert old in BOOK.get(module, "")
    return {**BOOK, module: BOOK.get(module, "").replace(old, new, 1)}


@pytest.mark.parametrize(
    "faults_of", [table_faults, import_faults, equation_faults, library_faults]
)
def test_a_sound_book_has_no_faults(faults_of):
    none(faults_of(BOOK))


def one_fault(faults, *words):
    """Fail unless there is one fault, and it has all these words."""
    assert len(faults) == 1, faults
    assert all(word in faults[0] for word in words), faults


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("ops/more", "", '"""More: x."""'), ["ops/more.py", "0 times"]),
        (("__init__", "3  ops/thrice ", "3  ops/twice  "), None),
        (("__init__", "     4  cli ", "     5  cli "), ["chapter 5", "number 4"]),
        (("__init__", "  cli          Commands", "  cli       Comands"), ["cli.py", "Comands"]),
        (("cli", "Commands:", "Commands and"), ["cli.py", "Commands"]),
        (("__init__", '"""\n\n__v', '     5  cly   C\n"""\n\n__v'), None),
    ],
    ids=["missing", "twice", "number", "title", "opening", "no file"],
)
def test_a_broken_table_is_reported(change, words):
    faults = table_faults(broken(*change))
    assert faults
    if words:
        one_fault(faults, *words)


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        ("ops/twice", "from minigpt2.ops.thrice import thrice", ["ops/twice.py:17", "chapter 3"]),
        ("ops/twice", "from .thrice import thrice", ["chapter 3"]),
        ("ops/twice", "from . import thrice", ["chapter 3"]),
        ("ops/twice", "import minigpt2.cli", ["chapter 4"]),
        ("ops/twice", "from ..cli import main", ["chapter 4"]),
        ("ops/twice", "def f():\n    from ..cli import main", ["py:18", "chapter 4"]),
        ("ops/twice", "from importlib import import_module\nimport_module('minigpt2.cli')", ["4"]),
        ("backend", "from .ops import twice", ["chapter 2"]),
        ("backend", "from minigpt2.ops import twice", ["chapter 2"]),
        ("backend", "from . import ops", ["chapter 2", "chapter 3"]),
        ("backend", "from .ops import __doc__", ["chapter 2", "chapter 3"]),
        ("ops/__init__", "from ..cli import main", ["chapter 4"]),
        ("ops/twice", "from .twice import twice", ["chapter 2"]),
        ("cli", "import minigpt2", ["no chapter"]),
        ("cli", "from minigpt2 import twice", ["no chapter"]),
        ("cli", "from .nothing import twice", ["no chapter"]),
        ("__init__", "from .backend import np", ["chapter 1"]),
    ],
)
def test_an_import_from_a_later_chapter_is_reported(module, line, words):
    faults = "\n".join(import_faults({**BOOK, module: BOOK[module] + line + "\n"}))
    assert all(word in faults for word in words), faults


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("ops/twice", "return x + x  # (N, C)  (2.1)", "return x  # (2.4)"), ["py:13", "(2.4)"]),
        (("ops/twice", "(2.2)\n    z", "(2.3)\n    z"), None),
        (("ops/twice", "  (2.3)", "  (2.4)"), None),
        (("ops/twice", "x again.\n", "x again, as in (1.7) it was.\n"), ["(1.7)", "not defined"]),
        (
            ("ops/twice", "which follows from (2.3)", "which follows"),
            ["py:5", "nothing uses (2.3)"],
        ),
        (("ops/twice", "dy  # (N, C)  (2.2)", "dy  # (N, C)"), ["py:4", "nothing uses (2.2)"]),
        (("ops/twice", "again.\n\n    y = x + x                 (2.1)", "again.\n"), None),
        (("ops/thrice", "more.", "more.\n    y = 3 x  (2.1)\n"), None),
        (("ops/twice", "from (2.1)     (2.2)", "from (2.1) (2.2)"), None),
        (("backend", "os\n", "os  # (2.9)\n"), ["backend.py:2", "(2.9)", "not defined"]),
        (("ops/thrice", "twice\n", "twice  # (3.1) (2.1)\n"), ["thrice.py:2", "(3.1)"]),
    ],
)
def test_a_broken_equation_is_reported(change, words):
    faults = equation_faults(broken(*change))
    assert faults
    if words:
        one_fault(faults, *words)


@pytest.mark.parametrize(
    ("module", "line", "library"),
    [
        ("ops/twice", "import torch.nn as nn", "torch"),
        ("cli", "from transformers import GPT2", "transformers"),
        ("cli", "def f():\n    import jax", "jax"),
        ("backend", "import pickle", "pickle"),
        ("ops/twice", "import cupy as cp", "cupy"),
        ("cli", "import importlib\nimportlib.import_module('cupy')", "cupy"),
        ("ops/twice", "import scipy.special", "scipy"),
        ("backend", "import rich", "rich"),
        ("training/schedule", "import rich", "rich"),
        ("model/block", "from huggingface_hub import x", "huggingface_hub"),
    ],
)
def test_a_library_out_of_place_is_reported(module, line, library):
    faults = library_faults({**BOOK, module: BOOK.get(module, "") + line + "\n"})
    one_fault(faults, f"imports {library}")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backend", "import cupy"),
        ("weights", "import safetensors.numpy"),
        ("model/block", "import tiktoken"),
        ("cli", "import rich"),
        ("training/step", "import rich"),
    ],
)
def test_a_library_in_its_place_is_not_reported(module, line):
    assert library_faults({module: line}) == []


SNIPPET = """
import numpy as np
from typing import NamedTuple

class Saved(NamedTuple):
    x: object  # (N, C)
    w: object  # (C,)

def halves(x):
    for i in range(0, len(x), 4):
        part = x[i : i + 4]  # (B, C)
        for j in range(0, 15, 6):
            piece = part[:, j : j + 6]  # (B, K)
            yield piece.T @ part

def f(x, w):
    y = (
        x
        * w
    )  # (N, C)
    a, b = x.T, y.T  # (C, N)
    c, d = x.T, w  # (C, N), (C,)
    y[2:4] = 0  # (2, C)
    y += w  # (N, C)
    wide = np.concatenate([y] * 3, 1)  # (N, 3C)
    again = [x.T for x in (a.T, b.T)]
    list(halves(x))
    return y.sum(0), Saved(x, w)  # (C,)
"""


def watch_snippet(text):
    """Run f(x, w) of a snippet under watch, with the sizes of the ops' cases."""
    space = {}
    exec(compile(text, "snippet", "exec"), space)
    watch = Watch("snippet", text, SIZES)
    watch.run(space["f"], np.ones((SIZES["N"], SIZES["C"])), np.ones(SIZES["C"]))
    return watch


def test_right_shapes_are_compared_and_not_reported():
    watch = watch_snippet(SNIPPET)
    assert watch.faults == []
    assert len(watch.checked) == 11 and read_shapes(SNIPPET)[2] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    )  # (N, C)", "    )  # (C, N)", ["snippet:17", "(C, N) = (15, 13)", "(13, 15)"]),
        ("x.T, y.T  # (C, N)", "x, y  # (C, N)", ["snippet:21", "a is told"]),
        ("x.T, y.T  # (C, N)", "x.T, y  # (C, N)", ["snippet:21", "b is told"]),
        ("# (C, N), (C,)", "# (C, N), (N,)", ["snippet:22", "d is told"]),
        ("# (2, C)", "# (N, C)", ["snippet:23", "y[2:4]"]),
        ("y += w  # (N, C)", "y += w  # (N, 1)", ["snippet:24"]),
        ("# (N, 3C)", "# (N, 4C)", ["snippet:25", "(13, 60)", "(13, 45)"]),
        ("# (N, 3C)", "# (N, K=4C)", ["snippet:25"]),
        ("Saved(x, w)  # (C,)", "Saved(x, w)  # (N,)", ["snippet:28", "the result"]),
        ("w: object  # (C,)", "w: object  # (N,)", ["snippet:7", "w is told"]),
        ("# (B, K)", "# (B, B)", ["snippet:13", "piece"]),
        ("# (B, K)", "# (K, B)", ["snippet:13", "(K, B) = (4, 4)", "(4, 6)"]),
        ("# (B, C)", "# (B,)", ["snippet:11", "part"]),
    ],
)
def test_a_wrong_shape_is_reported(old, new, words):
    assert old in SNIPPET
    faults = watch_snippet(SNIPPET.replace(old, new)).faults
    assert faults and all(word in faults[0] for word in words), faults


def test_a_free_name_is_the_same_within_one_call():
    text = SNIPPET.replace("y += w  # (N, C)", "y += w  # (Q, C)").replace("# (N, 3C)", "# (C, Q)")
    assert "snippet:25" in watch_snippet(text).faults[0]


def test_a_shape_where_nothing_is_assigned_is_reported():
    assert read_shapes("print(1)  # (N, C)\nx = 1  # (N, C)\n")[2] == [1]


def test_shapes_are_read_and_citations_are_not():
    assert shapes_in("# (N, 3C), (C,)  (4.1)") == [["N", "3*C"], ["C"]]
    assert shapes_in("# ()  (9.4)") == [[]]
    assert shapes_in("# (B, F=4·C)") == [["B", "F=4*C"]]
    assert shapes_in("# (4.1) (4.2)") == shapes_in("# (see there, and here)") == []
