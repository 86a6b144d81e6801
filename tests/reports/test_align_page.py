"""The page of align shows the tables, the figure and the answers."""

import sys

import pytest

from minigpt2.reports.align_page import Grid, align_page

RESULTS = {
    "curves": {
        name: {"reward": [(1, 0.0), (2, 0.5)], "right": [(0, 0.7), (2, last)]}
        for name, last in (("ppo", 0.68), ("hacked", 0.1))
    },
    "answers": [{"question": "1 < 2?", "reference": "Yes.", "ppo": "<b>No.</b>"}],
}
TABLE = Grid("Direct answers", ("", "direct"), [["PPO", "97.5%"]])


def test_tables_and_answers_are_shown_as_text():
    page = align_page(RESULTS, [TABLE])
    assert "<h2>Direct answers</h2>" in page and "97.5%" in page
    assert "1 &lt; 2?" in page and "&lt;b&gt;No.&lt;/b&gt;" in page


def test_both_runs_are_in_the_figure():
    pytest.importorskip("matplotlib")
    page = align_page(RESULTS, [TABLE])
    assert page.count("<svg") == 1
    for text in ("honest", "hacked", "right answers, %"):
        assert text in page


def test_without_matplotlib_the_page_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = align_page(RESULTS, [TABLE])
    assert "<svg" not in page and "matplotlib is not installed" in page


def test_a_table_is_printed_with_its_columns():
    assert [column.header for column in TABLE.printed().columns] == ["", "direct"]
