"""Listings: source code in colour, each line with a number, what it cites with a link."""

import html
import re
from collections.abc import Callable

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import CudaLexer, PythonConsoleLexer, PythonLexer

from book.links import LINE, Book, Target, document_of

LEXERS = {"cuda": CudaLexer, "python": PythonLexer, "pycon": PythonConsoleLexer}
Address = Callable[[Target], str]  # of a target, from the page on which it is written

NUMBERED = re.compile(rf'<span id="({LINE}-(\d+))">')
EQUATION = re.compile(r"\((\d+\.\d+)\)")
MODULE = re.compile(r'(<span class="nn">)minigpt2\.([\w.]+)(</span>)')
INCLUDE = re.compile(r'(<span class="cpf">(?:"|&quot;))(\w+)\.cuh((?:"|&quot;)</span>)')


def listing(code: str, language: str, first: int, book: Book, address: Address) -> str:
    """Return code as HTML; its first line has the number `first` in its file, 0 for no numbers.

    In HTML (4.20) stands in one piece in comments and docstrings alone: in code its parentheses
    are elements of their own.
    """
    numbers = {"linespans": LINE, "linenostart": first} if first else {}
    page = highlight(code, LEXERS[language](), HtmlFormatter(**numbers))
    page = NUMBERED.sub(r'\g<0><a class="line" href="#\1">\2</a>', page)
    page = EQUATION.sub(lambda match: equation_link(match, book, address), page)
    page = MODULE.sub(lambda match: module_link(match, book, address), page)
    return INCLUDE.sub(lambda match: include_link(match, book, address), page)


def link(target: Target, text: str, address: Address) -> str:
    """Return a link as HTML, which shows what is there."""
    return f"{opened(target, 'cites', address)}{text}</a>"


def opened(target: Target, kind: str, address: Address) -> str:
    """Return the opening tag of a link, of a class, which shows what is there."""
    return f'<a class="{kind}" href="{address(target)}" title="{html.escape(target.says)}">'


def equation_link(match: re.Match[str], book: Book, address: Address) -> str:
    """Return the number of an equation with a link to it."""
    target = book.equations.get(match[1])
    return link(target, match[0], address) if target else match[0]


def module_link(match: re.Match[str], book: Book, address: Address) -> str:
    """Return the name of an imported module with a link to its page."""
    document = document_of(match[2].replace(".", "/"))
    if document not in book.entries:
        return match[0]
    target = Target(document, "", book.entries[document].title)
    return match[1] + link(target, f"minigpt2.{match[2]}", address) + match[3]


def include_link(match: re.Match[str], book: Book, address: Address) -> str:
    """Return the name of an included file with a link to its page."""
    document = f"kernels/{match[2]}"
    if document not in book.paths:
        return match[0]
    target = Target(document, "", book.paths[document])
    return match[1] + link(target, f"{match[2]}.cuh", address) + match[3]
