"""What was measured on a GPU, as it stands in README.md and kernels/README.md.

`python -m tests.benchmarks.gpu.report --training runs/gpu.json --decoding runs/gpu-decode.json
--profile runs/profile.json` takes the medians from the benchmarks' files into measured.json, and
writes the tables from there into the pages, each between its two comments.  Without arguments it
writes the tables again; it returns 1 if a page had others.
"""

import argparse
import json
import sys
from pathlib import Path

from minigpt2.shipped import shipped
from tests.benchmarks.gpu.decode import OURS as OUR_DECODING
from tests.benchmarks.gpu.race import OURS

HERE = Path(__file__).parent
KEPT = HERE / "measured.json"
ROOT = HERE.parents[2]
END = "<!-- end -->\n"
TRAINING, DECODING = "<!-- measured: make bench-gpu -->\n", "<!-- measured: decoding -->\n"
PROFILE = "<!-- measured: make profile-gpu -->\n"
ROW = (
    "median",
    "tokens_per_second",
    "peak_memory",
    "floor",
    "share_of_floor",
    "times_ours",
    "idle",
)


def summary_of(kind, results):
    """What the tables need of a benchmark's file."""
    if kind == "profile":
        return [
            {key: r[key] for key in ("job", "median", "busy", "parts")}
            | {"card": r["card"]["name"]}
            for r in results
        ]
    keys = ("job", "precision", "sequences", "new", "floor", "model")
    return [
        {key: result[key] for key in keys if key in result}
        | {
            "card": result["card"]["name"],
            "contenders": {
                name: {key: row[key] for key in ROW if row.get(key) is not None}
                for name, row in result["contenders"].items()
                if "median" in row
            },
        }
        for result in results
    ]


def best_of(contenders):
    """The name and the row of PyTorch's fastest contender; None and {} without one."""
    peers = {name: row for name, row in contenders.items() if "PyTorch" in name}
    name = min(peers, key=lambda n: peers[n]["median"], default=None)
    return name, peers.get(name, {})


def training_table(results):
    """A row for each job: ours, its floor, and the fastest of PyTorch's contenders."""
    heads = ["job", "ms a step", "tokens/s", "GB", "floor, ms", "reached"]
    heads += ["fastest PyTorch", "ms", "GB", "times ours"]
    lines = [heads, ["---"] * 2 + ["---:"] * 4 + ["---"] + ["---:"] * 3]
    for result in results:
        ours, (name, peer) = result["contenders"][OURS], best_of(result["contenders"])
        lines.append(
            [
                result["job"],
                f"{ours['median'] * 1e3:.1f}",
                f"{ours['tokens_per_second']:,.0f}",
                f"{ours['peak_memory'] / 1e9:.1f}",
                f"{ours['floor'] * 1e3:.1f}",
                f"{ours['share_of_floor']:.0%}",
                name.removeprefix("PyTorch, ") if name else "",
                f"{peer['median'] * 1e3:.1f}" if peer else "",
                f"{peer['peak_memory'] / 1e9:.1f}" if peer else "",
                f"{peer['times_ours']:.2f}" if peer else "",
            ]
        )
    return markdown(lines)


def decoding_table(results):
    """A row for each precision and number of sequences: tokens a second of each contender."""
    names = list(dict.fromkeys(name for result in results for name in result["contenders"]))
    peers = [name for name in names if name != OUR_DECODING]
    heads = ["decoding", "tokens/s", "reached", *(n.removeprefix("decode: ") for n in peers)]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for result in results:
        rows, many = result["contenders"], result["sequences"]
        ours = rows[OUR_DECODING]
        sequences = f"{many} sequence{'s' * (many > 1)}"
        speeds = (rows[n]["tokens_per_second"] if n in rows else None for n in peers)
        lines.append(
            [
                f"{result['model']}, {result['precision']}, {sequences}",
                f"{ours['tokens_per_second']:,.0f}",
                f"{ours['share_of_floor']:.0%}",
                *("" if speed is None else f"{speed:,.0f}" for speed in speeds),
            ]
        )
    return markdown(lines)


def profile_table(results):
    """For each job the GPU's milliseconds by part of a step, and the share of the floor reached."""
    parts = list(dict.fromkeys(part for result in results for part in result["parts"]))
    heads = ["part", *(cell for r in results for cell in (f"{r['job']}: ms", "floor", "reached"))]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for part in parts:
        cells = [part]
        for result in results:
            seconds, floor = result["parts"].get(part, (0, 0))
            cells += [f"{seconds * 1e3:.2f}", f"{floor * 1e3:.2f}" if floor else ""]
            cells.append(f"{floor / seconds:.0%}" if floor and seconds else "")
        lines.append(cells)
    total = ["GPU busy"]
    for result in results:
        floor = sum(floor for _, floor in result["parts"].values())
        total += [f"{result['busy'] * 1e3:.2f}", f"{floor * 1e3:.2f}"]
        total.append(f"{floor / result['busy']:.0%}")
    return markdown([*lines, total])


def markdown(lines):
    """Cells as a table."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PLACES = {  # kind -> page, comment before the table, the table
    "training": (ROOT / "README.md", TRAINING, training_table),
    "decoding": (ROOT / "README.md", DECODING, decoding_table),
    "profile": (shipped("kernels") / "README.md", PROFILE, profile_table),
}


def measured():
    """What is kept; nothing if nothing was measured."""
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}


def section(kind, results):
    """What stands between the two comments."""
    if not results:
        return ""
    cards = ", ".join(dict.fromkeys(result["card"] for result in results))
    return f"\nMeasured on {cards}:\n\n{PLACES[kind][2](results)}\n"


def page_with(text, kind, results):
    """A page with the table of a kind in its place."""
    begin = PLACES[kind][1]
    before, _, rest = text.partition(begin)
    return f"{before}{begin}{section(kind, results)}{END}{rest.partition(END)[2]}"


def main(argv=None):
    """Keep what was measured, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in PLACES:
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE")
    options, kept = vars(parser.parse_args(argv)), measured()
    for kind, path in options.items():
        if path:
            kept[kind] = summary_of(kind, json.loads(path.read_text(encoding="utf-8")))
    if any(options.values()):
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    changed = False
    for kind, (page, _, _) in PLACES.items():
        text = page.read_text(encoding="utf-8")
        new = page_with(text, kind, kept.get(kind, []))
        changed |= new != text
        page.write_text(new, encoding="utf-8")
    return int(changed and not any(options.values()))


if __name__ == "__main__":
    sys.exit(main())
