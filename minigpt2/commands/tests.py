"""Tests: the questions that are answered before and after tuning."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minigpt2.commands.dataset import ALMANAC, almanac_records, open_files
from minigpt2.data.almanac import questions
from minigpt2.data.almanac.preferences import preferences
from minigpt2.data.records import Record
from minigpt2.errors import UserError


def open_tests(
    data: str,
    files: Sequence[str] | str | None,
    columns: Mapping[str, str] | None,
    skip_bad: bool,
    *,
    pairs: bool = False,
) -> dict[str, list[Record]]:
    """Return the questions of each file by its name, and those that the almanac brings.

    With `pairs` the almanac brings preference pairs instead.  Raises UserError.
    """
    tests = {}
    if data == ALMANAC and pairs:
        tests = {"held-out pairs": almanac_records(preferences(0).held_out_pairs)}
    elif data == ALMANAC:
        almanac = questions(0)
        tests = {
            "held-out facts": almanac_records(almanac.held_out_facts),
            "held-out arithmetic": almanac_records(almanac.held_out_arithmetic),
        }
    paths = [files] if isinstance(files, str) else files or []
    for path in map(Path, paths):
        if path.stem in tests:
            raise UserError(f"two tests are called {path.stem!r}: rename the file {path}")
        tests[path.stem] = open_files(path, columns, skip_bad).records
        if any(record.is_text for record in tests[path.stem]):
            raise UserError(f"{path} holds texts, not questions: a test needs questions")
    return tests


def choose_samples(
    sources: list[list[Record]], count: int, rng: np.random.Generator
) -> list[Record]:
    """Draw `count` records, from each source in turn; all of them questions."""
    shuffled = [[source[i] for i in rng.permutation(len(source))] for source in sources]
    rounds = zip(*(s[:count] for s in shuffled), strict=False)
    return [record for turn in rounds for record in turn][:count]
