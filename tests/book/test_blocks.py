"""Blocks of docstrings: what each line is taken for, and that no word is lost."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.blocks import (
    Display,
    Example,
    Figure,
    Heading,
    Item,
    Paragraph,
    Row,
    Title,
    blocks_of,
    title_of,
    title_sentence,
)
from book.links import header_of, read_book
from book.parse import equations_of

BOOK = read_book()
TEXTS = {
    name: header_of(text)
    if name.startswith("kernels/")
    else ast.get_docstring(ast.parse(text)) or ""
    for name, text in BOOK.sources.items()
}

DOCSTRING = """Layer: what it is
for a reader.

Plain text at the margin, which
continues.

Why
    One sentence.  Its next
    line, and a formula:
    dx = dy Wᵀ                        (2.2)
    y  = x W
    and text behind it.

    1. An item, which goes
       on.
    2. Another.
    - a point

Example: x = (1, 2), of two
numbers
    >>> print(1)
    1

    name    what it is
    other   another  thing

        a drawing ─┬─

          └─ below
    Short.
    A new paragraph, for the line above it had room for the first word of this line.
"""


def body_of(*lines):
    return blocks_of("\n".join(["Title: text.", "", *lines]))


def words_of(block):
    if isinstance(block, Display):
        tags = [[row.text, *(f"({number})" for number in row.numbers)] for row in block.rows]
        return " ".join(word for tag in tags for word in tag).split()
    return " ".join(block).split()


def test_each_line_is_what_it_looks_like():
    assert title_of(DOCSTRING) == Title("Layer", "what it is for a reader.")
    assert blocks_of(DOCSTRING) == [
        Paragraph("Plain text at the margin, which continues."),
        Heading("Why", ""),
        Paragraph("One sentence. Its next line, and a formula:"),
        Display((Row("dx = dy Wᵀ", ("2.2",)), Row("y  = x W", ()))),
        Paragraph("and text behind it."),
        Item("1.", "An item, which goes on."),
        Item("2.", "Another."),
        Item("-", "a point"),
        Heading("Example", "x = (1, 2), of two numbers"),
        Example(">>> print(1)\n1"),
        Figure("name    what it is\nother   another  thing\n\n    a drawing ─┬─\n\n      └─ below"),
        Paragraph("Short."),
        Paragraph(
            "A new paragraph, for the line above it had room for the first word of this line."
        ),
    ]


@pytest.mark.parametrize(
    ("line", "block"),
    [
        ("its number in a sentence, as (4.20)", Paragraph),
        ("two spaces.  They end a sentence: nothing  else", Paragraph),
        ("the end is where x = 3 stands.", Paragraph),
        ("a1   b1", Figure),
        ("   further in", Figure),
        ("x = 3", Display),
        ("any row   (4.20)", Display),
        (">>> 1 + 1", Example),
        ("- text", Item),
        ("12. text", Item),
        ("-1 is a number", Paragraph),
        ("text,\n        which hangs", Paragraph),
        ("two sentences.  One:  and a table", Paragraph),
        ("a label:   and its text", Figure),
        ("x̂ᵢ = r   gᵢ = 2\n             dx = 3", Figure),
        ("name    text\n            that goes on\n    naming  no", Figure),
        ("name      text\n              that goes on\n    longname  more", Figure),
        ("a = 1    b = 2\n    h = 0.25 f = 4", Figure),
    ],
)
def test_a_line_below_a_heading(line, block):
    heading, below = body_of("Why", f"    {line}")
    assert heading == Heading("Why", "")
    assert type(below) is block


def test_text_that_is_indented_without_a_heading_is_a_figure():
    assert body_of("    import it", "    use it") == [Figure("import it\nuse it")]


def test_an_equation_may_have_several_numbers():
    (display,) = body_of("    y = x   (3.2) (3.3) (3.4)")
    assert display == Display((Row("y = x", ("3.2", "3.3", "3.4")),))


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        ("[banks] none", True),
        ("Launch: one block", True),
        ("Bytes, with a comma", True),
        ("1/c, a share; and\n        what it is", True),
        ("The tile.  Its rows", True),
        ("The tiles of a row", False),
        ("Bytesize is a word", False),
    ],
)
def test_a_label_behind_a_sentence_begins_a_paragraph(line, begins):
    full = "A sentence that fills its line up to the end, so that nothing else has room in it."
    lines = [f"    {line}" for line in (full, line)]
    assert len(body_of("Why", *lines)) == 2 + begins
    assert len(body_of("Why", lines[0][:-1], lines[1])) == 2


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("Names, on one page", None),
        ("Loss, with w for a weight", "Loss"),
        ("Times, of 3 runs", "Times"),
        ("A loss (of two; or more), of 3 runs", "A loss (of two; or more)"),
        ("Clip (of 2017, equation 7)", None),
    ],
)
def test_a_heading_is_cut_where_mathematics_follows(heading, title):
    found = body_of(heading, "    text")[0]
    assert found == Heading(title, heading[len(title) + 2 :]) if title else Heading(heading, "")


@pytest.mark.parametrize("ending", [".", ",", ":", ";"])
def test_a_line_that_goes_on_or_ends_a_sentence_is_no_heading(ending):
    above, _ = body_of(f"It is{ending}", "    x = 3")
    assert above == Paragraph(f"It is{ending}")


def test_three_lines_above_indented_text_are_no_heading():
    assert type(body_of("one", "two", "three", "    x = 3")[0]) is Paragraph


@pytest.mark.parametrize("name", TEXTS)
def test_no_word_of_the_book_is_lost(name):
    title = title_sentence(TEXTS[name]).split()
    behind = TEXTS[name].split()[len(title) :]
    assert TEXTS[name].split()[: len(title)] == title
    found = [word for block in blocks_of(TEXTS[name]) for word in words_of(block)]
    assert [word.strip(",:;") for word in found] == [word.strip(",:;") for word in behind]


@pytest.mark.parametrize("name", [name for name in BOOK.entries if name in BOOK.sources])
def test_every_equation_is_set_as_one(name):
    rows = [row for b in blocks_of(TEXTS[name]) if isinstance(b, Display) for row in b.rows]
    numbers = [number for row in rows for number in row.numbers]
    defined = equations_of(BOOK.sources[name]).defined
    assert numbers == [f"{chapter}.{number}" for _, (chapter, number) in defined]


INDENTATIONS = ["", "  ", "    ", "        "]
CONTENTS = ["", "Why", "text.", "more text,", "x = 3", "x = 3   (4.1)", "(4.2)", ">>> 1"]
CONTENTS += ["- item", "1. item", "a   b", "one  two", "two  three", "[b] text.", "x̂   y"]
LINES = st.lists(st.builds(str.__add__, st.sampled_from(INDENTATIONS), st.sampled_from(CONTENTS)))


@given(LINES)
def test_no_word_of_any_text_is_lost(lines):
    found = [word for block in body_of(*lines) for word in words_of(block)]
    assert found == " ".join(lines).split()
