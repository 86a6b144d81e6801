"""Compares the shapes in comments, `# (N, C)`, with those of the arrays when the code runs."""

import ast
import re
import sys
from typing import NamedTuple

from book.parse import ROOT, comments_of, docstring_lines, is_listed
from minigpt2.ops.attention_tiles import cached_tile_plan
from tests.book.rules import at
from tests.gradients import draw

SHAPES = re.compile(r"#\s*(\([^()]*\)(?:,\s*\([^()]*\))*)")


class Shaped(NamedTuple):
    """An assignment or a return statement with shapes in its comment."""

    first: int
    last: int
    targets: list  # source text of what is assigned; empty for a return
    shapes: list  # one list of dimensions for each target, or one for all


def shapes_in(comment):
    """The shapes that a comment begins with: '# (N, 3C), (C,)' -> [['N', '3*C'], ['C']]."""
    match = SHAPES.match(comment)
    shapes = []
    for inside in re.findall(r"\(([^()]*)\)", match[1]) if match else ():
        if inside.strip() and "," not in inside:
            return []
        dimensions = [dimension.strip() for dimension in inside.split(",") if dimension.strip()]
        dimensions = [re.sub(r"(\d)\s*(?=[A-Za-z])", r"\1*", text) for text in dimensions]
        shapes.append([re.sub(r"\s*[·×]\s*", "*", text) for text in dimensions])
    try:
        for expression in (part for shape in shapes for text in shape for part in text.split("=")):
            ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        return []
    return shapes


def assigned_by(node):
    """Source text of everything that an assignment assigns, in order."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    flat = [t.elts if isinstance(t, ast.Tuple | ast.List) else [t] for t in targets]
    return [ast.unparse(target).lstrip("*") for elements in flat for target in elements]


def read_shapes(text):
    """(statements, fields, strays): where comments have shapes; no test reads those of strays.

    Fields map the name of a NamedTuple to the line and shape of each of its fields.
    """
    shaped = {line: shapes_in(comment) for line, comment in comments_of(text)}
    shaped = {line: shapes for line, shapes in shaped.items() if shapes}
    statements, fields, read = [], {}, set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases):
            own = [f for f in node.body if isinstance(f, ast.AnnAssign) and f.end_lineno in shaped]
            fields[node.name] = {f.target.id: (f.end_lineno, shaped[f.end_lineno][0]) for f in own}
            read.update(field.end_lineno for field in own)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return):
            lines = [n for n in range(node.lineno, node.end_lineno + 1) if n in shaped]
            if lines and lines[0] not in read:
                targets = [] if isinstance(node, ast.Return) else assigned_by(node)
                shapes = shaped[lines[0]]
                statements.append(Shaped(node.lineno, node.end_lineno, targets, shapes))
                read.update(lines)
    return statements, fields, sorted(set(shaped) - read)


def letter_faults(sources):
    """Letters of shapes that are not in the list of symbols nor in a docstring of the module."""
    symbols, _, _ = (ast.get_docstring(ast.parse(sources["__init__"])) or "").partition("Contents")
    shared = set(re.findall(r"(?<!\S)([A-Z])  (?=\S)", symbols))
    faults = []
    for module, text in sources.items():
        words = " ".join(line for _, line in docstring_lines(text))
        explained = shared | set(re.findall(r"\b[A-Z]\b", words))
        for line, comment in comments_of(text):
            dimensions = " ".join(dimension for shape in shapes_in(comment) for dimension in shape)
            for letter in sorted(set(re.findall(r"\b[A-Z]\b", dimensions)) - explained):
                faults.append(at(module, line, f"{letter} is in no list of symbols"))
    return faults


class ShapeTracer:
    """Runs code and compares the arrays in its frames with the shapes in its comments.

    A name that `sizes` does not know, such as the rows of a block, stands for the size that it has
    where it first occurs, and keeps that within one call; a loop that returns to the line begins
    again.
    """

    def __init__(self, file, text, sizes):
        self.file, self.sizes = file, sizes
        self.statements, self.fields, _ = read_shapes(text)
        self.frames = {}  # frame -> [statement that is being run, names bound: (value, line)]
        self.checked, self.faults = set(), []

    def run(self, call, *arguments):
        """Call a function and trace it."""
        before = sys.gettrace()
        sys.settrace(self.enter)
        try:
            call(*arguments)
        finally:
            sys.settrace(before)
            self.frames.clear()

    def enter(self, frame, event, value):
        """Trace the functions of the file, but not the comprehensions within them."""
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
                self.check_statement(frame, running, bound, value)
                running = None
            starts = [s for s in self.statements if s.first <= line <= s.last]
            self.frames[frame][0] = starts[0] if starts else running
        if event == "return":
            self.check_fields(value)
        return self.step

    def check_statement(self, frame, statement, bound, returned):
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

    def check_fields(self, value):
        """Compare the fields of every named tuple of the file that a function returns."""
        for part in (value, *value) if isinstance(value, tuple) else ():
            bound, fields = {}, self.fields.get(type(part).__name__, {})
            own = set(fields) <= set(getattr(part, "_fields", ()))  # another chapter's has its name
            for field, (line, shape) in fields.items() if own else ():
                self.compare(line, field, getattr(part, field), shape, bound)

    def report(self, line, what):
        """Keep a fault, once."""
        if (fault := f"{self.file}:{line}: {what}") not in self.faults:
            self.faults.append(fault)

    def compare(self, line, name, value, shape, bound):
        """Report an array whose shape is not the comment's."""
        if getattr(value, "shape", None) is None:
            return
        self.checked.add(line)
        fits = len(shape) == len(value.shape)
        for dimension, size in zip(shape, value.shape, strict=False):
            fits = fits and self.fits(dimension, size, line, bound)
        if not fits:
            known = {**self.sizes, **{name: size for name, (size, _) in bound.items()}}
            expected = ", ".join(str(evaluate(text.split("=")[0], known)) for text in shape)
            what = f"{name} should be ({', '.join(shape)}) = ({expected}), and is {value.shape}"
            self.report(line, what)

    def fits(self, dimension, size, line, bound):
        """Whether an axis has the size of its comment; a name that occurs first is bound to it."""
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


def modules_of(case, sources):
    """The modules that a case runs: those of an op, or all of the folder that the case is about.

    An op may have two: attention, attention_tiles.
    """
    name = case.name.split(",")[0]
    names = {m: m.split("/")[-1].removesuffix("_tiles") for m in filter(is_listed, sources)}
    own = [module for module in names if names[module] == name]
    if own and not own[0].startswith("ops/"):
        folder = own[0].split("/")[0] + "/"
        return [module for module in filter(is_listed, sources) if module.startswith(folder)]
    return own


def trace_case(case, sizes, module, text):
    """The tracer of a module after the forward and the backward pass of one case."""
    tracer = ShapeTracer(str(ROOT / f"{module}.py"), text, sizes)
    arguments, dy = draw(case)
    cached_tile_plan.cache_clear()  # what is remembered runs no line
    tracer.run(case.forward, *arguments)
    tracer.run(case.backward, dy, arguments)
    return tracer
