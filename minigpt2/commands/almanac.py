"""Almanac: the questions that ship, as files to read or to give to other programs."""

import json
from dataclasses import dataclass
from pathlib import Path

from minigpt2.data.almanac.ask import questions
from minigpt2.outputs import naming, require_new_folder, write_texts
from minigpt2.terminal import say
from minigpt2.wording import plural


@dataclass(frozen=True)
class AlmanacSettings:
    """Write the questions that ship as three JSON files in Alpaca's format.

    Examples:
        minigpt2 almanac --out questions

    Args:
        out: folder for train.json, held_out_facts.json and held_out_arithmetic.json
    """

    out: Path = Path("runs/almanac-questions")


def almanac(settings: AlmanacSettings) -> None:
    """Write the three files; print the number of questions in each."""
    if not settings.out.is_dir():
        require_new_folder(settings.out, "--out")
    files = {settings.out / f"{n}.json": r for n, r in questions()._asdict().items()}
    with naming(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    write_texts({path: json.dumps(records, indent=2) + "\n" for path, records in files.items()})
    for path, records in files.items():
        say(f"{path}: {plural(len(records), 'question')}")
