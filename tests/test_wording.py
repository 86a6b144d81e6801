"""Wording: numbers as people read them."""

from hypothesis import given
from hypothesis import strategies as st

from minigpt2.wording import duration, plural, rounded, shorten, size


@given(st.text(), st.integers(1, 50))
def test_a_shortened_text_is_one_line_and_fits(text, width):
    line = shorten(text, width)
    assert len(line) <= width and "\n" not in line
    assert line == " ".join(text.split()) or line.endswith("…")


def test_one_is_singular_and_large_numbers_have_separators():
    assert plural(1, "step") == "1 step" and plural(0, "step") == "0 steps"
    assert plural(1_000_000, "parameter") == "1,000,000 parameters"


def test_sizes_and_times_have_units():
    assert size(3.1e9) == "3.10 GB" and size(254_100_000) == "254 MB"
    assert duration(0.011) == "0.011 s" and duration(59.6) == "60 s"
    assert duration(180) == "3 min" and duration(36_000) == "10.0 h"


def test_a_number_that_rounds_to_zero_has_no_sign():
    for number, text in {-1e-9: "0.000", 1e-9: "0.000", -0.001: "-0.001", 2.5: "2.500"}.items():
        assert rounded(number, ".3f") == text
    assert rounded(-1e-4, "+.2f") == "0.00" and rounded(0.5, "+.2f") == "+0.50"
