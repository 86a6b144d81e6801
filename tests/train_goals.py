"""Whether a run reached the goals of `make train`: `python -m tests.train_goals FOLDER`."""

import json
import sys
from pathlib import Path

BASE_BELOW = 0.10  # exact match before tuning, on either test
TUNED = {"held-out facts": 0.80, "held-out arithmetic": 0.90}  # exact match after tuning
SECONDS = 300


def missed_goals(summary):
    """Every goal that the run of this summary missed, in words."""
    missed = []
    for name, least in TUNED.items():
        before, after = (summary[when][name]["exact_match"] for when in ("before", "after"))
        if before >= BASE_BELOW:
            missed.append(f"{name}: the base answers {before:.1%}, not below {BASE_BELOW:.0%}")
        if after < least:
            missed.append(f"{name}: the tuned model answers {after:.1%}, below {least:.0%}")
    if summary["done"]["seconds"] > SECONDS:
        missed.append(f"it took {summary['done']['seconds']:.0f} s, more than {SECONDS} s")
    return missed


def main(folder):
    """Print the missed goals, or that there are none; return the exit code."""
    missed = missed_goals(json.loads((Path(folder) / "summary.json").read_text()))
    print("\n".join(missed) or f"{folder}: every goal of `make train` is reached")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
