"""The tool that spoils lines: what it changes, and what it does with a list of survivors."""

import sys
from types import ModuleType
from typing import get_args

import pytest

from tests.mutation.survivors import Key, read_list
from tests.mutation.swap import run_anew

pytest.importorskip("mutmut", reason="make mutate installs it")

from tests.mutation.mutants import mutants_of
from tests.mutation.run import MOST_SECONDS, Runner, Traces, in_order

SOURCE = '''"""A module."""

LIMIT = 3


@decorated
def f(x, step=1):
    """Text."""
    return x + step


class C:
    def g(self):
        raise ValueError("no")
'''


@pytest.fixture
def mutants(tmp_path):
    """All mutants of the source."""
    (tmp_path / "a.py").write_text(SOURCE)
    return list(mutants_of(tmp_path, "a.py"))


def test_every_number_sign_and_text_is_changed_also_in_decorated_functions(mutants):
    changes = {(m.key.function, m.key.before[0], m.key.after[0]) for m in mutants}
    assert ("", "LIMIT = 3", "LIMIT = 4") in changes
    assert ("f", "def f(x, step=1):", "def f(x, step=2):") in changes
    assert ("f", "return x + step", "return x - step") in changes
    assert ("C.g", 'raise ValueError("no")', 'raise ValueError("NO")') in changes
    assert not any("Text" in before or "decorated" in before for _, before, _ in changes)


def test_it_is_known_when_a_changed_line_runs_and_which_texts_are_of_errors(mutants):
    by_change = {m.key.after[0]: m for m in mutants}
    assert not by_change["LIMIT = 4"].place.is_body
    assert not by_change["def f(x, step=2):"].place.is_body
    subtraction = by_change["return x - step"]
    assert subtraction.place == (("f",), 6, True, (8, 9)) and subtraction.first == 9
    assert [m.is_wording for m in mutants if '"' in m.key.after[0]] == [True, True]


def test_a_list_of_survivors_is_read():
    text = """# Title

Words.

## a.py

### f

Only speed.

    - return x + step
    + return step + x

    - a(
    - b)
    + a()

### outside of functions

A number that was chosen.

    - LIMIT = 3
    + LIMIT = 4
"""
    assert dict(read_list(text)) == {
        Key("a.py", "f", ("return x + step",), ("return step + x",)): 1,
        Key("a.py", "f", ("a(", "b)"), ("a()",)): 1,
        Key("a.py", "", ("LIMIT = 3",), ("LIMIT = 4",)): 1,
    }


def test_a_change_without_a_reason_is_refused():
    with pytest.raises(AssertionError, match="no reason"):
        read_list("## a.py\n\n### f\n\n    - a\n    + b\n")


CONSTANTS = """from typing import Literal

Choice = Literal["a", "b"]
LIMIT = 3


def f(x=LIMIT):
    return x
"""


def test_what_runs_when_a_module_is_imported_is_changed_wherever_it_has_gone(monkeypatch):
    module, user = ModuleType("tests.a_module"), ModuleType("tests.a_user")
    module.__file__ = "a_module.py"
    exec(CONSTANTS, vars(module))
    vars(user).update(Choice=module.Choice, LIMIT=module.LIMIT, f=module.f)
    for one in (module, user):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    run_anew(module, CONSTANTS.replace("3", "4").replace('"b"', '"B"'))
    assert user.LIMIT == module.LIMIT == 4 and user.f() == 4
    assert get_args(user.Choice) == get_args(module.Choice) == ("a", "B")


def test_near_tests_come_before_quick_ones_and_the_time_is_bounded():
    seconds = {"a": 2.0, "b": 1.0, "c": 0.5, "d": MOST_SECONDS}
    assert in_order([{"a", "b"}, {"b", "c", "d"}], seconds) == ["b", "a", "c"]


def test_what_runs_at_import_is_tried_by_the_file_s_own_tests_too(tmp_path, mutants):
    of_f, of_g = "tests/test_a.py::f", "tests/test_b.py::g"
    own, other = "tests/test_a.py::constant", "tests/test_c.py::other"
    runner = Runner(tmp_path, [], [], 1, None)
    runner.importing.stop()
    file = "minigpt2/a.py"
    lines = {file: {9: [of_f], 14: [of_g]}}
    runner.traces = Traces(lines, dict.fromkeys((of_f, of_g, own, other), 0.1))
    runner.imported = {file: {3, 6, 7, 12, 13}}
    by_change = {m.key.after[0]: m._replace(file=file) for m in mutants}
    assert runner.tests_of(by_change["return x - step"]) == [of_f]
    assert set(runner.tests_of(by_change["LIMIT = 4"])) == {of_f, of_g, own}
