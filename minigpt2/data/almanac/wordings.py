"""Wordings: templates in text files, and how a template is filled.

A file has sections `[name]` with one wording on each line.  Blank lines and lines that begin with
# do not count.  The fields of a template are in braces.  For a field `word` there are three more:
`Word` with a capital letter, `a word` with an article, and `A word` with both.

    >>> fill("{A pet} is {a pet}.", pet="owl")
    'An owl is an owl.'
"""

from functools import cache
from importlib.resources import files

MARKS = ("head: ", "list: ", "it: ")  # lines with a special use begin with one of these


@cache
def sections(name: str) -> dict[str, tuple[str, ...]]:
    """Return {section: its lines} of the file wordings/<name>.txt."""
    text = (files(__package__) / "wordings" / f"{name}.txt").read_text(encoding="utf-8")
    lines_of: dict[str, list[str]] = {}
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("["):
            title = line.strip("[]")
            if title in lines_of:
                raise ValueError(f"{name}.txt line {number} repeats the section [{title}]")
            lines = lines_of[title] = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return {title: tuple(lines) for title, lines in lines_of.items()}


def marked(lines: tuple[str, ...], mark: str) -> list[str]:
    """Return the lines that begin with "mark: ", without it; for mark "", the lines without one."""
    if mark:
        return [line.removeprefix(f"{mark}: ") for line in lines if line.startswith(f"{mark}: ")]
    return [line for line in lines if not line.startswith(MARKS)]


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def article(text: str) -> str:
    """Return the text after "a" or "an"."""
    return ("an " if text[:1].lower() in "aeiou" else "a ") + text


def fill(template: str, **fields: object) -> str:
    """Return the template with its fields filled in."""
    forms = {}
    for key, value in fields.items():
        text = str(value)
        forms[key] = text
        forms[capital(key)] = capital(text)
        forms[f"a {key}"] = article(text)
        forms[f"A {key}"] = capital(article(text))
    return template.format_map(forms)
