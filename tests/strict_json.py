"""JSON as the standard has it: without NaN and infinities, which Python's own reader takes."""

import json


def strict_json(text):
    """The value of a JSON text."""
    return json.loads(text, parse_constant=refuse)


def strict_lines(text):
    """The values of a JSONL text."""
    return [strict_json(line) for line in text.splitlines()]


def refuse(constant):
    """Raise ValueError for NaN or an infinity."""
    raise ValueError(f"{constant} is not JSON")
