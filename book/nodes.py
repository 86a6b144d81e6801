"""Elements of a page that Sphinx lacks: links, formulas, equations, listings; and their HTML."""

import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from book.formulas import mathml
from book.links import Target, read_book
from book.listing import Address, listing, opened


class LinkNode(nodes.Inline, nodes.TextElement):
    """Text that leads to `target`."""


class EquationNode(nodes.Part, nodes.TextElement):
    """An equation with its numbers, `links` of each to a target; or a formula without one."""


class FormulaNode(nodes.Inline, nodes.TextElement):
    """A formula in plain text, which is shown as mathematics; a line may end before a part."""


class ListingNode(nodes.literal_block):
    """Source code, in `language`, whose first line has the number `first`; 0 for none."""


def address_on(visitor: Any) -> Address:
    """Return the function that gives the address of a target from the page being written."""
    builder = visitor.builder

    def address(target: Target) -> str:
        here = builder.current_docname
        page = builder.get_relative_uri(here, target.document) if target.document else ""
        return f"{page}#{target.anchor}" if target.anchor else page or "#"

    return address


def visit_link(visitor: Any, node: LinkNode) -> None:
    """Open a link, which shows what is there."""
    visitor.body.append(opened(node["target"], "reference internal", address_on(visitor)))


def depart_link(visitor: Any, node: LinkNode) -> None:
    """Close a link."""
    visitor.body.append("</a>")


def visit_equation(visitor: Any, node: EquationNode) -> None:
    """Open an equation; its anchor is its number's."""
    anchor = f' id="{node["anchor"]}"' if node["anchor"] else ""
    visitor.body.append(f'<div class="equation"{anchor}>')


def depart_equation(visitor: Any, node: EquationNode) -> None:
    """Close an equation with its numbers, each of which leads to where it is used."""
    if node["links"]:
        links = (
            f"{opened(target, 'number', address_on(visitor))}({number})</a>"
            for number, target in node["links"]
        )
        visitor.body.append(f'<span class="numbers">{" ".join(links)}</span>')
    visitor.body.append("</div>\n")


def visit_formula(visitor: Any, node: FormulaNode) -> None:
    """Write a formula, on one line with what it touches; spaces at its ends are the sentence's."""
    text = node.astext()
    before, behind = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    formula = f"{before}{mathml(text.strip())}{behind}" if text.strip() else text
    if node.get("before") or node.get("behind"):
        before, behind = html.escape(node["before"]), html.escape(node["behind"])
        formula = f'<span class="together">{before}{formula}{behind}</span>'
    visitor.body.append(f"<wbr>{formula}" if node.get("continues") else formula)
    raise nodes.SkipNode


def visit_listing(visitor: Any, node: ListingNode) -> None:
    """Write a listing."""
    code = listing(node.astext(), node["language"], node["first"], read_book(), address_on(visitor))
    visitor.body.append(f'<div class="highlight-{node["language"]}">{code}</div>\n')
    raise nodes.SkipNode


def add_nodes(app: Sphinx) -> None:
    """Make the elements known to Sphinx."""
    app.add_node(LinkNode, html=(visit_link, depart_link))
    app.add_node(EquationNode, html=(visit_equation, depart_equation))
    app.add_node(FormulaNode, html=(visit_formula, None))
    app.add_node(ListingNode, html=(visit_listing, None))
