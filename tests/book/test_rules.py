"""Every rule of the book notices a broken book of a few lines, and finds no fault in a sound one.

A rule that finds nothing because it reads nothing would let the package pass.
"""

import pytest

from tests.book.rules import (
    SHARED_BY_COMMANDS,
    command_faults,
    equation_faults,
    import_faults,
    library_faults,
    room_faults,
    table_faults,
)

BOOK = {
    "__init__": '''"""A book.

    N  rows

Contents
  Part I: Arrays
     1  backend      Backend
     ·  threads      Threads
     2  ops/twice    Twice
     3  ops/thrice   Three times
  Part II: Text
     4  text/words   Words
  Appendix: what is typed
     ·  cli          Command line
"""

__version__ = "1"
''',
    "__main__": "from .cli import main\n",
    "backend": '"""Backend: which library."""\nimport os\nimport numpy as np\n',
    "threads": '"""Threads: many at once."""\nfrom .backend import np\n',
    "ops/__init__": "from .twice import twice\nfrom ..threads import run\n",
    "ops/twice": '''"""Twice: x and x again.

    y = x + x                 (2.1)
    dx = 2 dy, from (2.1)     (2.2)
    z = y / 2                 (2.3)
    z is x, which follows from (2.3)
    by counting.
"""
from minigpt2.backend import np

def twice(x):
    """Return y."""
    return x + x  # (N, C)  (2.1)

def twice_backward(dy):
    return 2 * dy  # (N, C)  (2.2)
''',
    "ops/thrice": '''"""Three times. And no more."""
from . import twice
from .twice import twice as double
''',
    "text/words": '"""Words: one by one."""\nfrom ..ops import twice\n',
    "cli": '''"""Command line: what to type."""
from . import __version__
import rich
from .ops import twice
''',
}


def broken(module, old, new):
    """The book with one passage replaced, or one more file where there is nothing to replace."""
    assert old in BOOK.get(module, "")
    return {**BOOK, module: BOOK.get(module, "").replace(old, new, 1)}


def with_line(module, line):
    """The book with one more line at the end of a module."""
    return {**BOOK, module: BOOK.get(module, "") + line + "\n"}


@pytest.mark.parametrize(
    "faults_of", [table_faults, import_faults, room_faults, equation_faults, library_faults]
)
def test_a_sound_book_has_no_faults(faults_of):
    assert faults_of(BOOK) == []


def assert_one_fault(faults, *words):
    """Fail unless there is one fault, and it has all these words."""
    assert len(faults) == 1, faults
    assert all(word in faults[0] for word in words), faults


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("ops/more", "", '"""More: x."""'), ["ops/more.py", "0 times"]),
        (("__init__", "3  ops/thrice ", "3  ops/twice  "), None),
        (("__init__", "     4  text", "     5  text"), ["py:12", "chapter 5", "number 4"]),
        (("__init__", "·  threads ", "2  threads "), None),
        (("__init__", "  cli          Command", "  cli          Comand"), ["cli.py", "Comand"]),
        (("cli", "line:", "line and"), ["cli.py", "Command line"]),
        (("__init__", '"""\n\n__v', '     ·  cly   C\n"""\n\n__v'), ["py:15", "cly has no file"]),
        (("__init__", "  Part I: Arrays\n", ""), None),
        (("__init__", "Part I: Arrays", "Part I"), ["py:6", "part I has no title"]),
        (("__init__", "Part II:", "Part III:"), ["part III where ['II']"]),
        (("__init__", "  Part II:", "  Part II: Air\n  Part III:"), ["part II has no module"]),
        (("__init__", "  Part II:", "  Appendix:"), ["part Appendix where ['II']"]),
    ],
    ids=[
        "missing",
        "twice",
        "number",
        "plumbing numbered",
        "title",
        "opening",
        "no file",
        "no part",
        "no title of a part",
        "order of parts",
        "empty part",
        "appendix in the middle",
    ],
)
def test_a_broken_table_is_reported(change, words):
    faults = table_faults(broken(*change))
    assert faults
    if words:
        assert_one_fault(faults, *words)


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        ("ops/twice", "from minigpt2.ops.thrice import thrice", ["ops/twice.py:17", "ops/thrice"]),
        ("ops/twice", "from .thrice import thrice", ["ops/thrice comes later"]),
        ("ops/twice", "from . import thrice", ["ops/thrice comes later"]),
        ("ops/twice", "import minigpt2.cli", ["cli comes later"]),
        ("ops/twice", "from ..cli import main", ["cli comes later"]),
        ("ops/twice", "def f():\n    from ..cli import main", ["py:18", "cli comes later"]),
        (
            "ops/twice",
            "from importlib import import_module\nimport_module('minigpt2.cli')",
            ["cli"],
        ),
        ("ops/twice", "from .twice import twice", ["ops/twice comes later"]),
        ("threads", "from .text import words", ["text/words comes later"]),
        ("threads", "from .threads import run", ["threads comes later"]),
        ("backend", "from .threads import run", ["threads comes later"]),
        ("backend", "from .ops import twice", ["ops/twice"]),
        ("backend", "from minigpt2.ops import twice", ["ops/twice"]),
        ("backend", "from . import ops", ["ops/twice", "ops/thrice"]),
        ("backend", "from .ops import __doc__", ["ops/twice", "ops/thrice"]),
        ("ops/__init__", "from ..cli import main", ["cli comes later"]),
        ("ops/__init__", "from ..text.words import word", ["text/words comes later"]),
        ("cli", "import minigpt2", ["no module"]),
        ("cli", "from minigpt2 import twice", ["no module"]),
        ("cli", "from .nothing import twice", ["no module"]),
        ("__init__", "from .backend import np", ["backend comes later"]),
    ],
)
def test_an_import_of_what_comes_later_is_reported(module, line, words):
    faults = "\n".join(import_faults(with_line(module, line)))
    assert all(word in faults for word in words), faults


