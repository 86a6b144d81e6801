"""What a command writes: places that cannot be written, and disks that are full."""

import os
from pathlib import Path
from typing import Any

from tests.inputs.row import LITTLE, Row, refused, works

COMMANDS = {
    "stats ok.json --figure": "x.png",
    "imbalance ok.json --count 2 --figure": "x.svg",
    "show ok.json --html": "x.html",
    "evaluate ok.json --max-new-tokens 2 --out": "x.json",
}
ROOM = {"stats": 8192, "imbalance": 8192, "show": 1024, "evaluate": 1024}  # bytes of a file

FOLDERS = {
    "almanac --out": "x",
    f"train ok.json {LITTLE} --out": "x",
    "pretrain --steps 1 --out": "x",
}
TRAIN = f"train ok.json --out run {LITTLE}"


def places() -> list[Row]:
    """Each command that writes a file, with each place that it cannot write."""
    rows = []
    for command, file in COMMANDS.items():
        verb = command.split()[0]
        rows += [
            refused(
                f"{verb}: a missing folder",
                f"{command} nowhere/{file}",
                "there is no folder nowhere",
            ),
            refused(
                f"{verb}: below a file", f"{command} ok.json/{file}", "there is no folder ok.json"
            ),
            refused(
                f"{verb}: an existing file",
                f"{command} {file}",
                f"{file} exists already",
                {file: "precious"},
            ),
            refused(
                f"{verb}: an existing folder",
                f"{command} {file}",
                f"{file} exists already",
                {f"{file}/inside": ""},
            ),
            refused(
                f"{verb}: a link to nowhere",
                f"{command} {file}",
                f"{file} exists already",
                {file: dangling},
            ),
            refused(
                f"{verb}: a system of processes",
                f"{command} /proc/{file}",
                f"/proc/{file} cannot be written",
            ),
            refused(
                f"{verb}: a name too long",
                f"{command} {'x' * 300}{Path(file).suffix}",
                "File name too long",
            ),
            refused(
                f"{verb}: a full disk",
                f"{command} {file}",
                f"{file} cannot be written: File too large",
                largest=ROOM[verb],
            ),
        ]
    for command in FOLDERS:
        verb = command.split()[0]
        rows += [
            refused(
                f"{verb}: a file", f"{command} ok.json", "ok.json cannot be made: it is a file"
            ),
            refused(f"{verb}: below a file", f"{command} ok.json/x", "ok.json is a file"),
            refused(
                f"{verb}: a system of processes", f"{command} /proc/x", "/proc/x cannot be written"
            ),
            refused(f"{verb}: a name too long", f"{command} {'x' * 300}", "File name too long"),
            refused(f"{verb}: a link to nowhere", f"{command} x", "x", {"x": dangling}),
        ]
    return rows


def dangling(path: Path) -> None:
    """A link to nowhere."""
    path.symlink_to("nowhere")


def closed(path: Path) -> None:
    """A folder in which nobody may write, root aside."""
    path.mkdir(mode=0o555)


def full(name: str, largest: int, words: str, **rest: Any) -> Row:
    """A run whose disk is full after so many bytes of a file."""
    return refused(name, TRAIN, words, largest=largest, makes="run", **rest)


# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    *places(),
    refused("a run where one is", TRAIN, "run already holds something", {"run/summary.json": "precious"}),
    refused("a run where a hidden file is", TRAIN, "run already holds something", {"run/.hidden": ""}),
    refused("a run in runs, which is a file", f"train ok.json {LITTLE}", "runs is a file", {"runs": "precious"}),
    refused("questions where one file is", "almanac --out x", "held_out_facts.json exists already", {"x/held_out_facts.json": "precious"}),
    refused("questions on a full disk", "almanac --out x", "cannot be written: File too large", largest=20_000, makes="x"),
    refused("a demonstration where something is", "align --out x", "x already holds something", {"x/y": ""}),
    refused("a demonstration with another seed", "align --out x --seed 1", "whose seed is 0, not 1", {"x/settings.json": '{"model": "tiny", "seed": 0}'}),
    refused("a demonstration below a file", "align --out ok.json/x", "ok.json is a file"),
    refused("a picture of another kind", "stats ok.json --figure x.txt", "figure must end in .png"),
    refused("a picture without ending", "imbalance ok.json --figure x", "figure must end in .png"),
    refused("official weights below a file", "download gpt2 --out ok.json/x", "ok.json is a file"),
    refused("official weights where something is", "download gpt2 --out x", "x exists and is not a model", {"x/y": ""}),
    full("a run on a full disk", 100_000, "cannot be written: File too large"),
    full("a run on a disk without room", 512, "cannot be written: File too large"),
    refused("a checkpoint and events on a full disk", f"{TRAIN.replace('--steps 1', '--steps 9')} --validation 0 --tensorboard true", "run/checkpoint-000009 cannot be written: File too large", largest=4096, makes="run"),
    refused("an empty folder's name", "almanac --out ''", "out"),
    works("a run in an empty folder", TRAIN, "done", {"run": Path.mkdir}, makes="run"),
    works("a run in new folders", f"train ok.json --out a/b/c {LITTLE}", "done", makes="a"),
    works("questions next to others", "almanac --out x", "x/train.json", {"x/mine.json": "precious"}, makes="x"),
    works("a figure with a capital ending", "stats ok.json --figure x.PNG", "drawn in x.PNG", makes="x.PNG"),
    works("a page without ending", "show ok.json --html x", "written to x", makes="x"),
]
if os.geteuid():
    ROWS += [
        refused(f"{command.split()[0]}: a folder without permission", f"{command} d/{file}", "Permission denied", {"d": closed})
        for command, file in {**COMMANDS, **FOLDERS}.items()
    ]
