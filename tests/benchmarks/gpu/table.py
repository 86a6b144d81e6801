"""The table of `make bench-gpu`."""

from rich.table import Table

from tests.benchmarks.peers.worker import BARE

COLUMNS = (
    "ms a step",
    "mean",
    "tokens/s",
    "times ours",
    "memory, GB",
    "floor, ms",
    "share",
    "card idle",
)


def table_of(results, title):
    """All jobs with all contenders; one that failed has its reason below the table."""
    table = Table(title=title, box=None, caption=caption_of(results), caption_justify="left")
    for column in ("job", "contender"):
        table.add_column(column, no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        job = result["job"]
        for name, measured in result["contenders"].items():
            table.add_row(job, name, *cells_of(name, measured))
            job = ""
    return table


def cells_of(name, measured):
    """What is known of one contender; dashes for what is not."""
    if "median" not in measured:
        return ["failed", *"-------"]
    ratio, idle, peak = (measured.get(key) for key in ("times_ours", "idle", "peak_memory"))
    return [
        f"{measured['median'] * 1e3:,.1f}",
        f"{measured['mean'] * 1e3:,.1f}",
        "" if name == BARE else f"{measured['tokens_per_second']:,.0f}",
        "-" if ratio is None else f"{ratio:.2f}",
        "" if name == BARE or not peak else f"{peak / 1e9:.1f}",
        f"{measured['floor'] * 1e3:,.2f}",
        f"{measured['share_of_floor']:.0%}",
        "-" if idle is None else f"{idle:.0%}",
    ]


def caption_of(results):
    """What contenders chose, how long their first step took, and why some failed."""
    lines = []
    for result in results:
        for name, measured in result["contenders"].items():
            parts = [measured["notes"]] if measured.get("notes") else []
            if "compiled" in name and "first_step" in measured:
                parts.append(f"first step, with compilation: {measured['first_step']:.0f} s")
            if "failed" in measured:
                parts.append(f"failed: {measured['failed']}")
            if parts:
                lines.append(f"{result['job']}, {name}: {'; '.join(parts)}")
    return "\n".join(lines)
