"""Checked values: what Python code passes is compared with the types that are expected.

The command line gets its types from text.  Python code can pass anything, and a wrong value would
end in an exception far from its cause, or in a run that does not do what was meant.  Here a value
of the wrong type, or a name that does not exist, becomes one sentence.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from minigpt2.errors import UserError

WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    NoneType: "None",
}


def checked(types: Mapping[str, Any], values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return values by name, each as the type of its name wants it.

    A whole number serves as a float, text as a path and a path as text.  Raises UserError for an
    unknown name or a wrong type; `owner` says whose names they are.

    >>> checked({"out": Path, "epochs": float}, {"out": "runs/a", "epochs": 2}, "train")["epochs"]
    2.0
    >>> checked({"epochs": float}, {"epoch": 2}, "train")
    Traceback (most recent call last):
    minigpt2.errors.UserError: train has no argument 'epoch'; did you mean 'epochs'?
    """
    result = {}
    for name, value in values.items():
        if name not in types:
            near = get_close_matches(name, types, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(types)}"
            raise UserError(f"{owner} has no argument {name!r}; {hint}")
        try:
            result[name] = converted(types[name], value)
        except OverflowError:
            raise UserError(f"{name} is too large") from None
        except TypeError:
            wanted = in_words(types[name])
            raise UserError(f"{name} must be {wanted}, not {value!r}") from None
    return result


def converted(wanted: Any, value: Any) -> Any:
    """Return a value as a type wants it.  Raises TypeError if it is none of the type's values."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return value
    if origin is Literal:
        if isinstance(value, str | int) and value in parts:
            return value
    elif origin in (Union, UnionType):
        for part in parts:
            try:
                return converted(part, value)
            except TypeError:
                continue
    elif origin is list:
        if isinstance(value, list | tuple):
            return [converted(parts[0], item) for item in value]
    elif origin is dict:
        if isinstance(value, dict):
            return {
                converted(parts[0], key): converted(parts[1], item) for key, item in value.items()
            }
    else:
        return as_plain(wanted, value)
    raise TypeError


def as_plain(wanted: type, value: Any) -> Any:
    """Return a value as a plain type wants it; numbers may be those of another library, too.

    Raises TypeError if it is another kind of value, OverflowError if a number is too large.
    """
    if wanted is bool or isinstance(value, bool):
        if wanted is bool and isinstance(value, bool | np.bool_):
            return bool(value)
    elif wanted is float:
        if isinstance(value, Real):
            return float(value)
    elif wanted is int:
        if isinstance(value, Integral):
            float(value)  # raises OverflowError where settings could not be compared
            return int(value)
    elif wanted in (str, Path):
        if isinstance(value, str | Path):
            return wanted(value)
    elif isinstance(value, wanted):
        return value
    raise TypeError


def in_words(wanted: Any) -> str:
    """Return a type as a reader calls it."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " or ".join(in_words(part) for part in parts)
    if origin is list:
        return f"a list, each entry {in_words(parts[0])}"
    if origin is dict:
        return f"a dict from {in_words(parts[0])} to {in_words(parts[1])}"
    return WORDS.get(wanted, getattr(wanted, "__name__", str(wanted)))
