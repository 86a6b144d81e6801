"""Almanac: the questions that ship, as files to read or to give to other programs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt2.data.almanac.ask import questions
from minigpt2.data.almanac.preferences import preferences
from minigpt2.outputs import naming, require_new_folder, write_texts
from minigpt2.terminal import say
from minigpt2.wording import plural

NOUNS = {"pairs": "pair", "held_out_pairs": "pair"}  # of what a file holds, else questions


@dataclass(frozen=True)
class AlmanacSettings:
    """Write the questions that ship as JSON files in Alpaca's format.

    Examples:
        minigpt2 almanac --out questions
        minigpt2 almanac --out preferences --preferences

    Args:
        out: folder for train.json, held_out_facts.json and held_out_arithmetic.json
        preferences: write also mixture.json, each question with a direct and with a padded answer;
            pairs.json and held_out_pairs.json, with the kind of each pair; and arithmetic.json, the
            trained sums and differences
    """

    out: Path = Path("runs/almanac-questions")
    preferences: bool = False


def almanac(settings: AlmanacSettings) -> None:
    """Write the files; print the number of questions or pairs in each."""
    if not settings.out.is_dir():
        require_new_folder(settings.out, "--out")
    lists: dict[str, Any] = questions()._asdict()
    if settings.preferences:
        lists |= preferences()._asdict()
    with naming(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    texts = {settings.out / f"{name}.json": json_of(records) for name, records in lists.items()}
    write_texts(texts)
    for path, records in zip(texts, lists.values(), strict=True):
        say(f"{path}: {plural(len(records), NOUNS.get(path.stem, 'question'))}")


def json_of(records: list[dict[str, str]]) -> str:
    """Return records as the text of a file."""
    return json.dumps(records, indent=2) + "\n"
