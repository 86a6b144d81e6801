"""Errors: a user who can fix something reads in one line what is wrong.

If a file, a setting or a name that the user gave cannot be used, the code raises `UserError`; the
command line prints its text and exits with 2.  Any other exception is a bug of this project.
"""

from collections.abc import Collection, Iterable
from dataclasses import MISSING, Field, fields
from math import inf, isfinite
from typing import Any

PICTURES = (".png", ".svg", ".pdf")  # endings of files


class UserError(ValueError):
    """Something that the user gave cannot be used; the text says what, where, and what to do."""


class OtherFormat(UserError):
    """A file of another version of this program: it may be whole, and cannot be read."""


class OverBound(UserError):
    """A run has reached a bound that the user set: it is saved as it is, and stops."""


class NothingToLearn(UserError):
    """A run has learnt what it can: it is saved, and ends before its last step."""


class NothingLeft(UserError):
    """What the user wants is done already: the exit code is 0."""


def in_digits(number: float) -> str:
    """Return a number as people write it: 1 rather than 1.0."""
    return f"{number:.15g}"


def out_of_bounds(name: str, value: float, bound: str) -> UserError:
    """Return the error for a setting that is not finite, or not what its bound says."""
    wanted = "finite" if value == inf else bound
    return UserError(f"{name} must be {wanted}, not {in_digits(value)}")


def require_one_of(names: Collection[str], name: str, what: str) -> None:
    """Raise ValueError unless a name is one of those that are known; `what` is what it names."""
    if name not in names:
        raise ValueError(f"{what} {name!r} is none of {', '.join(names)}")


def require_at_least(minimum: float, settings: object, *names: str) -> None:
    """Raise UserError unless each named setting, where it is not None, is finite and >= minimum."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (isfinite(value) and value >= minimum):
            raise out_of_bounds(name, value, f"at least {minimum}")


def require_picture(settings: object, *names: str) -> None:
    """Raise UserError unless each named path, where it is not None, ends as a picture does."""
    for name in names:
        path = getattr(settings, name)
        if path is not None and path.suffix.lower() not in PICTURES:
            raise UserError(f"{name} must end in {', '.join(PICTURES)}, not be {path}")


def require_above_zero(settings: object, *names: str) -> None:
    """Raise UserError unless each named setting is finite and > 0."""
    for name in names:
        value = getattr(settings, name)
        if not (isfinite(value) and value > 0):
            raise out_of_bounds(name, value, "above 0")


def changed(settings: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named settings that are not as they are by default."""
    values = {name: getattr(settings, name) for name in names}
    defaults = {field.name: default_of(field) for field in fields(settings)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def default_of(field: "Field[Any]") -> Any:
    """Return the default of a setting."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def require_with(switch: str, settings: Any, *names: str) -> None:
    """Raise UserError for a named setting that was changed, unless the one it belongs to is set."""
    if not getattr(settings, switch):
        for name in changed(settings, names):
            raise UserError(f"{name} has no effect without {switch}")


def require_share(settings: object, *names: str) -> None:
    """Raise UserError unless each named setting is at least 0 and below 1."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value < 1:
            raise UserError(f"{name} must be at least 0 and below 1, not {in_digits(value)}")
