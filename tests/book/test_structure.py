"""The package follows the rules of the house, and every rule notices a file that breaks it."""

from pathlib import Path

import pytest

from book.parse import read_sources
from tests.book.structure import (
    LIMITS,
    name_faults,
    phrase_faults,
    plural_faults,
    printing_faults,
    settings_faults,
    size_faults,
    untested_faults,
)
from tests.book.test_package import assert_none
from tests.book.test_rules import assert_one_fault

TESTS = Path(__file__).parent.parent

# What may be longer than the limits, with the reason.
LONGER = {("__init__", "", "file lines"): "the table of contents has a line for each module"}
# Chapters whose tests are elsewhere, with the reason.
TESTED_ELSEWHERE = {}
# What prints nothing, with the reason.
SILENT = {
    ("cli", "imports warnings"): "turns warnings off",
    ("reports/plots", "imports warnings"): "turns warnings off",
    ("reports/plots", "imports logging"): "turns logging off",
}

# Numbers that are never 1, with the reason.
NEVER_ONE = {
    ("device/emulator", "arguments"): "a kernel has several",
    ("model/config", "digits"): "only numbers of many digits are shortened",
    ("tensors", "numbers"): "a type of numbers",
}

SOURCES = read_sources()
TEST_FILES = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}


def test_settings_end_in_the_commands():
    assert_none(settings_faults(SOURCES))


def test_files_functions_and_parameter_lists_are_short():
    assert_none(size_faults(SOURCES, LONGER))


def test_a_chapter_has_a_test_file_of_its_name():
    assert_none(untested_faults(SOURCES, TEST_FILES, TESTED_ELSEWHERE))


def test_variables_are_named_after_what_they_hold():
    assert_none(name_faults(SOURCES))


def test_sentences_have_no_phrase_that_a_reader_stumbles_over():
    assert_none(phrase_faults(SOURCES))


def test_what_is_printed_goes_through_one_place():
    assert_none(printing_faults(SOURCES, SILENT))


def test_numbers_agree_with_what_they_count():
    assert_none(plural_faults(SOURCES, NEVER_ONE))


# Files that break the rules.


@pytest.mark.parametrize(
    "line",
    [
        "from .commands.train import TrainSettings",
        "from .commands.train import TrainSettings as T",
        "def f(x: TrainSettings): pass",
        "def f(x: 'TrainSettings'): pass",
        "def f(x: list['TrainSettings']): pass",
        "def f() -> commands.TrainSettings: pass",
        "x: TrainSettings",
        "class PlanSettings: pass",
        "y = train.TrainSettings()",
        "def f():\n    from .commands import TrainSettings",
        "y = getattr(module, 'TrainSettings')",
    ],
)
def test_settings_outside_the_commands_are_reported(line):
    faults = settings_faults({"reports/page": line})
    assert faults and all("reports/page.py" in f and "Settings" in f for f in faults)
    assert settings_faults({"cli": line, "commands/train": line}) == []


def test_other_names_are_no_settings():
    text = '"""Takes TrainSettings."""\nsettings = {}\ndef f(settings_file): pass\n'
    assert settings_faults({"reports/page": text}) == []


def function(lines, parameters=""):
    """Source of a function of so many lines."""
    return f"def f({parameters}):\n" + "    x = 1\n" * (lines - 1)


BY_PLACE = ", ".join("abcdefg")


@pytest.mark.parametrize(
    ("at_most", "over", "words"),
    [
        ("x = 1\n" * 250, "x = 1\n" * 251, ["py:1:", "the file has 251 lines", "over 250"]),
        (function(50), function(51), ["f has 51 lines, over 50"]),
        ("\n" + function(50), "\n" + function(51), ["py:2:", "f has 51 lines, over 50"]),
        (function(2, BY_PLACE), function(2, BY_PLACE + ", h"), ["f has 8 parameters, over 7"]),
        (function(2, BY_PLACE), function(2, BY_PLACE + ", h=1"), ["f has 8 parameters"]),
        (function(2, BY_PLACE), function(2, BY_PLACE + ", *h"), ["f has 8 parameters"]),
        (function(2, BY_PLACE), function(2, "z, /, " + BY_PLACE), ["f has 8 parameters"]),
        (function(2, BY_PLACE + ", *, h"), function(2, BY_PLACE + ", h, *, i"), ["8 parameters"]),
        (function(2, "self, " + BY_PLACE), function(2, "self, h, " + BY_PLACE), ["8 parameters"]),
        (function(2, BY_PLACE + ", **h"), "async " + function(2, BY_PLACE + ", h"), ["8 param"]),
    ],
)
def test_what_is_too_long_is_reported(at_most, over, words):
    assert size_faults({"ops/gelu": at_most}, {}) == []
    assert_one_fault(size_faults({"ops/gelu": over}, {}), "ops/gelu.py", *words)


@pytest.mark.parametrize("measure", LIMITS)
def test_an_exception_holds_while_it_is_needed(measure):
    if measure == "file lines":
        name, text = "", "x = 1\n" * 251
    else:
        name, text = "f", function(51) if measure == "lines" else function(2, BY_PLACE + ", h")
    exception = {("ops/gelu", name, measure): "a reason"}
    assert size_faults({"ops/gelu": text}, exception) == []
    assert_one_fault(size_faults({"ops/gelu": "x = 1\n"}, exception), "ops/gelu", "not needed")


LISTED = {
    "__init__": '"""Book.\n\nPart I: Ops\n  1  backend  B\n  2  ops/gelu  GELU\n  ·  cli  C\n"""',
    "backend": "",
    "ops/gelu": "",
    "cli": "",
}


