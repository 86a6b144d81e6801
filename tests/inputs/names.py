"""Names of files and folders that a terminal, a library or a shell takes for something else."""

import shlex
from typing import Any

from tests.inputs.models import little
from tests.inputs.row import GOOD, LITTLE, Row, works

NOT_UTF8 = "caf\udce9.json"
BREAK = [{"instruction": "a"}]


def data(name: str, command: str, file: str, words: str, code: int = 0, **rest: Any) -> Row:
    """A command on a data set of this name."""
    files = {file: GOOD if code == 0 else BREAK}
    return Row(
        name,
        f"{command} --data {shlex.quote(file)} {rest.pop('options', '')}",
        words,
        files,
        code,
        **rest,
    )


# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    data("brackets in train", "train", "[/y].json", "done", options=f"--out run {LITTLE}", makes="run"),
    data("brackets in stats", "stats", "[/y].json", "[/y].json: 12 examples"),
    data("brackets in plan", "plan --time false", "[/y].json", "[/y].json"),
    data("brackets in evaluate", "evaluate --answers false", "[/y].json", "loss by tokens"),
    data("brackets in imbalance", "imbalance --count 2", "[/y].json", "[/y].json"),
    data("brackets in show", "show --count 1", "[/y].json", "entry 0"),
    data("a folder of brackets", "stats", "[/[/y].json", "[/[/y].json: 12 examples"),
    data("markup", "stats", "[bold]x.json", "[bold]x.json: 12 examples"),
    data("an emoji code", "stats", ":key:.json", ":key:.json: 12 examples"),
    data("a space and a quote", "stats", "a 'b\" c.json", "12 examples"),
    data("a hyphen first", "stats", "-x.json", "-x.json: 12 examples")._replace(command="stats ./-x.json"),
    data("a dollar sign", "stats", "$HOME.json", "$HOME.json: 12 examples"),
    data("a percent sign", "stats", "%s%n.json", "%s%n.json: 12 examples"),
    data("a star", "stats", "*.json", "*.json: 12 examples"),
    data("a backslash", "stats", "a\\b.json", "a\\b.json: 12 examples"),
    data("braces", "stats", "{x}.json", "{x}.json: 12 examples"),
    data("a line break", "stats", "a\nb.json", "12 examples"),
    data("control codes", "stats", "\x1b[2J.json", "\\x1b[2J.json: 12 examples"),
    data("an override", "stats", "\u202exyz.json", "\\u202exyz.json: 12 examples"),
    data("letters of all kinds", "stats", "データ.json", "データ.json: 12 examples"),
    data("not UTF-8", "stats", NOT_UTF8, "\\xe9.json: 12 examples"),
    data("not UTF-8, on a page", "show --count 1", NOT_UTF8, "written to x.html", options="--html x.html", makes="x.html"),
    data("not UTF-8, in a picture", "stats", NOT_UTF8, "drawn in x.png", options="--figure x.png", makes="x.png"),
    data("letters of all kinds in a picture", "stats", "データ.json", "drawn in x.png", options="--figure x.png", makes="x.png"),
    data("dollar signs in a picture", "stats", "$x^$.json", "drawn in x.svg", options="--figure x.svg", makes="x.svg"),
    data("not UTF-8, in a run", "train", NOT_UTF8, "done", options=f"--out run {LITTLE}", makes="run"),
    data("not UTF-8, by default", "train", NOT_UTF8, "done", options=LITTLE, makes="runs"),
    data("numbers as a name", "stats", "1e3.json", "1e3.json: 12 examples"),
    data("a broken file with control codes", "stats", "\x1b[2J.json", "\\x1b[2J.json has no field 'output'", 2),
    data("a broken file with brackets", "stats", "[/y].json", "entry 0 of [/y].json has no field 'output'", 2),
    data("a broken file that is not UTF-8", "stats", NOT_UTF8, "\\xe9.json has no field 'output'", 2),
    data("a broken file with a line break", "stats", "a\nb.json", "has no field 'output'", 2),
    works("a model in brackets", "answer hi --model '[/m]' --max-new-tokens 1", "", {"[/m]": little}),
    works("a model with control codes", "answer hi --model '\x1b[2J' --max-new-tokens 1", "", {"\x1b[2J": little}),
    works("a model that is not UTF-8", "answer hi --model 'm\udce9' --max-new-tokens 1", "", {"m\udce9": little}),
    works("a run in brackets", f"train ok.json --out '[/run]' {LITTLE}", "[/run]", makes="["),
    works("a page in brackets", "show ok.json --html '[/x].html'", "written to [/x].html", {"[/ok.json": GOOD}, makes="["),
    works("settings in a file with brackets", f"train ok.json --config '[/s].yaml' --out run {LITTLE}", "done", {"[/s].yaml": "seed: 2\n"}, makes="run"),
    works("a long name", f"stats {'x' * 240}.json", "12 examples", {f"{'x' * 240}.json": GOOD}),
    works("a long name in a run", f"train {'x' * 250}.json {LITTLE}", "done", {f"{'x' * 250}.json": GOOD}, makes="runs"),
]
