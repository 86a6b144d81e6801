"""vocab.json, merges.txt and tokenizer.json of a model."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.inputs.models import folder, little, with_file
from tests.inputs.row import Row, refused

VOCAB, MERGES = "vocab.json", "merges.txt"


def bad(name: str, file: str, content: str | bytes | None, words: str = "m") -> Row:
    """A model with another file of its tokenizer, which is refused."""
    return refused(name, "answer hi --model m", words, {"m": with_file(file, content)})


def vocabulary(change: Callable[[dict[str, int]], None]) -> str:
    """The contents of vocab.json, changed."""
    values = json.loads((folder() / VOCAB).read_text())
    change(values)
    return json.dumps(values)


def merges(change: Callable[[list[str]], list[str]]) -> str:
    """The contents of merges.txt, its lines changed."""
    return "\n".join(change((folder() / MERGES).read_text().split("\n")))


def alone(path: Path) -> None:
    """A model with no tokenizer but a tokenizer.json that is empty."""
    little(path)
    (path / VOCAB).unlink()
    (path / MERGES).unlink()
    (path / "tokenizer.json").write_text("{}")


# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    bad("no vocabulary", VOCAB, None, "vocab.json"),
    bad("no merges", MERGES, None, "merges.txt"),
    bad("an empty vocabulary", VOCAB, "{}"),
    bad("no byte of vocabulary", VOCAB, ""),
    bad("a vocabulary that is a list", VOCAB, "[]"),
    bad("a vocabulary in Latin-1", VOCAB, b'{"\xe9": 1}'),
    bad("a deep vocabulary", VOCAB, "[" * 100_000),
    bad("a vocabulary of digits", VOCAB, f'{{"a": {"9" * 5000}}}'),
    bad("binary", VOCAB, bytes(range(256))),
    bad("no special token", VOCAB, vocabulary(lambda v: v.pop("<|endoftext|>"))),
    bad("the special token elsewhere", VOCAB, vocabulary(lambda v: v.update({"<|endoftext|>": 5}))),
    bad("an id twice", VOCAB, vocabulary(lambda v: v.update({"a": v["b"]}))),
    bad("an id as text", VOCAB, vocabulary(lambda v: v.update(a="1"))),
    bad("a negative id", VOCAB, vocabulary(lambda v: v.update(a=-1))),
    bad("a fraction of an id", VOCAB, vocabulary(lambda v: v.update(a=1.5))),
    bad("a token more", VOCAB, vocabulary(lambda v: v.update(zzzz=4095))),
    bad("a token that is no bytes", VOCAB, vocabulary(lambda v: v.update({"漢": 7}))),
    bad("no merge at all", MERGES, ""),
    bad("a merge less", MERGES, merges(lambda lines: [*lines[:9], *lines[10:]])),
    bad("merges in another order", MERGES, merges(lambda lines: [lines[0], *sorted(lines[1:])])),
    bad("three parts in a merge", MERGES, merges(lambda lines: [*lines[:9], "a b c", *lines[10:]])),
    bad("one part in a merge", MERGES, merges(lambda lines: [*lines[:9], "a", *lines[10:]])),
    bad("a merge that is no bytes", MERGES, merges(lambda lines: [*lines[:9], "漢 字", *lines[10:]])),
    bad("merges in Latin-1", MERGES, b"#version\n\xe9 a\n", "m"),
    refused("tokenizer.json without a vocabulary", "answer hi --model m", "tokenizer.json", {"m": alone}),
]