def test_a_folder_may_import_what_it_holds():
    assert import_faults(with_line("ops/__init__", "from . import twice, thrice")) == []


@pytest.mark.parametrize("opening", ["def __getattr__(name):", "if TYPE_CHECKING:"])
def test_the_package_may_import_what_it_holds_when_asked_for_it(opening):
    lines = f"{opening}\n    from .ops import twice\n    from .cli import main\n"
    assert import_faults(with_line("__init__", lines)) == []
    assert len(import_faults(with_line("__init__", lines + "from .cli import run"))) == 1


@pytest.mark.parametrize(
    ("lines", "rooms"),
    [
        ({"backend": "from .ops import twice"}, ["ops", "backend"]),
        ({"text/words": "from ..cli import main", "cli": "from .text import words"}, ["text"]),
        ({"backend": "from . import cli"}, ["backend", "cli", "ops"]),
    ],
    ids=["two rooms", "above and below", "by way of a third"],
)
def test_a_circle_of_rooms_is_reported(lines, rooms):
    book = dict(BOOK)
    for module, line in lines.items():
        book[module] += line + "\n"
    faults = "\n".join(room_faults(book))
    for room in rooms:
        assert f"leads back to {room}" in faults


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("ops/twice", "return x + x  # (N, C)  (2.1)", "return x  # (2.4)"), ["py:13", "(2.4)"]),
        (("ops/twice", "(2.2)\n    z", "(2.3)\n    z"), None),
        (("ops/twice", "  (2.3)", "  (2.4)"), None),
        (("ops/twice", "x again.\n", "x again, as in (1.7) it was.\n"), ["(1.7)", "not defined"]),
        (
            ("ops/twice", "which follows from (2.3)", "which follows"),
            ["py:5", "nothing uses (2.3)"],
        ),
        (("ops/twice", "dy  # (N, C)  (2.2)", "dy  # (N, C)"), ["py:4", "nothing uses (2.2)"]),
        (("ops/twice", "again.\n\n    y = x + x                 (2.1)", "again.\n"), None),
        (("ops/thrice", "more.", "more.\n    y = 3 x  (2.1)\n"), None),
        (("ops/twice", "from (2.1)     (2.2)", "from (2.1) (2.2)"), None),
        (("backend", "os\n", "os  # (2.9)\n"), ["backend.py:2", "(2.9)", "not defined"]),
        (("ops/thrice", "twice\n", "twice  # (3.1) (2.1)\n"), ["thrice.py:2", "(3.1)"]),
        (
            ("threads", "once.", "once.\n\n    t = 1  (5.1)\n\nBy (5.1)."),
            ["threads.py:3", "defines (5.1), but is no chapter"],
        ),
        (
            ("cli", "type.", "type.\n\n    t = 1  (6.1)\n\nBy (6.1)."),
            ["defines (6.1), but is no chapter"],
        ),
    ],
)
def test_a_broken_equation_is_reported(change, words):
    faults = equation_faults(broken(*change))
    assert faults
    if words:
        assert_one_fault(faults, *words)


@pytest.mark.parametrize(
    ("module", "line", "library"),
    [
        ("ops/twice", "import torch.nn as nn", "torch"),
        ("cli", "from transformers import GPT2", "transformers"),
        ("cli", "def f():\n    import jax", "jax"),
        ("backend", "import pickle", "pickle"),
        ("ops/twice", "import cupy as cp", "cupy"),
        ("cli", "import importlib\nimportlib.import_module('cupy')", "cupy"),
        ("ops/twice", "import scipy.special", "scipy"),
        ("backend", "import rich", "rich"),
        ("training/schedule", "import rich", "rich"),
        ("training/step", "import ml_dtypes", "ml_dtypes"),
        ("inference/generate", "import psutil", "psutil"),
        ("model/block", "from huggingface_hub import x", "huggingface_hub"),
    ],
)
def test_a_library_out_of_place_is_reported(module, line, library):
    assert_one_fault(library_faults(with_line(module, line)), f"imports {library}")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backend", "import cupy"),
        ("weights", "import safetensors.numpy"),
        ("model/block", "import tiktoken"),
        ("cli", "import rich"),
        ("training/precision", "import ml_dtypes"),
        ("reports/run_log", "import rich"),
    ],
)
def test_a_library_in_its_place_is_not_reported(module, line):
    assert library_faults({module: line}) == []


SHOP = {"commands/__init__": "", "commands/show": "", **dict.fromkeys(SHARED_BY_COMMANDS, "")}


def test_commands_in_their_place_are_not_reported():
    assert command_faults(["show"], SHOP) == []


def test_a_command_out_of_place_is_reported():
    assert_one_fault(command_faults(["show", "stats"], SHOP), "commands/stats.py", "no file")
    assert_one_fault(command_faults([], SHOP), "commands/show.py", "not a sub-command")
    lacking = {module: text for module, text in SHOP.items() if module != "commands/setup"}
    assert_one_fault(command_faults(["show"], lacking), "commands/setup.py", "no file")
