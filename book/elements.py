"""Elements of pages: the blocks of a docstring, and texts with links, as nodes of docutils."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from docutils import nodes

from book.blocks import Block, Display, Example, Figure, Heading, Item, Paragraph, Row
from book.links import MENTION, Book, Target, anchor_of, target_of, used_in
from book.nodes import EquationNode, FormulaNode, LinkNode, ListingNode
from book.symbols import is_balanced, pieces_of

LONG = 30  # characters of a formula that a narrow line may have to break
RELATION = re.compile(r"(?:^| )\+?[=→←] ")


class Context(NamedTuple):
    """What page a text is on."""

    book: Book
    has_symbols: bool = False  # whether letters in its sentences are mathematics
    defines: bool = False  # whether its equations are its own; others repeat those of a chapter


def titled(title: str, name: str) -> nodes.section:
    """Return a section with a title, and an anchor that is made of a name."""
    section = nodes.section(ids=[nodes.make_id(name)])
    section += nodes.title(title, title)
    return section


def summary(text: str, context: Context) -> nodes.paragraph:
    """Return the line below the title of a page, with a capital if it begins with a word."""
    begins_with_word = re.match(r"[a-z]{2}|a ", text)
    return lead(text[0].upper() + text[1:] if begins_with_word else text, context)


def lead(text: str, context: Context) -> nodes.paragraph:
    """Return the line below a heading."""
    return nodes.paragraph("", "", *prose(text, context), classes=["lead"])


def prose(text: str, context: Context) -> list[nodes.Node]:
    """Return a sentence: code in backquotes, links, and symbols set as in equations."""
    found: list[nodes.Node] = []
    for piece in with_links(text, context.book):
        if isinstance(piece, nodes.Text) and context.has_symbols:
            found += with_formulas(str(piece))
        else:
            found.append(piece)
    return found


def with_formulas(text: str) -> Iterator[nodes.Node]:
    """Yield a text with its formulas; a formula keeps what it touches, such as a comma."""
    pieces = [*pieces_of(text), ("", False)]
    plain = ""
    for place, (piece, is_formula) in enumerate(pieces):
        if not is_formula:
            plain += piece
            continue
        words = re.fullmatch(r"(.*?)(\S*)", plain, re.DOTALL)
        touching = re.match(r"\S*", pieces[place + 1][0] if not pieces[place + 1][1] else "")
        assert words and touching
        yield nodes.Text(words[1])
        parts = parts_of(piece)
        for number, part in enumerate(parts):
            before = words[2] if number == 0 else ""
            behind = touching[0] if number == len(parts) - 1 else ""
            yield FormulaNode(part, part, before=before, behind=behind, continues=number > 0)
        plain = ""
        pieces[place + 1] = (pieces[place + 1][0][touching.end() :], pieces[place + 1][1])
    yield nodes.Text(plain)


def parts_of(formula: str) -> list[str]:
    """Cut a long formula before equals signs, where a line may end, but not soon after it began."""
    parts, first = [], 0
    for sign in re.finditer(r" (?== )", formula if len(formula) > LONG else ""):
        if sign.start() - first > LONG / 3 and is_balanced(formula[first : sign.start()]):
            parts.append(formula[first : sign.start()])
            first = sign.end()
    return [*parts, formula[first:]]


def with_links(text: str, book: Book, keep_quotes: bool = False) -> Iterator[nodes.Node]:
    """Yield a text, with links where it points at something in the book.

    Code in backquotes is set as code, unless a figure must `keep_quotes`: each character its place.
    """
    end = 0
    for mention in MENTION.finditer(text):
        target, code = target_of(mention, book), mention["code"]
        if target or code:
            as_code = code and not keep_quotes
            shown = nodes.literal(text=code) if as_code else nodes.Text(mention[0])
            yield nodes.Text(text[end : mention.start()])
            yield link_to(target, shown) if target else shown
            end = mention.end()
    yield nodes.Text(text[end:])


def link_to(target: Target, shown: nodes.Node | str) -> LinkNode:
    """Return a link to a target."""
    return LinkNode("", "", nodes.Text(shown) if isinstance(shown, str) else shown, target=target)


def add_blocks(page: nodes.section, blocks: Iterable[Block], context: Context) -> None:
    """Add the blocks of a text to a page; a heading opens a section."""
    place: nodes.Element = page
    for number, block in enumerate(blocks):
        if isinstance(block, Heading):
            place = titled(block.text, f"{block.text}-{number}")
            page += place
            if block.rest:
                place += lead(block.rest, context)
        elif isinstance(block, Item):
            add_item(place, block, context)
        else:
            place += element_of(block, context)


def add_item(place: nodes.Element, item: Item, context: Context) -> None:
    """Add an item to the list that a place ends with, or to a new one."""
    kind = nodes.bullet_list if item.mark == "-" else nodes.enumerated_list
    if not place.children or not isinstance(place.children[-1], kind):
        place += kind()
    entry = nodes.list_item("", nodes.paragraph("", "", *prose(item.text, context)))
    place.children[-1].append(entry)


def element_of(block: Block, context: Context) -> nodes.Element:
    """Return a block as an element of a page."""
    if isinstance(block, Display):
        return equations(block, context)
    if isinstance(block, Example):
        code = re.sub(r"^<BLANKLINE>", "", block.text, flags=re.MULTILINE)
        return ListingNode(code, code, language="pycon", first=0)
    if isinstance(block, Figure):
        # Sphinx colours a block as code if its source is its text.
        inside = with_links(block.text, context.book, keep_quotes=True)
        return nodes.literal_block("a figure", "", *inside, classes=["figure"])
    assert isinstance(block, Paragraph)
    return nodes.paragraph("", "", *prose(block.text, context))


def equations(display: Display, context: Context) -> nodes.container:
    """Return equations one below the other, aligned at their signs if several have one."""
    signs = [RELATION.search(row.text) for row in display.rows]
    is_aligned = sum(sign is not None for sign in signs) > 1
    group = nodes.container(classes=["equations", "aligned"] if is_aligned else ["equations"])
    for row, sign in zip(display.rows, signs, strict=True):
        place = sign.start() if is_aligned and sign else 0
        whole = re.sub(r" +(?=\+?[=→←] )", " ", row.text)  # spaces may align it with other lines
        columns = [row.text[:place], row.text[place:]] if is_aligned and sign else [whole]
        group += equation(row, columns, context)
    return group


def equation(row: Row, columns: list[str], context: Context) -> EquationNode:
    """Return an equation, in one column or two, with its numbers and its anchor."""
    node = EquationNode("", "", links=[], anchor="")
    for column in columns:
        side = nodes.inline(classes=["formula"] if len(columns) > 1 else ["formula", "whole"])
        for piece in with_links(column, context.book):
            text = piece.astext()
            side += FormulaNode(text, text) if isinstance(piece, nodes.Text) else piece
        node += side
    for number in row.numbers:
        target = context.book.equations[number]
        if context.defines:
            node["anchor"] = target.anchor
            target = place_of_uses(number, context.book)
        node["links"].append((number, target))
    return node


def place_of_uses(number: str, book: Book) -> Target:
    """Return where a page lists the uses of its equation, or the equation, if there are none."""
    anchor = anchor_of(number)
    if used_in(number, book):
        return Target("", f"used-{anchor}", f"where ({number}) is used")
    return Target("", anchor, "a step of this derivation")
