"""Checked values: right ones pass, as their type wants them, and wrong ones do not."""

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt2.checked import checked
from minigpt2.errors import UserError

TYPES = {
    "count": int,
    "rate": float,
    "flag": bool,
    "name": str,
    "out": Path | None,
    "kind": Literal["a", "b"],
    "tests": list[str] | str | None,
    "columns": dict[str, str] | None,
}
RIGHT = {
    "count": st.integers(),
    "rate": st.integers() | st.floats(),
    "flag": st.booleans(),
    "name": st.text() | st.just(Path("runs/a")),
    "out": st.none() | st.text() | st.just(Path("x")),
    "kind": st.sampled_from(["a", "b"]),
    "tests": st.none() | st.text() | st.lists(st.text()),
    "columns": st.none() | st.dictionaries(st.text(), st.text()),
}
WRONG = {
    "count": st.floats() | st.booleans() | st.text() | st.none(),
    "rate": st.text() | st.booleans() | st.none(),
    "flag": st.integers() | st.text() | st.none(),
    "name": st.integers() | st.none() | st.binary(),
    "out": st.integers() | st.booleans(),
    "kind": st.sampled_from(["c", "", None, 1, True, ["a"]]),
    "tests": st.integers() | st.lists(st.integers(), min_size=1),
    "columns": st.text() | st.dictionaries(st.text(), st.integers(), min_size=1),
}


@given(st.data())
def test_right_values_pass_and_have_their_type(data):
    values = {name: data.draw(strategy) for name, strategy in RIGHT.items()}
    result = checked(TYPES, values, "train")
    assert result.keys() == values.keys()
    assert type(result["rate"]) is float and type(result["name"]) is str
    assert result["out"] is None or isinstance(result["out"], Path)


@given(st.data())
def test_wrong_values_are_named_with_what_is_wanted(data):
    name = data.draw(st.sampled_from(sorted(WRONG)))
    value = data.draw(WRONG[name])
    with pytest.raises(UserError, match=f"^{name} must be ") as error:
        checked(TYPES, {name: value}, "train")
    assert str(error.value).endswith(f"not {value!r}")


def test_an_unknown_name_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match="train has no argument 'colums'; did you mean 'columns'"):
        checked(TYPES, {"colums": None}, "train")
    with pytest.raises(UserError, match="it has count, rate, flag"):
        checked(TYPES, {"zzz": 1}, "train")


def test_any_value_is_right_where_no_type_is_wanted():
    value = object()
    assert checked({"x": Any}, {"x": value}, "train") == {"x": value}
