"""What is huge, endless, or a device."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.inputs.models import with_file
from tests.inputs.row import GOOD, Row, refused, works


def device(name: str, option: str, command: str, words: str = "") -> Row:
    """A device where a file is meant."""
    path = option.split()[-1]
    return refused(name, f"{command} {option}", words or path)


def sparse(size: int) -> Callable[[Path], None]:
    """A file of a size that takes no room."""

    def write(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return write


def linked(target: str) -> Callable[[Path], None]:
    """A link."""
    return lambda path: path.symlink_to(target)


TERA = 1 << 40

# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    device("data without end", "/dev/zero", "stats", "/dev/zero is a device"),
    device("data at random", "/dev/urandom", "train", "/dev/urandom is a device"),
    device("no data", "/dev/null", "stats", "/dev/null"),
    device("a test without end", "--test /dev/zero", "train ok.json"),
    device("a template without end", "--template /dev/zero", "show ok.json"),
    device("a model without end", "--model /dev/zero", "answer hi"),
    device("a model that is nothing", "--model /dev/null", "answer hi"),
    refused("a link without end", "stats d.json", "d.json is a device", {"d.json": linked("/dev/zero")}),
    refused("a link to itself", "stats d.json", "d.json cannot be read", {"d.json": linked("d.json")}),
    refused("a link to nowhere", "stats d.json", "d.json", {"d.json": linked("nowhere")}),
    refused("a pipe that nobody writes to", "stats d.json", "d.json is a pipe that no program writes to", {"d.json": os.mkfifo}),
    refused("a pipe for settings", "train --config s.yaml", "s.yaml", {"s.yaml": os.mkfifo}),
    refused("a pipe for a template", "show ok.json --template t.yaml", "t.yaml is a pipe", {"t.yaml": os.mkfifo}),
    refused("a pipe for a test", "train ok.json --test d.json", "d.json is a pipe", {"d.json": os.mkfifo}),
    refused("a pipe for config.json", "answer hi --model m", "config.json", {"m/config.json": os.mkfifo}),
    refused("a pipe in a folder of data", "stats d", "d/b.json is a pipe", {"d/a.json": GOOD, "d/b.json": os.mkfifo}),
    refused("a terabyte of data", "stats d.json", "d.json has 1,099,511,627,776 bytes", {"d.json": sparse(TERA)}),
    refused("a terabyte of settings", "train --config s.yaml", "s.yaml", {"s.yaml": sparse(TERA)}),
    refused("a terabyte of a template", "show ok.json --template t.json", "t.json has 1,099,511,627,776 bytes", {"t.json": sparse(TERA)}),
    refused("a terabyte of config.json", "answer hi --model m", "m/config.json", {"m": with_file("config.json", None), "m/config.json": sparse(TERA)}),
    refused("a terabyte of a vocabulary", "answer hi --model m", "vocab.json", {"m": with_file("vocab.json", None), "m/vocab.json": sparse(TERA)}),
    refused("a terabyte of merges", "answer hi --model m", "merges.txt", {"m": with_file("merges.txt", None), "m/merges.txt": sparse(TERA)}),
    refused("a hundred megabytes of settings", "train --config s.yaml", "s.yaml", {"s.yaml": "seed: 1\n" * 12_000_000}),
    works("many entries", "show d.json --first 19999", "entry 19999", {"d.json": GOOD * 1700}),
    works("many short texts", "stats d.json --validation 0", "3,000 examples", {"d.json": [{"instruction": "a", "output": "b"}] * 3000}),
    works("an answer of a megabyte", "show d.json --count 1", "entry 0", {"d.json": [{"instruction": "a", "output": "word " * 200_000}]}),
    works("a thousand exchanges", "show d.json --count 1", "entry 0", {"d.json": [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 1000}]}),
]
