"""Preference pairs, and what tests of commands on them share."""

import json

TIMES = ("seconds", "rows_per_second", "supervised_per_second", "peak_memory")
QUICK = ("--batch-size", 4, "--micro-batch", 2, "--validation", 0.25, "--log-every", 1)
QUICK = (*QUICK, "--device", "cpu", "--learning-rate", 1e-3)


def pairs(count=12):
    """Pairs of two kinds, one whose answers are equal."""
    entries = [
        {
            "instruction": f"Count to {i}.",
            "chosen": f"1 to {i}",
            "rejected": f"Well, 1 to {i}." if i % 2 else "1",
            "kind": "padded" if i % 2 else "cut",
        }
        for i in range(count)
    ]
    return [*entries, {**entries[0], "rejected": entries[0]["chosen"]}]


def write_pairs(path, entries=None):
    """Write pairs to a file."""
    path.write_text(json.dumps(pairs() if entries is None else entries))
    return path


def without_times(value):
    """JSON without what depends on the clock and the folder."""
    if isinstance(value, dict):
        left = {k: v for k, v in value.items() if k not in TIMES}
        return {n: without_times(v) for n, v in left.items() if n not in ("run", "reward", "disk")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def results_of(folder):
    """What a run leaves, without what depends on the clock and the folder."""
    newest = max(folder.glob("checkpoint-*"))
    files = [newest / "model.safetensors", newest / "optimizer.safetensors"]
    files += sorted((folder / "reward-model").glob("*"))
    lines = (folder / "log.jsonl").read_text().splitlines()
    return (
        newest.name,
        {path.name: path.read_bytes() for path in files},
        [without_times(json.loads(line)) for line in lines],
        without_times(json.loads((folder / "summary.json").read_text())),
    )


def assert_refused(outcome, words):
    """One line, on the error stream alone, with these words; exit code 2."""
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("minigpt2: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert words in outcome.err
    assert outcome.out == ""
