"""Links: where an equation, a chapter, a module or a kernel stands, and who uses an equation.

A document is a source without its ending: minigpt2/ops/gelu, kernels/gelu.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import takewhile
from typing import NamedTuple

from book.lines import EQUATION
from book.parse import PACKAGE, ROOT, TAG, Entry, contents_of, equations_of, read_sources

KERNELS = ROOT.parent / "kernels"
GUIDES = {"kernels/README": "The kernels", "kernels/emulator/README": "The emulator"}
OPERATIONS = f"{PACKAGE}/ops/__init__"  # all backward passes on one page
PLAIN = "tests/plain"  # the model in plain NumPy


class Target(NamedTuple):
    """A place in the book: a document, an anchor in it ('' for its top), and what is there."""

    document: str
    anchor: str
    says: str


class Use(NamedTuple):
    """A line that computes an equation, or mentions it."""

    document: str
    line: int


class Book(NamedTuple):
    """All that pages link to."""

    entries: dict[str, Entry]  # by document, in reading order
    sources: dict[str, str]  # the text of each document
    paths: dict[str, str]  # the file of each document, seen from the root
    equations: dict[str, Target]  # by number, such as '4.20'
    computed: dict[str, list[Use]]  # lines of code whose comment cites an equation
    mentioned: dict[str, list[Use]]  # lines of other documents' texts that do
    kernels: dict[str, str]  # the chapter of each kernel that belongs to one

    def chapter(self, number: int) -> str | None:
        """Return the document of a chapter."""
        chapters = (name for name, entry in self.entries.items() if entry.number == number)
        return next(chapters, None)

    def ordered(self, documents: Iterable[str]) -> list[str]:
        """Return documents, each once, in reading order: chapters before kernels and the rest."""
        wanted = {*documents}
        return [name for name in dict.fromkeys([*self.entries, *self.paths]) if name in wanted]


def document_of(module: str) -> str:
    """Return the document of a module: ops/gelu -> minigpt2/ops/gelu."""
    return f"{PACKAGE}/{module}"


@cache
def read_book() -> Book:
    """Read the book from the sources of this folder."""
    modules = read_sources()
    entries = {document_of(entry.module): entry for entry in contents_of(modules).entries}
    sources = {document_of(module): text for module, text in modules.items()}
    sources[PLAIN] = (ROOT.parent / f"{PLAIN}.py").read_text(encoding="utf-8")
    sources = {name: text for name, text in sources.items() if is_page(name)}
    paths = {document: f"{document}.py" for document in sources}
    for path in sorted(KERNELS.glob("*.cu*")):
        sources[f"kernels/{path.stem}"] = path.read_text(encoding="utf-8")
        paths[f"kernels/{path.stem}"] = f"kernels/{path.name}"
    book = Book(entries, sources, paths, {}, {}, {}, {})
    table = (KERNELS / "README.md").read_text(encoding="utf-8")
    book.kernels.update(chapters_of_kernels(table, book))
    return linked(book)


def chapters_of_kernels(table: str, book: Book) -> Iterator[tuple[str, str]]:
    """Yield (kernel, chapter) of each row of a table: | `a.cu`, `b.cu` | 10, AdamW |."""
    for files, number in re.findall(r"^\| (`[^|]*) \| (\d+), ", table, re.MULTILINE):
        if chapter := book.chapter(int(number)):
            for stem in re.findall(r"`(\w+)\.cu`", files):
                yield f"kernels/{stem}", chapter


def is_page(document: str) -> bool:
    """Whether a module has a page: all but __main__ and most __init__ files."""
    return "/__" not in document or document in (OPERATIONS, document_of("__init__"))


def linked(book: Book) -> Book:
    """Fill in where the equations are defined, computed and mentioned."""
    for document, text in book.sources.items():
        lines = text.splitlines()
        if document.startswith("kernels/"):
            header = header_of(text).count("\n") + 1
            add_uses(book.computed, document, tags_in_comments(lines, behind=header))
            continue
        defined, mentioned, cited = equations_of(text)
        for line, number in defined:
            says = EQUATION.fullmatch(lines[line - 1].strip())
            shown = " ".join(says["text"].split()) if says else ""
            target = Target(document, anchor_of(joined(number)), shown)
            book.equations[joined(number)] = target
        add_uses(book.computed, document, [(line, joined(number)) for line, number in cited])
        add_uses(book.mentioned, document, [(line, joined(number)) for line, number in mentioned])
    return book


def used_in(number: str, book: Book) -> list[Use]:
    """Return the lines that compute an equation, and those of other pages that mention it."""
    own = book.equations[number].document
    others = [use for use in book.mentioned.get(number, []) if use.document != own]
    return [*book.computed.get(number, []), *others]


def add_uses(uses: dict[str, list[Use]], document: str, found: list[tuple[int, str]]) -> None:
    """Add lines of a document to the uses of equations, each line once."""
    for line, number in found:
        if (use := Use(document, line)) not in uses.setdefault(number, []):
            uses[number].append(use)


def header_of(text: str) -> str:
    """Return the comment that a kernel begins with, without its slashes."""
    lines = takewhile(lambda line: line.startswith("//"), text.splitlines())
    return "\n".join(line[2:].removeprefix(" ") for line in lines)


def tags_in_comments(lines: list[str], behind: int) -> list[tuple[int, str]]:
    """Return (line, number) of each equation that a comment cites, behind so many lines."""
    comments = [(n, line.partition("//")[2]) for n, line in enumerate(lines, 1) if n > behind]
    return [(place, joined(tag.groups())) for place, text in comments for tag in TAG.finditer(text)]


def joined(number: tuple[object, ...]) -> str:
    """Return an equation's number as it is printed: (4, 20) -> '4.20'."""
    return ".".join(map(str, number))


def anchor_of(number: str) -> str:
    """Return the anchor of an equation: '4.20' -> 'eq-4-20'."""
    return "eq-" + number.replace(".", "-")


LINE = "L"  # begins the anchor of a line of code


def line_anchor(line: int) -> str:
    """Return the anchor of a line of code."""
    return f"{LINE}-{line}"


# What a text may point at: code, an equation, a chapter, a module, a kernel.
MENTION = re.compile(
    r"`(?P<code>[^`\n]+)`"
    r"|\((?P<equation>\d+\.\d+)\)"
    r"|\bchapter (?P<chapter>\d+)\b"
    r"|(?<![\w/.])(?P<file>\w+\.cuh?)(?![\w/])"
    r"|(?<![\w/.])(?P<path>(?:\w+/)+\w+(?:\.cuh?|\.py)?)(?![\w/])"
)


def target_of(mention: re.Match[str], book: Book) -> Target | None:
    """Return what a mention points at, or None if it is nothing in the book."""
    kind, text = str(mention.lastgroup), mention[str(mention.lastgroup)]
    if kind == "equation":
        return book.equations.get(text)
    if kind == "chapter":
        document = book.chapter(int(text))
    elif kind == "file":
        document = f"kernels/{text.partition('.')[0]}"
    else:
        stem = re.sub(r"\.(py|cuh?)$", "", text)
        document = stem if stem in book.paths else document_of(stem)
    if document not in book.entries and document not in book.paths:
        return None
    entry = book.entries.get(str(document))
    return Target(str(document), "", entry.title if entry else str(document))