def test_a_chapter_without_a_test_file_is_reported():
    both = {"test_backend.py", "ops/test_gelu.py"}
    assert untested_faults(LISTED, both, {}) == []
    elsewhere = both - {"ops/test_gelu.py"} | {"test_gelu.py"}
    assert_one_fault(untested_faults(LISTED, elsewhere, {}), "tests/ops/test_gelu.py is missing")
    assert untested_faults(LISTED, elsewhere, {"ops/gelu": "a reason"}) == []
    assert_one_fault(untested_faults(LISTED, both, {"ops/gelu": "a reason"}), "not needed")


@pytest.mark.parametrize(
    "line",
    [
        "found = 1",
        "x, (found, y) = z",
        "found: int = 1",
        "found += 1",
        "for found in x: pass",
        "y = [1 for found in x]",
        "if (found := x): pass",
        "with x as found: pass",
        "try: pass\nexcept E as found: pass",
        "import x as found",
        "from x import y as found",
        "self.found = 1",
        "x = lambda found: 1",
        "def f(found): pass",
        "def f(*, found=1): pass",
        "def f(*found): pass",
        "def found(): pass",
        "class found: pass",
        "match x:\n    case [1, found]: pass",
        "match x:\n    case [1, *found]: pass",
    ],
)
def test_a_vague_variable_is_reported(line):
    assert_one_fault(name_faults({"ops/gelu": line}), "ops/gelu.py:", "named found")


def test_vague_words_elsewhere_are_not_reported():
    text = '"""Found."""\nx = found.told\nf(found=1)\nfound[0] = 1\nnot_found = {"which": 1}\n'
    assert name_faults({"ops/gelu": text}) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"""What\ntells\nof it."""', ["py:2", "'tells of'"]),
        ('"""A\nB stands\n    there."""', ["py:2", "'stands there'"]),
        ("x = 1  # and goes on", ["py:1", "'goes on'", "continues"]),
        ("raise E(f'{x} goes on')", ["'goes on'"]),
        ("help = 'let it carry on'", ["'carry on'"]),
        ("#\n# Beside it", ["py:2", "'Beside'"]),
        ('"""What is said."""', ["'is said'"]),
        ('"""Scores are made again."""', ["'made again'"]),
        ('"""It makes the rest again."""', ["'makes the rest again'"]),
        ('"""On the way back."""', ["'On the way back'"]),
        ('"""x is put over y."""', ["'put over'"]),
        ("raise E('turn 3 is no object')", ["is no"]),
        ('"""What a user can mend."""', ["'mend'"]),
    ],
)
def test_a_phrase_that_a_reader_stumbles_over_is_reported(text, words):
    faults = phrase_faults({"ops/gelu": text})
    assert faults and all(word in faults[0] for word in words), faults


@pytest.mark.parametrize(
    "words",
    [
        "There are no rows, and x is no longer small.",
        "Where there is no GPU, besides the CPU, tell a thread.",
        "It stands for x, gone on Monday, side by side; recommended, amended.",
        "The loop makes arrays again and again.",
    ],
)
def test_plain_words_are_not_reported(words):
    assert phrase_faults({"ops/gelu": f'"""{words}"""\n# {words}\n'}) == []


@pytest.mark.parametrize(
    "line",
    [
        "print(text)",
        "builtins.print(text)",
        "answer = input()",
        "sys.stdout.write(text)",
        "def f(file=sys.stderr): pass",
        "def f():\n    for line in sys.stdin: pass",
        "sys.__stdout__.flush()",
        "from sys import stderr",
        "from rich import print as show",
        "import rich",
        "from rich.console import Console",
        "from rich.progress import Progress",
        "from rich.markup import escape",
        "text = Text.from_markup(text)",
        "import warnings",
        "from logging import getLogger",
    ],
)
def test_what_is_printed_elsewhere_is_reported(line):
    assert_one_fault(printing_faults({"reports/page": line}, {}), "reports/page.py:", "print")
    assert printing_faults({"reports/screen": line, "terminal": line}, {}) == []


def test_what_prints_nothing_is_not_reported():
    text = "import sys\nfrom rich.table import Table\nfrom rich.text import Text\n"
    text += "sys.argv, done.stdout, print_stream(x), screen.print_table(x)\n"
    text += '"""print(text)"""\n'
    assert printing_faults({"reports/page": text}, {}) == []


def test_an_exception_to_printing_holds_while_it_is_needed():
    exception = {("cli", "imports warnings"): "a reason"}
    assert printing_faults({"cli": "import warnings"}, exception) == []
    assert_one_fault(printing_faults({"cli": "import sys"}, exception), "not needed")


@pytest.mark.parametrize(
    "text",
    [
        "x = f'{n} tokens'",
        "x = f'{n:,} prompt tokens, and more'",
        "raise E(f'the data has {len(x)} entries: first must be below')",
        "def f():\n    return f'over {a} answers' + 'x'",
    ],
)
def test_a_number_that_does_not_agree_is_reported(text):
    assert_one_fault(plural_faults({"ops/gelu": text}, {}), "ops/gelu.py:", "use plural()")


def test_numbers_that_agree_are_not_reported():
    text = "f'{plural(n, \"token\")}, {n} tokens/s, {name} has values, {n} of the rows'"
    assert plural_faults({"ops/gelu": text}, {}) == []
    exception = {("ops/gelu", "tokens"): "a reason"}
    assert plural_faults({"ops/gelu": "f'{n} tokens'"}, exception) == []
    assert_one_fault(plural_faults({"ops/gelu": "x = 1"}, exception), "not needed")
