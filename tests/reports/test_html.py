"""Pages and pictures: no text in them is markup, a formula or a code."""

import os
from html.parser import HTMLParser

import numpy as np
import pytest

from minigpt2.errors import UserError
from minigpt2.reports import plots
from minigpt2.reports.html import render
from minigpt2.reports.plots import draw_lengths
from minigpt2.reports.run_page import Page, run_page
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


class Tags(HTMLParser):
    """The tags of a page with their attributes' names, and all its texts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *(name for name, _ in attributes)))
        self.texts += [value for _, value in attributes]

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_data(self, data):
        self.texts.append(data)


def report_of(text, monkeypatch):
    """A report in which every text that comes from outside is this one."""
    monkeypatch.setattr(plots, "new_figure", without_matplotlib)
    token = Token(0, 1, text, True, 1.0, False, text, text)
    numbers = {"right": 0, "asked": 1, "exact_match": 0.0}
    row = {"test": text, "instruction": text, "input": text, "output": text}
    return run_page(
        Page(
            title=text,
            model=text,
            data=text,
            cuts=text,
            warnings=[text],
            lengths={text: np.array([1, 2])},
            examples={text: [token]},
            samples=[{"step": 1, "question": text, "answer": text, "reward": 0.5}],
            log=[{"step": 1, "token_loss": 1.0, text: text}],
            best=text,
            stopped=text,
            before={text: numbers},
            after={text: numbers},
            answers=[{**row, "before": text, "after": text}],
            settings={text: text, "columns": {text: text}, "test": [text]},
        )
    )


def without_matplotlib(*size):
    raise UserError("not drawn")


ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</title></style></textarea><h1>",
    "<!-- x",
    "]]>&lt;b&gt;{{ 7 * 7 }}{% include 'base.html' %}{# x",
    "javascript:alert(1)",
    "`${alert(1)}`",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_in_a_report_is_a_tag_or_an_attribute(attack, monkeypatch):
    plain, hostile = (Tags(report_of(text, monkeypatch)) for text in ("plain", attack))
    assert hostile.tags == plain.tags
    assert sum(attack in text for text in hostile.texts if text) >= 15


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
