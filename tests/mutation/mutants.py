"""Mutants of a file: its text with one small change, by the operators of mutmut.

mutmut's own runs leave out functions with a decorator, and nearly every op has one.  So only its
operators are used: numbers plus 1, other signs and comparisons, arguments left out or None,
assignments of None, strings in other letters, `not` left out, conditions always true or false.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

from tests.mutation.survivors import Key

UNCHANGED_CALLS = ("len", "isinstance")  # every change of these raises an error at once


class Place(NamedTuple):
    """Where code stands that is changed as one: a function, a method, or outside of all."""

    path: tuple[str, ...]  # of classes and functions; empty outside of all functions
    first: int  # line of the function's name or first decorator
    is_body: bool  # not what runs when the function is made: a default value
    body: tuple[int, int]  # first and last line of what runs when it is called


class Mutant(NamedTuple):
    """A change of one place in a file's text."""

    file: str
    place: Place
    first: int  # lines of the statement that is changed
    last: int
    text: str  # of the whole file, changed
    is_wording: bool  # a text within a `raise`
    key: Key  # in the list of survivors


class Changes(cst.CSTVisitor):
    """Collects what may be changed: node, changed node, place, first and last line."""

    METADATA_DEPENDENCIES = (PositionProvider, WhitespaceInclusivePositionProvider)

    def __init__(self):
        super().__init__()
        self.changes = []
        self.names, self.functions, self.statements = [], [], []
        self.in_parameters = self.in_raise = 0

    def on_visit(self, node):
        """Note the changes of a node; say whether its parts may be changed."""
        match node:
            case cst.Annotation() | cst.Decorator() | cst.Import() | cst.ImportFrom():
                return False
            case cst.Expr(value=cst.SimpleString()):  # a docstring
                return False
            case cst.Call(func=cst.Name(value=name)) if name in UNCHANGED_CALLS:
                return False
            case cst.FunctionDef() | cst.ClassDef():
                self.names.append(node.name.value)
                is_outer = isinstance(node, cst.FunctionDef) and not self.functions
                if is_outer:
                    self.functions.append((node, tuple(self.names)))
            case cst.Parameters():
                self.in_parameters += 1
            case cst.Raise():
                self.in_raise += 1
            case cst.SimpleStatementLine():
                self.statements.append(self.get_metadata(PositionProvider, node))
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                is_wording = operator is operator_string and self.in_raise > 0
                where = self.where(node)
                self.changes += [(node, new, is_wording, *where) for new in operator(node)]
        return True

    def on_leave(self, node):
        """Forget a function, class or statement that ends."""
        match node:
            case cst.FunctionDef() | cst.ClassDef():
                self.names.pop()
                if self.functions and self.functions[-1][0] is node:
                    self.functions.pop()
            case cst.Parameters():
                self.in_parameters -= 1
            case cst.Raise():
                self.in_raise -= 1
            case cst.SimpleStatementLine():
                self.statements.pop()

    def where(self, node):
        """The place of a node, and the lines of its statement, or of itself in a condition."""
        span = self.statements[-1] if self.statements else self.get_metadata(PositionProvider, node)
        if not self.functions:
            return Place((), 0, False, (0, 0)), span.start.line, span.end.line
        function, path = self.functions[-1]
        first = self.get_metadata(PositionProvider, function).start.line
        if function.decorators:
            first = self.get_metadata(PositionProvider, function.decorators[0]).start.line
        is_nested = len(self.names) > len(path)  # made by each call: its defaults are of the body
        is_body = is_nested or not self.in_parameters
        spans = [self.get_metadata(PositionProvider, part) for part in function.body.body]
        body = spans[0].start.line, spans[-1].end.line
        return Place(path, first, is_body, body), span.start.line, span.end.line


def mutants_of(root: Path, file: str) -> Iterator[Mutant]:
    """Every mutant of a file."""
    text = (root / file).read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(text))
    visitor = Changes()
    wrapper.visit(visitor)
    spans = wrapper.resolve(WhitespaceInclusivePositionProvider)
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def offset(position):
        return starts[position.line - 1] + position.column

    for node, new, is_wording, place, first, last in visitor.changes:
        start, stop = offset(spans[node].start), offset(spans[node].end)
        mutated = text[:start] + wrapper.module.code_for_node(new) + text[stop:]
        key = Key(file, ".".join(place.path), *difference(text, mutated))
        yield Mutant(file, place, first, last, mutated, is_wording, key)


def difference(text, mutated):
    """The lines that go and the lines that come, without their indentation."""
    old, new = text.splitlines(), mutated.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return tuple(line.strip() for line in old), tuple(line.strip() for line in new)
