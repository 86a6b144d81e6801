"""What stands in a data file: malformed JSON, other encodings, other contents."""

import json
from pathlib import Path
from typing import Any

from tests.inputs.row import GOOD, Row, refused, works

ENTRY = '{"instruction": "a", "output": "b"}'


def bad(name: str, content: Any, words: str, file: str = "d.json") -> Row:
    """A data file that is refused."""
    return refused(name, f"stats {file}", words, {file: content})


def good(name: str, content: Any, words: str, file: str = "d.json") -> Row:
    """A data file that is read."""
    return works(name, f"stats {file}", words, {file: content})


def folder(path: Path) -> None:
    """Make an empty folder."""
    path.mkdir()


def deep(opening: str, closing: str, depth: int = 100_000) -> str:
    """A value inside of many others."""
    return opening * depth + closing * depth


# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    refused("no such file", "stats no.json", "there is no file no.json"),
    refused("below a file", "stats ok.json/x.json", "ok.json/x.json cannot be read: Not a directory"),
    bad("no byte", "", "d.json is empty"),
    bad("only spaces", "  \n\t\n", "d.json is empty"),
    bad("an empty list", "[]", "d.json is an empty list"),
    bad("an object", '{"a": 1}', "not a list of entries"),
    bad("a number", "3", "d.json holds a number, not a list"),
    bad("a text", '"x"', "d.json holds a text, not a list"),
    bad("null", "null", "d.json holds null, not a list"),
    bad("true", "true", "d.json holds true or false, not a list"),
    bad("an open list", "[", "d.json is not JSON"),
    bad("half a file", json.dumps(GOOD)[:99], "d.json is not JSON"),
    bad("a comma at the end", f"[{ENTRY},]", "d.json is not JSON"),
    bad("two lists", "[] []", "d.json is not JSON"),
    bad("single quotes", "[{'instruction': 'a'}]", "d.json is not JSON"),
    bad("a comment", f"[{ENTRY}] // all", "d.json is not JSON: Extra data, line 1"),
    bad("an error in line 3", f"[{ENTRY},\n\n{{]", "line 3"),
    bad("a raw line break in a text", '[{"instruction": "a\nb", "output": "c"}]', "Invalid control character"),
    bad("a zero byte in a text", '[{"instruction": "a\0", "output": "c"}]', "Invalid control character"),
    bad("a wrong escape", r'[{"instruction": "\x", "output": "c"}]', "d.json is not JSON: Invalid"),
    bad("lists without end", "[" * 100_000, "d.json cannot be read as JSON"),
    bad("lists in lists", deep("[", "]"), "d.json cannot be read as JSON: it is nested too deeply"),
    bad("objects in objects", deep('{"a":', "}"), "d.json"),
    bad("a deep line", deep("[", "]"), "line 1 of d.jsonl cannot be read as JSON", "d.jsonl"),
    bad("a number of 5,000 digits", f'[{{"instruction": {"9" * 5000}}}]', "a number has too many digits"),
    bad("not a number", '[{"instruction": NaN, "output": "b"}]', "field 'instruction'"),
    bad("Latin-1", b'[{"instruction": "caf\xe9"}]', "d.json is not UTF-8 text: invalid continuation byte, byte 21"),
    bad("binary", bytes(range(256)), "d.json is not UTF-8 text"),
    bad("gzip", b"\x1f\x8b\x08\0\0\0\0\0", "d.json is not UTF-8 text"),
    bad("a pickle", b"\x80\x04\x95\x05\0\0\0\0\0\0\0K\x01.", "d.json is not UTF-8 text"),
    bad("half of UTF-16", b"\xff\xfe[\0]", "d.json is not UTF-16 text"),
    bad("HTML", "<!DOCTYPE html><html></html>", "d.json is not JSON"),
    bad("YAML", "- instruction: a\n  output: b\n", "d.json is not JSON"),
    bad("an entry that is a number", [GOOD[0], 3], "entry 1 of d.json is a number"),
    bad("an entry that is null", [None], "entry 0 of d.json is null"),
    bad("an entry that is a list", [[1]], "entry 0 of d.json is a list"),
    bad("an entry that is a text", ["x"], "entry 0 of d.json is a text"),
    bad("an entry without fields", [{}], "entry 0 of d.json has no fields"),
    bad("a field twice", '[{"instruction": "a", "instruction": "b", "output": "c"}]', "entry 0 of d.json has the field 'instruction' twice"),
    bad("a field twice in line 2", f'{ENTRY}\n{{"instruction": "a", "output": "c", "output": "c"}}', "line 2 of d.jsonl has the field 'output' twice", "d.jsonl"),
    bad("half a surrogate pair", r'[{"instruction": "a\ud800", "output": "b"}]', "entry 0 of d.json: field 'instruction'"),
    bad("control codes in a name", [{"\x1b[2J": "a"}], "\\x1b[2J"),
    bad("a name of 1 MB", [{"x" * 1_000_000: "a"}], "xxx"),
    bad("a thousand names", [{f"name-{n}": "a" for n in range(1000)}], "name-0"),
    bad("markup in a name", [{"[/bold]": "a"}], "[/bold]"),
    bad("a broken line", f"{ENTRY}\n{{\n", "d.jsonl is not JSON", "d.jsonl"),
    bad("a line that is a list", f"{ENTRY}\n[]\n", "line 2 of d.jsonl is a list", "d.jsonl"),
    bad("a list as lines", json.dumps(GOOD, indent=1), "d.jsonl", "d.jsonl"),
    bad("lines without an entry", "\n\n \n", "d.jsonl is empty", "d.jsonl"),
    bad("an empty text", "", "is empty", "d.txt"),
    bad("a text of spaces", " \n ", "is empty", "d.txt"),
    bad("binary text", b"\xff\xfe\xfd", "is not UTF-16 text", "d.txt"),
    refused("an empty folder", "stats d", "the folder d has no file that ends in", {"d": folder}),
    refused("a folder with a broken file", "stats d", "d/b.json is not JSON", {"d/a.json": GOOD, "d/b.json": "["}),
    refused("two formats in a folder", "stats d", "a data set has one format", {"d/a.json": GOOD, "d/b.json": [{"prompt": "a", "completion": "b"}]}),
    good("a byte-order mark", b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "12 examples, Alpaca"),
    good("UTF-16", json.dumps(GOOD).encode("utf-16"), "12 examples, Alpaca"),
    good("UTF-16, big end first", b"\xfe\xff" + json.dumps(GOOD).encode("utf-16-be"), "12 examples, Alpaca"),
    good("CR LF between lines", f"{ENTRY}\r\n{ENTRY}\r\n", "2 examples, Alpaca", "d.jsonl"),
    good("empty lines between lines", f"\n{ENTRY}\n\n \n{ENTRY}", "2 examples, Alpaca", "d.jsonl"),
    good("lines in a .json file", f"{ENTRY}\n{ENTRY}\n", "2 examples, Alpaca"),
    good("an object over several lines", json.dumps(GOOD, indent=4), "12 examples, Alpaca"),
    good("U+2028 in a line", '{"instruction": "a\u2028b", "output": "c\u0085d"}\n', "1 example, Alpaca", "d.jsonl"),
    good("escapes of emoji", r'[{"instruction": "\ud83d\ude00", "output": "b"}]', "1 example, Alpaca"),
    good("a large number in another field", '[{"instruction": "a", "output": "b", "id": 1e400}]', "1 example, Alpaca"),
    good("capital endings", json.dumps(GOOD[0]), "1 example, Alpaca", "D.JSONL"),
    works("files of a folder", "stats d", "14 examples, Alpaca", {"d/a.JSON": GOOD, "d/b.jsonl": f"{ENTRY}\n{ENTRY}\n"}),
    works("a text file", "show d.txt", "once upon a time", {"d.txt": "once upon a time"}),
    works("a text that spells the special token", "show d.txt", "<|endoftext|>", {"d.txt": "a<|endoftext|>b"}),
    works("carriage returns can be seen", "show d.json", "\\r", {"d.json": [{"instruction": "a\rb", "output": "c"}]}),
    works("control codes in an answer", "show d.json", "\\x1b]0;title", {"d.json": [{"instruction": "a", "output": "\x1b]0;title\x07b"}]}),
    works("a bidirectional override", "show d.json", "\\u202e", {"d.json": [{"instruction": "a", "output": "b\u202ec"}]}),
    works("markup in an answer", "show d.json", "[/bold]", {"d.json": [{"instruction": "a", "output": "[/bold] [red]b"}]}),
    works("emoji codes in an answer", "show d.json", ":key:", {"d.json": [{"instruction": "a", "output": "net:key:8"}]}),
    works("a million line breaks", "show d.json --count 1", "entry 0", {"d.json": [{"instruction": "a" + "\n" * 1_000_000 + "b", "output": "b"}]}),
    works("a million spaces in an answer", "show d.json --count 1", "entry 0", {"d.json": [{"instruction": "a", "output": "b" + " " * 1_000_000}]}),
    works("a word of a million letters", "show d.json --count 1", "entry 0", {"d.json": [{"instruction": "a" * 1_000_000, "output": "b"}]}),
]
