"""A few inputs of each reader, and what an attempt notices."""

from pathlib import Path
from time import process_time

import pytest

from minigpt2.errors import UserError
from tests.fuzz import attempt as attempt_module
from tests.fuzz.attempt import attempt
from tests.fuzz.fuzzer import Fuzzer
from tests.fuzz.readers import READERS, Input, Reader, unpacked

INPUTS = 30


@pytest.mark.parametrize("name", READERS)
def test_a_few_inputs_are_refused_in_one_line_or_can_be_used(name, tmp_path):
    fuzzer = Fuzzer(READERS[name], 0, tmp_path)
    fuzzer.explore(INPUTS)
    findings = [f"{place}: {outcome.text}" for place, (outcome, _) in fuzzer.findings.items()]
    assert findings == []
    assert fuzzer.counts["accepted"] >= 4 and fuzzer.counts["refused"] >= INPUTS / 3


@pytest.mark.parametrize("name", READERS)
def test_valid_files_to_begin_with_are_accepted(name, tmp_path):
    outcomes = [
        attempt(READERS[name], each.packed(), tmp_path / "i") for each in READERS[name].seeds
    ]
    refused = [outcome.text for outcome in outcomes if outcome.kind != "accepted"]
    assert len(refused) == (name == "weights"), refused  # of these one is a pickle


@pytest.mark.parametrize("each", [Input([b"a", b"", b"\n=-"], 7), Input([b""], 0)])
def test_an_input_is_bytes_and_back(each):
    assert unpacked(each.packed()) == each
    assert unpacked(b"") == Input([b""], 0)


def use_that(error):
    """A reader of one file that fails in a way."""

    def use(folder, choice):
        if error is not None:
            raise error(folder / "a")

    return Reader((("a",),), [], use)


def hang(folder):
    end = process_time() + 10
    while process_time() < end:
        pass


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (None, "accepted", ""),
        (lambda path: UserError(f"{path} is empty"), "refused", "is empty"),
        (lambda path: UserError(f"{path}\nis empty"), "finding", "more than one line"),
        (lambda path: UserError("a file is empty"), "finding", "names no file"),
        (lambda path: UserError(f"{path}{'x' * 3000}"), "finding", "characters"),
        (lambda path: KeyError("b"), "finding", "KeyError: 'b'"),
        (lambda path: MemoryError(), "finding", "MemoryError"),
        (lambda path: SystemExit(2), "finding", "SystemExit: 2"),
        (hang, "finding", "more than 0.05 s"),
    ],
)
def test_an_attempt_notices(error, kind, words, tmp_path, monkeypatch):
    monkeypatch.setattr(attempt_module, "SECONDS", 0.05)
    outcome = attempt(use_that(error), Input([b"x"]).packed(), Path(tmp_path) / "input")
    assert outcome.kind == kind and words in outcome.text
