"""Tables: how numbers are printed in the terminal."""

from rich.table import Table


def table_of(title: str, *columns: str) -> Table:
    """Return an empty table: names to the left, numbers to the right."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, header_style="dim"
    )
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table
