"""The first page: the symbols, and the contents by parts, which are the side bar as well."""

import ast
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from book.blocks import blocks_of, title_of, title_sentence
from book.elements import Context, add_blocks, link_to, prose, summary, titled
from book.links import GUIDES, OPERATIONS, PLAIN, Book, Target, document_of, header_of
from book.parse import Part, contents_of, read_sources

FRONT = document_of("__init__")
HOW_TO_READ = (
    "Each chapter says why, defines, derives, and then computes. A number in parentheses leads "
    "from a line of code to the equation that it computes; an equation's own number leads to every "
    "line that does, in Python and in CUDA. Each chapter uses only those before it."
)
IN_FRONT = {"I": [OPERATIONS]}  # of the modules of a part
BEHIND = {"I": [PLAIN]}


def title_on(book: Book, document: str) -> str:
    """Return the title of a page: '4. Layer normalisation', 'Parallel work', 'gelu.cu'."""
    if document in GUIDES:
        return GUIDES[document]
    if entry := book.entries.get(document):
        return f"{entry.number}. {entry.title}" if entry.number else entry.title
    if document in (OPERATIONS, PLAIN):
        return title_of(docstring_of(book, document)).name
    return book.paths[document].removeprefix("kernels/")


def docstring_of(book: Book, document: str) -> str:
    """Return the docstring of a module."""
    return ast.get_docstring(ast.parse(book.sources[document])) or ""


def front_page(book: Book) -> nodes.section:
    """Return the page with the symbols and the contents."""
    docstring = docstring_of(book, FRONT)
    title = title_of(docstring)
    page = titled(title.name, FRONT)
    context = Context(book, has_symbols=True)
    page += summary(title.summary, context)
    page += nodes.paragraph("", HOW_TO_READ)
    add_blocks(page, blocks_of(docstring.partition("\nContents,")[0]), context)
    contents = contents_of(read_sources())
    for part in contents.parts:
        entries = [entry for entry in contents.entries if entry.part == part]
        documents = [document_of(entry.module) for entry in entries]
        documents = [*IN_FRONT.get(part.name, []), *documents, *BEHIND.get(part.name, [])]
        page += part_section(book, name_of(part), documents)
        if part.name == "VIII":
            kernels = [name for name in book.paths if name.startswith("kernels/")]
            page += part_section(book, "The kernels", [*GUIDES, *kernels])
    return page


def name_of(part: Part) -> str:
    """Return 'Part I: Arrays', or 'Appendix: planning'."""
    return f"{'' if part.name == 'Appendix' else 'Part '}{part.name}: {part.title}"


def part_section(book: Book, name: str, documents: list[str]) -> nodes.section:
    """Return the list of a part's pages, each with what it says of itself."""
    section = titled(name, name)
    items = nodes.bullet_list(classes=["pages"])
    for document in documents:
        says = summary_of(book, document)
        line = nodes.paragraph()
        line += link_to(Target(document, "", says), title_on(book, document))
        entry = book.entries.get(document)
        is_plumbing = entry and not entry.number
        line += prose(f": {says}" if says else "", Context(book, has_symbols=not is_plumbing))
        items += nodes.list_item("", line, classes=["plumbing"] if is_plumbing else [])
    section += items
    section += sidebar(book, name, documents)
    return section


def summary_of(book: Book, document: str) -> str:
    """Return what the first sentence of a page says of it."""
    if document in GUIDES:
        return ""
    if document in book.entries or document in (OPERATIONS, PLAIN):
        return title_of(docstring_of(book, document)).summary
    return title_sentence(header_of(book.sources[document]))


def mark_plumbing(app: Sphinx, page: str, template: str, context: dict[str, Any], _: Any) -> None:
    """Let the side bar know which pages are no chapters: those without a number."""
    entry = r'(<li class="toctree-l1[^"]*)(">\s*<a [^>]*>(?!\d+\. ))'
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = re.sub(entry, r"\1 plumbing\2", tree)


def sidebar(book: Book, caption: str, documents: list[str]) -> nodes.compound:
    """Return the part of the side bar that lists documents."""
    tree = addnodes.toctree(
        parent=FRONT,
        entries=[(title_on(book, document), document) for document in documents],
        includefiles=documents,
        maxdepth=1,
        caption=caption,
        rawcaption=caption,
        glob=False,
        hidden=True,
        includehidden=False,
        numbered=0,
        titlesonly=True,
    )
    return nodes.compound("", tree, classes=["toctree-wrapper"])
