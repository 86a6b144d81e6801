"""Settings files."""

import json
from typing import Any

from tests.inputs.row import LITTLE, Row, refused, works


def bad(name: str, content: Any, words: str, file: str = "s.yaml") -> Row:
    """A settings file that is refused."""
    return refused(name, f"train ok.json --config {file}", words, {file: content})


def good(name: str, content: Any, words: str = "done") -> Row:
    """A settings file that a little run takes."""
    command = f"train ok.json --config s.yaml --out run {LITTLE}"
    return works(name, command, words, {"s.yaml": content}, makes="run")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    refused("no such settings file", "train --config no.yaml", "there is no settings file"),
    bad("no settings", "", "s.yaml is empty: it must hold settings"),
    bad("only a comment", "# nothing\n", "s.yaml is empty: it must hold settings"),
    bad("a list of settings", "- steps: 3\n", "must hold settings"),
    bad("a text as settings", "hello\n", "must hold settings"),
    bad("a number as settings", "3\n", "must hold settings"),
    bad("an unknown setting", "stesp: 3\n", "'stesp'; did you mean 'steps'?"),
    bad("an unknown setting, with its line", "seed: 1\nstesp: 3\n", "line 2"),
    bad("a word for a number", "steps: many\n", "steps must be"),
    bad("a word for a number, with its line", "seed: 1\nsteps: many\n", "line 2"),
    bad("a fraction of a step", "steps: 1.5\n", "steps must be"),
    bad("a list for a number", "steps: [1, 2]\n", "steps must be"),
    bad("an object for a number", "steps: {a: 1}\n", "steps must be"),
    bad("true for a number", "steps: true\n", "steps must be"),
    bad("nothing for a number", "batch_size:\n", "batch_size"),
    bad("nothing for a name", "model: null\n", "model"),
    bad("infinity", "epochs: .inf\n", "epochs must be"),
    bad("not a number", "learning_rate: .nan\n", "learning_rate must be"),
    bad("a choice that does not exist", "schedule: square\n", "s.yaml, line 1: schedule must be linear or cosine"),
    bad("a flag that is neither", "tensorboard: maybe\n", "tensorboard must be true or false"),
    bad("a number for a text", "model: 3\n", "model"),
    bad("a list for a text", "model: [tiny]\n", "model must be"),
    bad("an object for a file", "out: {a: 1}\n", "out must be"),
    bad("a zero byte in a name", 'out: "a\\0b"\n', "out"),
    bad("an integer of 5,000 digits", f"steps: {'9' * 5000}\n", "s.yaml"),
    bad("a setting twice", "steps: 1\nsteps: 2\n", "steps"),
    bad("two documents", "steps: 1\n---\nsteps: 2\n", "s.yaml"),
    bad("a tab", "steps:\t1\n\tseed: 2\n", "s.yaml"),
    bad("a wrong indent", "steps: 1\n  seed: 2\n", "s.yaml"),
    bad("an open bracket", "steps: [\n", "s.yaml"),
    bad("an open quote", 'model: "tiny\n', "s.yaml"),
    bad("lists without end", "steps: " + "[" * 3000, "s.yaml"),
    bad("a tag that runs a program", "model: !!python/object/apply:os.system ['touch hacked']\n", "s.yaml"),
    bad("aliases of aliases", BOMB, "s.yaml"),
    bad("an unknown alias", "steps: *x\n", "s.yaml"),
    bad("a name of 1 MB", "x" * 1_000_000 + ": 1\n", "s.yaml, line 1"),
    bad("control codes in a name", '"\\e[2J": 1\n', "\\x1b[2J"),
    bad("binary settings", bytes(range(256)), "s.yaml"),
    bad("Latin-1 settings", b"model: caf\xe9\n", "s.yaml"),
    bad("broken JSON settings", '{"steps": 1', "s.json", "s.json"),
    bad("JSON settings that are a list", "[1]", "must hold settings", "s.json"),
    bad("settings of another command", "question: why\n", "'question'"),
    bad("a date for a number", "steps: 2020-13-45\n", "s.yaml"),
    refused("a settings file that is a folder", "train --config .", "."),
    refused("a settings file without end", "train --config /dev/zero", "/dev/zero"),
    refused("settings as text", "train --config steps", "there is no settings file"),
    refused("settings in brackets", "train --config '{steps: 1}'", "there is no settings file"),
    good("UTF-16 settings", "batch_size: 4\n".encode("utf-16")),
    good("a byte-order mark", b"\xef\xbb\xbfbatch_size: 4\n"),
    good("hyphens", "batch-size: 4\n"),
    good("CR LF", "batch_size: 4\r\nseed: 2\r\n"),
    good("JSON in YAML", json.dumps({"batch_size": 4})),
    good("a number in exponents", "learning_rate: 1e-4\n"),
]
