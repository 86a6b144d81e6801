"""What `make train` promises, held against a finished run: `python -m tests.bounds FOLDER`."""

import json
import sys
from pathlib import Path

BASE_BELOW = 0.10  # exact match before tuning, on either test
TUNED = {"held-out facts": 0.80, "held-out arithmetic": 0.90}  # exact match after tuning
SECONDS = 300


def faults(summary):
    """Every promise that the run of this summary breaks, in words."""
    found = []
    for name, least in TUNED.items():
        before, after = (summary[when][name]["exact_match"] for when in ("before", "after"))
        if before >= BASE_BELOW:
            found.append(f"{name}: the base answers {before:.1%}, not below {BASE_BELOW:.0%}")
        if after < least:
            found.append(f"{name}: the tuned model answers {after:.1%}, below {least:.0%}")
    if summary["done"]["seconds"] > SECONDS:
        found.append(f"it took {summary['done']['seconds']:.0f} s, more than {SECONDS} s")
    return found


def main(folder):
    """Print the faults, or that there are none; return the exit code."""
    found = faults(json.loads((Path(folder) / "summary.json").read_text()))
    print("\n".join(found) or f"{folder}: every bound of `make train` holds")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
