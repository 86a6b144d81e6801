"""Symbols in prose: what is set as mathematics, and what stays as it is."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.blocks import Item, Paragraph, blocks_of
from book.links import read_book
from book.symbols import pieces_of

BOOK = read_book()


def formulas_in(text):
    return [piece for piece, is_formula in pieces_of(text) if is_formula]


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("xᵢ feeds every x̂ⱼ.  Sum", ["xᵢ", "x̂ⱼ"]),
        ("(when i = j), through μ", ["i = j", "μ"]),
        ("where (xᵢ − μ) r = x̂ᵢ by", ["(xᵢ − μ) r = x̂ᵢ"]),
        ("1/C multiplies, so 4·D is it", ["1/C", "4·D"]),
        ("a word, an A and I do it", []),
        ("ℓ = a = 0.  A new block", ["ℓ = a = 0"]),
        ("λ = ln 4 + ln 2.25 = ln 9:", ["λ = ln 4 + ln 2.25 = ln 9"]),
        ("take 72 · 12 · 768² operations", ["72 · 12 · 768²"]),
        ("2 + 3 is no formula", []),
        ("dx and dW, but do and de-facto", ["dx", "dW"]),
        ("j ≤ i < end[j] says", ["j ≤ i < end[j]"]),
        ("exp(s − m) exp(m − m′), so", ["exp(s − m) exp(m − m′)"]),
        ("`x` is code", []),
        ("p = (4, 2, 1) is", ["p"]),
        ("(T + 1)/2 rows, 24·C² = 4·C·(T + 1)/2, gives", ["(T + 1)/2", "24·C² = 4·C·(T + 1)/2"]),
        ("its words' I/O", []),
    ],
)
def test_what_is_mathematics(text, formulas):
    assert formulas_in(text) == formulas


@pytest.mark.parametrize("name", [name for name, entry in BOOK.entries.items() if entry.number])
def test_the_pieces_of_a_chapter_are_its_text(name):
    docstring = ast.get_docstring(ast.parse(BOOK.sources[name]))
    for block in blocks_of(docstring):
        if isinstance(block, Paragraph | Item):
            assert "".join(piece for piece, _ in pieces_of(block.text)) == block.text


WORDS = ["x", "a", "=", "−", "(x", "y)", "1/C", "word", "3", "xᵢ,", "", "ln", "(", ").", "end[j]"]


@given(st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_the_pieces_of_any_text_are_the_text(text):
    assert "".join(piece for piece, _ in pieces_of(text)) == text
