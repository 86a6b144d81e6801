"""Run all rows, two at a time, and print those that do not hold.

python -m tests.inputs            all of them
python -m tests.inputs brackets   those whose kind, name or command has the word
"""

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from rich.progress import track

from tests.inputs.rows import rows_by_kind
from tests.inputs.run import CONTROL, check, timed

AT_ONCE = 2
SHOWN = 4  # lines at the beginning and at the end of what is printed


def main(words):
    """Run the rows that have all words; return the number of those that do not hold."""
    started, control = monotonic(), timed(CONTROL)
    rows = [
        (kind, row)
        for kind, members in rows_by_kind().items()
        for row in members
        if all(word in f"{kind}: {row.name}: {row.command}" for word in words)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        checked = pool.map(lambda pair: (*pair, check(pair[1], control)), rows)
        results = list(track(checked, "running", total=len(rows)))
    for number, (kind, row, faults) in enumerate(results):
        if any("not over" in fault for fault in faults):  # perhaps the machine is busy now
            results[number] = (kind, row, check(row, max(control, timed(CONTROL))))
    counts = Counter()
    for kind, row, faults in results:
        counts[kind, not faults] += 1
        if faults:
            *faults, printed = faults
            print(f"{kind}: {row.name}: minigpt2 {row.command!a}")
            print("".join(f"    - {fault}\n" for fault in faults) + ascii_lines(printed))
    for kind in dict.fromkeys(kind for kind, _ in rows):
        print(
            f"{kind:<14}{counts[kind, True]:>4} of {sum(counts[kind, ok] for ok in (True, False))}"
        )
    wrong = sum(count for (_, ok), count in counts.items() if not ok)
    refused = sum(bool(row.code) for _, row in rows)
    print(
        f"{len(rows) - wrong} of {len(rows)} inputs are handled right: {refused} to refuse, "
        f"{len(rows) - refused} to get right; {monotonic() - started:.0f} s"
    )
    return wrong


def ascii_lines(text):
    """The first lines of a text and the last, indented, with escapes."""
    lines = [f"        {ascii(line)[1:-1][:200]}" for line in text.splitlines()]
    if len(lines) > 2 * SHOWN:
        lines[SHOWN:-SHOWN] = ["        ..."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
