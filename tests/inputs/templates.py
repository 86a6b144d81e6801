"""Templates, as a file of the user's and in a model's folder."""

from typing import Any

from tests.inputs.models import little
from tests.inputs.row import Row, refused, works

QUESTION = "Q: {instruction}\nA: "


def bad(name: str, content: Any, words: str, file: str = "t.yaml") -> Row:
    """A template that is refused."""
    return refused(name, f"show ok.json --template {file}", words, {file: content})


def stored(name: str, content: Any, words: str) -> Row:
    """A template in a model's folder that is refused."""
    return refused(name, "answer hi --model m", words, {"m": little, "m/template.json": content})


# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    refused("no such template", "show ok.json --template no.yaml", "there is no file no.yaml"),
    refused("an unknown template", "show ok.json --template vicuna", "template 'vicuna' is none of alpaca"),
    refused("a template of another kind", "show ok.json --template ok.txt", "'ok.txt'"),
    refused("a template that is a folder", "show ok.json --template d.yaml", "d.yaml is a folder", {"d.yaml/x": ""}),
    bad("nothing", "", "t.yaml is empty"),
    bad("a list", "- a\n", "t.yaml is a list"),
    bad("a data set", "[]", "t.json is a list", "t.json"),
    bad("no place for the question", "question: hi\n", "no place for {instruction}"),
    bad("no place for the input", {"question": QUESTION, "question_with_input": "Q: {instruction}"}, "no place for {input}", "t.json"),
    bad("an unknown field", {"question": QUESTION, "answer": "x"}, "'answer' is none of", "t.json"),
    bad("a field that is a list", {"question": QUESTION, "opening": [3]}, "t.json", "t.json"),
    bad("no question", {"question": None}, "t.json", "t.json"),
    bad("a field without name", "question: '{instruction}'\n? [1, 2]\n: x\n", "t.yaml"),
    bad("a date", "question: 2020-13-45\n", "t.yaml"),
    bad("5,000 digits", f"question: {'9' * 5000}\n", "t.yaml"),
    bad("lists without end", "question: " + "[" * 3000, "t.yaml"),
    bad("a tag", "question: !!python/object/apply:os.system ['touch hacked']\n", "t.yaml"),
    bad("binary", bytes(range(256)), "t.yaml is not UTF-8 text"),
    bad("broken JSON", '{"question": ', "t.json", "t.json"),
    bad("control codes in a field's name", {"question": QUESTION, "\x1b[2J": ""}, "\\x1b[2J", "t.json"),
    stored("an empty stored template", "", "m/template.json is not JSON"),
    stored("a deep stored template", "[" * 100_000, "m/template.json cannot be read as JSON"),
    stored("a stored list", "[]", "m/template.json holds a list"),
    stored("a stored template in Latin-1", b'{"question": "\xe9{instruction}"}', "m/template.json is not UTF-8"),
    works("a template of one's own", "show ok.json --template t.yaml --count 1", "Q: Count to 1.", {"t.yaml": f"question: {QUESTION!r}\n".replace("'", '"')}),
    works("a field that is a number", "show ok.json --template t.json --count 1", "3Q: Count to 1.", {"t.json": {"question": QUESTION, "opening": 3}}),
    works("a field that is null", "show ok.json --template t.json --count 1", "Q: Count to 1.", {"t.json": {"question": QUESTION, "opening": None}}),
    works("a capital ending", "show ok.json --template t.YAML --count 1", "Q: Count to 1.", {"t.YAML": {"question": QUESTION}}),
    works("braces in a template", "show ok.json --template t.json --count 1", "{x} Count to 1.", {"t.json": {"question": "{x} {instruction}"}}),
    works("no template", "show ok.json --template raw --count 1", "entry 0"),
]
