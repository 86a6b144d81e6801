"""The README's tables of alignment are those of a stored run."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from minigpt2.commands.align_results import tables_of
from tests.align_goals import missed_goals

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "tests/alignment/demonstration.json").read_text(encoding="utf-8"))


def printed(table):
    """The lines of a table as the README has them."""
    console = Console(file=io.StringIO(), width=110)
    console.print(table.printed())
    return "\n".join(f"    {line}".rstrip() for line in console.file.getvalue().splitlines())


@pytest.mark.parametrize("number", range(3))
def test_the_tables_are_those_of_the_stored_run(number):
    assert printed(tables_of(RESULTS)[number]) in README


def test_the_section_names_the_number_of_questions():
    (count,) = re.findall(r"asks\s+(\d+) held-out questions", README)
    assert {exam["greedy"]["all"]["asked"] for exam in RESULTS["exams"].values()} == {int(count)}


def test_the_shares_that_the_section_names_are_those_of_the_run():
    (named,) = re.findall(
        r"([\d.]+) % of the greedy ones are right before, ([\d.]+) % and ([\d.]+) % after", README
    )
    counts = [RESULTS["exams"][name]["greedy"]["all"] for name in ("mixture", "dpo", "ppo")]
    assert named == tuple(f"{100 * c['right'] / c['asked']:.1f}" for c in counts)
    right = [RESULTS["exams"][name]["greedy"]["all"]["right"] for name in ("mixture", "hacked")]
    assert "two thirds of the right\nanswers are gone" in README
    assert 1 - right[1] / right[0] == pytest.approx(2 / 3, abs=0.02)


def test_the_time_that_the_section_names_is_that_of_the_run():
    assert "It takes seven minutes on two cores" in README
    assert round(RESULTS["seconds"] / 60) == 7


def test_the_stored_run_reached_its_goals():
    assert missed_goals(RESULTS) == []
