"""Screen: tables in terminals of any width."""

import io

import pytest

from minigpt2.reports.screen import Screen, new_table


@pytest.mark.parametrize("width", [*range(1, 60), 80, 200])
def test_no_part_of_a_number_is_hidden(width):
    table = new_table("Memory", "", "without recompute", "with recompute", "total")
    rows = [("activations", "1,118 MB", "66 MB", "12,345,678"), ("a", "1", "2", "3")]
    for row in rows:
        table.add_row(*row)
    screen = Screen(width=width, file=io.StringIO())
    screen.print(table)
    lines = screen.file.getvalue().splitlines()
    assert [line.split() for line in lines[-2:]] == [" ".join(row).split() for row in rows]
    if width >= 80:
        assert max(map(len, lines)) <= width
