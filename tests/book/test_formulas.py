"""Formulas as MathML: every character keeps its place, and what is below and above is there."""

import html
import re
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.formulas import ABOVE, BELOW, mathml
from book.links import read_book

EQUATIONS = {number: target.says for number, target in read_book().equations.items()}


def shown(text):
    """The MathML of a formula with short names, without spaces and attributes."""
    page = re.sub(r"<mspace[^>]*></mspace>", "", mathml(text))
    return re.sub(r" \w+=\"[^\"]*\"", "", page).removeprefix("<math>").removesuffix("</math>")


def characters_of(text):
    """What a reader sees: letters without their places, and no parentheses or spaces."""
    flat = "".join(BELOW.get(c, ABOVE.get(c, c)) for c in text)
    flat = flat.replace("\N{COMBINING CIRCUMFLEX ACCENT}", "^").replace("Σ", "∑").replace("*", "∗")
    return re.sub(r"[\s(){}_^∑√]", "", flat)


def text_of(text):
    """The characters of the MathML of a formula; it must be well-formed."""
    return "".join(ElementTree.fromstring(mathml(text)).itertext())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", "<mi>x</mi>"),
        ("dx", "<mi>d</mi><mi>x</mi>"),
        ("exp", "<mi>exp</mi>"),
        ("1,024.5", "<mn>1,024.5</mn>"),
        ("sᵢⱼ", "<msub><mi>s</mi><mrow><mi>i</mi><mi>j</mi></mrow></msub>"),
        ("W₁₂", "<msub><mi>W</mi><mrow><mn>12</mn></mrow></msub>"),
        ("x²", "<msup><mi>x</mi><mrow><mn>2</mn></mrow></msup>"),
        (
            "β₁ˢ",
            "<msubsup><mi>β</mi><mrow><mn>1</mn></mrow><mrow><mi>s</mi></mrow></msubsup>",
        ),
        (
            "π_old,n",
            "<msub><mi>π</mi><mrow><mi>old</mi><mo>,</mo><mi>n</mi></mrow></msub>",
        ),
        (
            "β^(s−j)",
            "<msup><mi>β</mi><mrow><mi>s</mi><mo>−</mo><mi>j</mi></mrow></msup>",
        ),
        ("x̂", "<mover><mi>x</mi><mo>^</mo></mover>"),
        ("√(a + b)", "<msqrt><mi>a</mi><mo>+</mo><mi>b</mi></msqrt>"),
        ("√v̂ / c", "<msqrt><mover><mi>v</mi><mo>^</mo></mover></msqrt><mo>/</mo><mi>c</mi>"),
        ("√((a) b)", "<msqrt><mo>(</mo><mi>a</mi><mo>)</mo><mi>b</mi></msqrt>"),
        (
            "drop*(x)",
            "<msup><mi>drop</mi><mrow><mo>∗</mo></mrow></msup><mo>(</mo><mi>x</mi><mo>)</mo>",
        ),
        ("m′", "<msup><mi>m</mi><mrow><mo>′</mo></mrow></msup>"),
        (
            "ℓₙᵥ′",
            "<msub><mi>ℓ</mi><mrow><mi>n</mi><msup><mi>v</mi><mo>′</mo></msup></mrow></msub>",
        ),
        ("a < b", "<mi>a</mi><mo>&lt;</mo><mi>b</mi>"),
        ("CACHE_BYTES", "<mtext>CACHE_BYTES</mtext>"),
        ("k-th", "<mi>k-th</mi>"),
        ("d_residualᵢ", "<msub><mtext>d_residual</mtext><mrow><mi>i</mi></mrow></msub>"),
        ("x^½", "<msup><mi>x</mi><mrow><mn>½</mn></mrow></msup>"),
        ("2^-22", "<msup><mn>2</mn><mrow><mo>-</mo><mn>22</mn></mrow></msup>"),
        (
            "x^(−3/2)",
            "<msup><mi>x</mi><mrow><mo>−</mo><mn>3</mn><mo>/</mo><mn>2</mn></mrow></msup>",
        ),
        ("⅓", "<mn>⅓</mn>"),
        ("a += b", "<mi>a</mi><mo>+=</mo><mi>b</mi>"),
    ],
)
def test_a_formula(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("text", "is_sign"),
    [("−x", True), ("x − y", False), ("x = −y", True), ("(−x)", True), ("(x) − y", False)],
)
def test_a_sign_is_no_difference(text, is_sign):
    assert ('form="prefix">−' in mathml(text)) == is_sign


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("mean over", "0.3em"),
        ("of Σ", "0.3em"),
        ("n with", "0.3em"),
        (", which", "0.3em"),
        ("ln p", "0.17em"),
        ("x y", "0.17em"),
        ("Σ x", "0.17em"),
        (", y", None),
        ("x = y", None),
        ("( x", None),
        ("( word", None),
        ("word )", None),
        ("x  y", "1.2em"),
    ],
)
def test_how_wide_a_space_is(text, width):
    found = re.findall(r'<mspace width="([^"]*)">', mathml(text))
    assert found == ([width] if width else [])


def test_every_script_of_the_book_is_known():
    characters = set("".join(read_book().sources.values()))
    small = {c for c in characters if unicodedata.decomposition(c).startswith(("<sup", "<sub"))}
    assert len(small) > 30
    assert small <= {*BELOW, *ABOVE}


@pytest.mark.parametrize("number", EQUATIONS)
def test_an_equation_of_the_book_loses_no_character(number):
    found, expected = characters_of(text_of(EQUATIONS[number])), characters_of(EQUATIONS[number])
    if re.search("ᶜₙ|′ₜ", EQUATIONS[number]):  # MathML names what is below first
        found, expected = sorted(found), sorted(expected)
    assert found == expected


@given(st.text(alphabet="xWdσΣ√∂ᵢⱼ₁²ᵏ′̂ˢ_^(){}[]=−+/·|<>&,.;: 12eab*'\"-…", max_size=30))
def test_any_text_is_well_formed(text):
    assert text_of(text) is not None


def test_what_is_shown_is_escaped():
    assert html.escape("<script>") not in mathml("x")
    assert "<script>" not in mathml("<script>&")


def test_the_tables_of_scripts_agree_with_unicode():
    for table in (BELOW, ABOVE):
        for small, letter in table.items():
            assert unicodedata.normalize("NFKC", small) == letter
