"""Wording: numbers as people read them."""


def plural(count: int, noun: str) -> str:
    """Return a number and what it counts.

    >>> plural(1, "token"), plural(1200, "token"), plural(0, "entry")
    ('1 token', '1,200 tokens', '0 entries')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("ry") else f"{count:,} {noun}s"


def size(number: float) -> str:
    """Return a number of bytes.

    >>> size(278e6), size(13.9e9)
    ('278 MB', '13.90 GB')
    """
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """Return a time.

    >>> duration(0.25), duration(42), duration(600), duration(9000)
    ('0.25 s', '42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def rounded(number: float, form: str) -> str:
    """Return a number in a format; one that rounds to 0 has no sign.

    >>> rounded(-0.004, ".2f"), rounded(-0.006, ".2f"), rounded(-0.0004, ".1%")
    ('0.00', '-0.01', '0.0%')
    """
    text = format(number, form)
    return text.lstrip("+-") if text.strip("+-") == format(0.0, form).strip("+-") else text


def shorten(text: str, width: int = 120) -> str:
    """Return a text on one line, cut to a width.

    >>> shorten("two  words,\\n and more", width=12)
    'two words, …'
    """
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
