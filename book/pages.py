"""Pages: one a module, with its text, its code, and who uses its equations; and one a kernel."""

import ast
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.parsers import Parser

from book.blocks import Block, Display, Item, Paragraph, blocks_of, title_of, title_sentence
from book.elements import Context, add_blocks, link_to, summary, titled
from book.front import FRONT, front_page, title_on
from book.links import Book, Target, Use, header_of, line_anchor, read_book, used_in
from book.nodes import ListingNode
from book.parse import PACKAGE
from book.symbols import SIGN


class ModuleParser(Parser):
    """Reads a module as a page."""

    supported = ("module",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Put the page of a module into a document."""
        book, name = read_book(), document.settings.env.docname
        document += front_page(book) if name == FRONT else module_page(book, name)


class KernelParser(Parser):
    """Reads a CUDA source as a page."""

    supported = ("kernel",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Put the page of a kernel into a document."""
        book, name = read_book(), document.settings.env.docname
        document += kernel_page(book, name)


def module_page(book: Book, name: str) -> nodes.section:
    """Return the page of a module."""
    tree = ast.parse(book.sources[name])
    docstring = ast.get_docstring(tree) or ""
    page = titled(title_on(book, name), name)
    entry = book.entries.get(name)
    is_chapter = entry is None or bool(entry.number)
    blocks = blocks_of(docstring)
    context = Context(book, is_chapter or any(map(has_formula, blocks)), defines=is_chapter)
    if says := title_of(docstring).summary:
        page += summary(says, context)
    page += files_line(book, name)
    add_blocks(page, blocks, context)
    if not isinstance(tree.body[-1], ast.Expr):
        page += code_section(book.sources[name], tree, name)
    own = [number for number, target in book.equations.items() if target.document == name]
    if numbers := [number for number in own if used_in(number, book)]:
        page += uses_section(book, numbers)
    return page


def has_formula(block: Block) -> bool:
    """Whether a block is a formula, or a text with a letter that only a formula has."""
    is_text = isinstance(block, Paragraph | Item)
    return isinstance(block, Display) or (is_text and bool(SIGN.search(block.text)))


def files_line(book: Book, name: str) -> nodes.paragraph:
    """Return the line with the file of a page, and what belongs to it: kernels, or the chapter."""
    line = nodes.paragraph("", "", nodes.literal(text=book.paths[name]), classes=["files"])
    for kernel, chapter in book.kernels.items():
        path = book.paths[kernel]
        if chapter == name:
            line += [nodes.Text(" · "), link_to(Target(kernel, "", path), path)]
        if kernel == name:
            title = title_on(book, chapter)
            line += [nodes.Text(" · "), link_to(Target(chapter, "", title), f"chapter {title}")]
    return line


def kernel_page(book: Book, name: str) -> nodes.section:
    """Return the page of a kernel."""
    text = book.sources[name]
    header = header_of(text)
    page = titled(title_on(book, name), name)
    context = Context(book, has_symbols=True)
    page += summary(title_sentence(header), context)
    page += files_line(book, name)
    add_blocks(page, blocks_of(header), context)
    section = titled("The code", "code")
    section += code_behind(text, header.count("\n") + 1, "cuda")
    page += section
    return page


def code_section(text: str, tree: ast.Module, name: str) -> nodes.section:
    """Return the code of a module, behind its docstring."""
    section = titled("The code", "code")
    section += addnodes.index(entries=list(index_entries(name, tree)))
    end = (tree.body[0].end_lineno or 0) if ast.get_docstring(tree) else 0
    section += code_behind(text, end, "python")
    return section


def code_behind(text: str, end: int, language: str) -> ListingNode:
    """Return the code behind so many lines of a source, without empty lines at its beginning."""
    lines = text.splitlines()
    while end < len(lines) and not lines[end].strip():
        end += 1
    code = "\n".join(lines[end:])
    return ListingNode(code, code, language=language, first=end + 1)


def index_entries(name: str, tree: ast.Module) -> Iterator[tuple[str, str, str, str, None]]:
    """Yield an entry of the index for each function and class of a module."""
    module = name.removeprefix(f"{PACKAGE}/")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield "single", f"{node.name} ({module})", line_anchor(first_line(node)), "", None


def first_line(node: ast.FunctionDef | ast.ClassDef) -> int:
    """Return the line on which a function or a class begins, with its decorators."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def uses_section(book: Book, numbers: list[str]) -> nodes.section:
    """Return where each equation of a chapter is computed, and which other pages mention it."""
    section = titled("Where its equations are used", "uses")
    for number in numbers:
        target = book.equations[number]
        line = nodes.paragraph(ids=[f"used-{target.anchor}"], classes=["uses"])
        line += link_to(target, f"({number})")
        if computed := book.computed.get(number, []):
            line += [nodes.Text(" computed in "), *lines_of(book, computed)]
        pages = {use.document for use in book.mentioned.get(number, [])} - {target.document}
        if pages:
            separator = ";" if computed else ""
            titles = titles_of(book, book.ordered(pages))
            line += [nodes.Text(f"{separator} mentioned in "), *titles]
        section += line
    return section


def lines_of(book: Book, uses: list[Use]) -> list[nodes.Node]:
    """Return links to lines of code, by file."""
    links: list[nodes.Node] = []
    for document in book.ordered(use.document for use in uses):
        path = book.paths[document].removeprefix(f"{PACKAGE}/")
        links += [nodes.Text(", " if links else ""), nodes.literal(text=path)]
        lines = [use.line for use in uses if use.document == document]
        for place, line in enumerate(lines):
            target = Target(document, line_anchor(line), f"{path}, line {line}")
            links += [nodes.Text(", " if place else " "), link_to(target, str(line))]
    return links


def titles_of(book: Book, documents: list[str]) -> list[nodes.Node]:
    """Return links to pages by their titles."""
    links: list[nodes.Node] = []
    for document in documents:
        links += [nodes.Text(", " if links else "")]
        links += [link_to(Target(document, "", book.paths[document]), title_on(book, document))]
    return links
