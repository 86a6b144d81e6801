"""Wording: a number with its noun."""


def plural(count: int, noun: str) -> str:
    """Return a number and what it counts.

    >>> plural(1, "token"), plural(1200, "token")
    ('1 token', '1,200 tokens')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
