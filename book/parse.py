"""Reads the book from its source: table of contents, imports, docstrings, comments, equations.

Sources are texts by module path ('ops/layer_norm', 'ops/__init__', 'backend'), so that a book of a
few lines, made up for a test, is read as the package is.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple

Sources = dict[str, str]  # the text of each module, by its path

PACKAGE = "minigpt2"
ROOT = Path(__file__).parent.parent / PACKAGE


def read_sources(root: Path = ROOT) -> Sources:
    """Source text by module path."""
    paths = sorted(root.rglob("*.py"))
    return {path.relative_to(root).with_suffix("").as_posix(): path.read_text() for path in paths}


def once_a_text(read: Callable[..., Iterable[Any]]) -> Callable[..., tuple[Any, ...]]:
    """Let a function that yields what it finds in a text read each text once: many rules ask it."""
    return wraps(read)(cache(lambda *texts: tuple(read(*texts))))


def is_listed(module: str) -> bool:
    """Whether the table of contents must list a module: all but __init__ and __main__ files."""
    return module.rsplit("/")[-1] not in ("__init__", "__main__")


# The table of contents, in the docstring of minigpt2/__init__.py.

PART = re.compile(r"\s*(?:Part ([IVXLC]+)|(Appendix))\b:?\s*(.*?)\s*")
ENTRY = re.compile(r"\s+(\d+|·)\s\s+(\w+(?:/\w+)*)\s\s+(\S.*?)\s*")


class Part(NamedTuple):
    """A part of the book: 'Part II: The network', or 'Appendix: ...'."""

    line: int
    name: str  # "I", "II", ... or "Appendix"
    title: str


class Entry(NamedTuple):
    """A module in the table of contents."""

    line: int
    part: Part | None
    number: int | None  # of a chapter; None for plumbing, which is listed with "·"
    module: str
    title: str


class Contents(NamedTuple):
    """The table of contents, in reading order."""

    parts: list[Part]
    entries: list[Entry]

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each module that is a chapter."""
        return {entry.module: entry.number for entry in self.entries if entry.number}

    @property
    def places(self) -> dict[str, int]:
        """The place of each module, chapter or not, in reading order."""
        return {entry.module: place for place, entry in enumerate(self.entries)}


def contents_of(sources: Sources) -> Contents:
    """The table of contents."""
    return contents_in(sources["__init__"])


@cache
def contents_in(text: str) -> Contents:
    """The table of contents that stands in a docstring."""
    contents = Contents([], [])
    for line, words in docstring_lines(text):
        if match := PART.fullmatch(words):
            contents.parts.append(Part(line, match[1] or match[2], match[3]))
        elif match := ENTRY.fullmatch(words):
            part = contents.parts[-1] if contents.parts else None
            number = None if match[1] == "·" else int(match[1])
            contents.entries.append(Entry(line, part, number, match[2], match[3]))
    return contents


# Imports.


class Import(NamedTuple):
    """`import module` or `from module import name`, with the module's full name."""

    line: int
    module: str
    name: str | None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


@once_a_text
def imports_of(module: str, text: str) -> Iterator[Import]:
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


def lazy_lines(text: str) -> Iterator[int]:
    """The lines that do not run when a module is imported: functions, and `if TYPE_CHECKING:`."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If):
            continue
        if not isinstance(node, ast.If) or ast.unparse(node.test) == "TYPE_CHECKING":
            yield from range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1)


def targets_of(imported: Import, sources: Sources) -> set[str] | None:
    """The listed modules that an import from the package reaches; None if there is no such thing.

    A folder stands for all that it holds, unless its __init__ says where the imported name is from.
    """
    listed = set(contents_of(sources).places)
    path = imported.module.split(".")[1:]
    inside = "/".join([*path, imported.name]) if imported.name else None
    for whole in filter(None, ("/".join(path), inside)):
        if whole in listed:
            return {whole}
    if inside and (below := {module for module in listed if module.startswith(inside + "/")}):
        return below
    if not path:
        return set() if imported.name == "__version__" else None
    folder = "/".join(path)
    for behind in imports_of(f"{folder}/__init__", sources.get(f"{folder}/__init__", "")):
        if imported.name and behind.name == imported.name and behind.module.startswith(PACKAGE):
            return targets_of(behind, sources)
    return {module for module in listed if module.startswith(folder + "/")} or None


# Docstrings, comments, strings.


@once_a_text
def docstring_lines(text: str) -> Iterator[tuple[int, str]]:
    """(line number, line) of every docstring, as they stand in the source."""
    lines = text.splitlines()
    holders = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, holders) and ast.get_docstring(node) is not None:
            string = node.body[0]
            yield from enumerate(lines[string.lineno - 1 : string.end_lineno], string.lineno)


@once_a_text
def comments_of(text: str) -> Iterator[tuple[int, str]]:
    """(line number, comment) of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


# Equations.

TAG = re.compile(r"(?<!\w)\((\d+)\.(\d+)\)")


class Equations(NamedTuple):
    """(line, (chapter, number)) for each equation that a file defines, mentions, and cites.

    Two spaces set the number of an equation apart; a sentence may end a line with (k.n), too.
    """

    defined: list[tuple[int, tuple[int, int]]]  # a docstring's line that ends in (k.n), set apart
    mentioned: list[tuple[int, tuple[int, int]]]  # (k.n) elsewhere in a docstring
    cited: list[tuple[int, tuple[int, int]]]  # (k.n) in a comment


@cache
def equations_of(text: str) -> Equations:
    """The equations of one file."""
    equations = Equations([], [], [])
    for line, words in sorted(docstring_lines(text)):
        for tag in TAG.finditer(words):
            apart = words[: tag.start()].endswith("  ") and tag.end() == len(words.rstrip())
            equation = (int(tag[1]), int(tag[2]))
            (equations.defined if apart else equations.mentioned).append((line, equation))
    for line, comment in comments_of(text):
        equations.cited.extend((line, (int(tag[1]), int(tag[2]))) for tag in TAG.finditer(comment))
    return equations
