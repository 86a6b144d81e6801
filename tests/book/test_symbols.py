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
        ("p = (4, 2, 1) is", ["p = (4, 2, 1)"]),
        ("so p = (1, 2, 5) / 8, and", ["p = (1, 2, 5) / 8"]),
        ("(½ ln 9, 0), so", ["(½ ln 9, 0)"]),
        ("v is (8, 0) in a row", ["v"]),
        ("ds = p (x − y) = (4·−1, 2·−7) / 9.", ["ds = p (x − y) = (4·−1, 2·−7) / 9"]),
        ("up to G_Q and |A|^½, T^(2/D) or 2^-22,", ["G_Q", "|A|^½", "T^(2/D)", "2^-22"]),
        (
            "v_old, t_backward and m_z: n_head, O_DIRECT, d_model_x, CACHE_BYTES",
            ["v_old", "t_backward", "m_z"],
        ),
        ("2^(c q·k − c m): one", ["2^(c q·k − c m)"]),
        ("it takes 0.2 s forward, 3 · 4.5 = 13.5 s. s = 2: a step", ["3 · 4.5 = 13.5", "s = 2"]),
        ("the L2 cache of an (H200: 17 of them)", []),
        ("sums of γ's and tile t's gradients", ["γ", "t"]),
        ("δ(a, b) = 1 when a = b", ["δ(a, b) = 1", "a = b"]),
        ("f(ln p₁ … ln p_M), −ln p and mean(r)", ["f(ln p₁ … ln p_M)", "−ln p", "mean(r)"]),
        ("so −ln( exp(s) / Σ exp(t) ), the", ["−ln( exp(s) / Σ exp(t) )"]),
        ("the mean of wave functions, clip and so on", []),
        ("for A > 0 and the columns of A: A matrix", ["A > 0", "A"]),
        ("A loss.  A is one. [banks] A warp", []),
        ("keep a ≤ j, and a row", ["a ≤ j"]),
        ("½ (1/8 − 1) · 8 + ½ (1/8) is", ["½ (1/8 − 1) · 8 + ½ (1/8)"]),
        ("as ½ T, take 2 (P + 1) rows", ["½ T", "2 (P + 1)"]),
        ("two of them (1 + 1), of y (1)", ["y"]),
        (
            "14 · 12 · 500.5 or 36 / 16: 25/38 = 0.658",
            ["14 · 12 · 500.5", "36 / 16", "25/38 = 0.658"],
        ),
        ("J*, f*(dy) and gelu*, but ** is not", ["J*", "f*(dy)", "gelu*"]),
        ("C → 3C and 4C of end[j], wte[v]", ["C → 3C", "4C", "end[j]", "wte[v]"]),
        ("How good was t?", ["t"]),
        ("a row of W (C, K), of N·C (q, k)", ["W", "(C, K)", "N·C", "(q, k)"]),
        ("2·(2·ROWS + 4·D) and 4·STAGE, of ROWS", ["2·(2·ROWS + 4·D)", "4·STAGE"]),
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
WORDS += ["A", "(1,", "2)", "½", "·", "γ's", "f(x", "s", "t?"]


@given(st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_the_pieces_of_any_text_are_the_text(text):
    assert "".join(piece for piece, _ in pieces_of(text)) == text
