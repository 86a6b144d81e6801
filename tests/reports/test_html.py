"""Pages and pictures: no text in them is markup, a formula or a code."""

import os

import numpy as np
import pytest

from minigpt2.reports.html import render
from minigpt2.reports.plots import draw_lengths
from minigpt2.reports.tokens import Token
from minigpt2.terminal import HIDDEN

HOSTILE = "<b>{{ 7 * 7 }}</b> \x1b[2J \x00 \r \u202eder\u2066 " + os.fsdecode(b"caf\xe9")


def test_a_page_spells_what_a_browser_hides_and_escapes_markup():
    token = Token(0, 1, HOSTILE, True, 1.0, False, f"predicts {HOSTILE!r}", HOSTILE)
    entries = [{"number": HOSTILE, "line": HOSTILE, "tokens": [token]}]
    page = render("show", title=HOSTILE, entries=entries)
    page.encode("utf-8")
    assert not HIDDEN.search(page) and "<b>" not in page
    escaped = "&lt;b&gt;{{ 7 * 7 }}&lt;/b&gt; \\x1b[2J \\x00 \\r \\u202eder\\u2066 caf\\xe9"
    assert page.count(escaped) == 5


NAMES = [
    "$\\frac$.json",
    "$$",
    "a_$_b^",
    "\x1b]0;x",
    os.fsdecode(b"caf\xe9"),
    "🔑 漢字",
    "a\nb",
    "\\",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_has_any_title(tmp_path, name):
    draw_lengths(tmp_path / "x.svg", {"prompt": np.arange(9), "answer": np.arange(9)}, name)
    assert not HIDDEN.search((tmp_path / "x.svg").read_text())
