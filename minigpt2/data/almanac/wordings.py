"""Wordings: text files of templates in sections, and how a template is filled.

A file has sections `[name]`, one wording a line; blank lines and lines that begin with # do
not count.  A template's fields stand in braces.  A field `word` brings three more with it:
`Word` has a capital letter, `a word` an article, `A word` both.
"""

from functools import cache
from importlib.resources import files

MARKS = ("head: ", "list: ", "it: ")  # what lines with a special use begin with


@cache
def sections(name: str) -> dict[str, tuple[str, ...]]:
    """Section -> its lines, for the file wordings/<name>.txt."""
    text = (files(__package__) / "wordings" / f"{name}.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("["):
            title = line.strip("[]")
            if title in found:
                raise ValueError(f"{name}.txt line {number} repeats the section [{title}]")
            lines = found[title] = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return {title: tuple(lines) for title, lines in found.items()}


def marked(lines: tuple[str, ...], mark: str) -> list[str]:
    """The lines that begin with "mark: ", without it; for mark "" those without a mark."""
    if mark:
        return [line.removeprefix(f"{mark}: ") for line in lines if line.startswith(f"{mark}: ")]
    return [line for line in lines if not line.startswith(MARKS)]


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def article(text: str) -> str:
    """The text after "a" or "an"."""
    return ("an " if text[:1].lower() in "aeiou" else "a ") + text


def fill(template: str, **fields: object) -> str:
    """The template with its fields filled in."""
    forms = {}
    for key, value in fields.items():
        text = str(value)
        forms[key] = text
        forms[capital(key)] = capital(text)
        forms[f"a {key}"] = article(text)
        forms[f"A {key}"] = capital(article(text))
    return template.format_map(forms)
