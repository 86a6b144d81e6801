"""Every derivative in the book, checked and printed: `python -m tests.gradcheck`.

A row is one argument of one op, or one parameter of the whole model.  It passes when the complex
step agrees to rounding, the central differences to second order (exactly where the function is
linear in the argument), and when every backward pass that was broken on purpose is noticed.
"""

import importlib
import importlib.util
import sys
from itertools import chain
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.gradients import (
    CAUGHT,
    EXACT,
    STEPS,
    bugs_of,
    central_difference_errors,
    complex_step_error,
    follows_its_order,
    is_caught,
    zeros,
)

# Modules with a tuple CASES, and a dict SIZES of what the letters in shapes stand for there.
CHAPTERS = (
    "tests.ops.cases",
    "tests.model.cases",
    "tests.model.head_cases",
    "tests.model.lora_cases",
    "tests.alignment.cases",
    "tests.alignment.policy_cases",
    "tests.alignment.preference_cases",
)


class Row(NamedTuple):
    """What was found for one argument of one case."""

    case: str
    argument: str
    exact: object  # Disagreement with the complex step
    central: tuple  # Disagreements with central differences, one for each step
    linear: bool
    in_order: bool
    caught: int
    planted: int
    zeros_caught: bool

    @property
    def passed(self):
        """Whether nothing is wrong with this gradient, and the check could have seen it."""
        agrees = self.exact.error <= EXACT and self.in_order
        return agrees and self.caught == self.planted and self.zeros_caught


def check(case, argument):
    """Try one gradient of one case against both witnesses and against its bugs."""
    central = central_difference_errors(case, argument)
    bugs = bugs_of(case, argument)
    return Row(
        case.name,
        argument,
        complex_step_error(case, argument),
        central,
        argument in case.linear_in,
        follows_its_order(case, argument, central),
        sum(is_caught(case, argument, bug) for bug in bugs.values()),
        len(bugs),
        is_caught(case, argument, zeros),
    )


def cases_of(module):
    """The cases of a test module, or none while that module isn't written."""
    exists = importlib.util.find_spec(module) is not None
    return importlib.import_module(module).CASES if exists else ()


def sizes_of(module):
    """The sizes that a test module's cases have."""
    exists = importlib.util.find_spec(module) is not None
    return getattr(importlib.import_module(module), "SIZES", {}) if exists else {}


def rows():
    """Check every argument of every case, ops first, then the whole model."""
    for case in chain.from_iterable(map(cases_of, CHAPTERS)):
        for argument in case.arguments:
            yield check(case, argument)


def show(row):
    """The row's cells, red where it fails."""
    order = "exact" if row.linear else "h²"
    cells = (
        row.case,
        row.argument,
        f"{row.exact.error:.0e}",
        *(f"{one.error:.0e}" for one in row.central),
        order if row.in_order else f"not {order}",
        f"{row.caught}/{row.planted}" if row.planted else "-",
        "yes" if row.passed else "NO",
    )
    return cells if row.passed else tuple(f"[bold red]{cell}[/]" for cell in cells)


def main():
    """Print the table; return 1 if a row fails, else 0."""
    table = Table(title="Every gradient against two witnesses, relative errors in float64")
    for heading in ("op", "argument"):
        table.add_column(heading, no_wrap=True)
    steps = (f"h = {h:g}" for h in STEPS)
    for heading in ("complex step", *steps, "order", "bugs caught", "right"):
        table.add_column(heading, justify="right")
    found = list(rows())
    for row in found:
        table.add_row(*show(row))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    failed = [row for row in found if not row.passed]
    for row in failed:
        console.print(f"{row.exact}; {'; '.join(map(str, row.central))}", highlight=False)
    planted = sum(row.planted for row in found)
    console.print(
        f"{len(found) - len(failed)} of {len(found)} gradients are right.  "
        f"{sum(row.caught for row in found)} of {planted} planted bugs, and a gradient of zeros "
        f"for each row, show an error above {CAUGHT:g}.",
        highlight=False,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
